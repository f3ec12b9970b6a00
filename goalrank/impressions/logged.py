"""Candidates that the log names itself (candidate_texts.py), and their scores: `[0.5, 2]`, `0.5|2`, `0.5 2`."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from goalrank.impressions import values
from goalrank.impressions.candidate_texts import CandidateTexts
from goalrank.impressions.lists import IntArray, Lists
from goalrank.impressions.reading import Ids

ADDED = "shown items added to the candidates"

_SCORE_MARKS = r"""[\s|;,\[\]()"']+"""


def candidates(
    lists: Lists, texts: CandidateTexts, items: Ids, rate_I: npt.NDArray[np.float64], noted: Counter[str]
) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """Candidates as logged, each once, and shown items that are missing among them added.

    Scores as logged, if there is a finite one for each candidate; an added item gets the lowest. Else click rates.

    Args:
        texts: how the column of candidates is read.
        items: codes of ids.
        rate_I: click rate of each item so far.
        noted: gets what was mended, by how.

    Returns:
        item_C, count_Q, score_C.
    """
    begin_Q = np.cumsum(lists.length_Q) - lists.length_Q
    item_C: list[int] = []
    score_C: list[float] = []
    count_Q = []
    for number, (ids, scores) in enumerate(zip(lists.candidates_Q, lists.scores_Q, strict=True)):
        originals = texts.parts(ids)
        codes = items.known(pa.array(originals, pa.string())).tolist()
        given = [values.number(score) for score in re.split(_SCORE_MARKS, scores) if score]
        score_of = _scores(codes, given)
        if scores and score_of is None:
            noted["lists with other scores than candidates"] += 1
        shown = lists.item_S[begin_Q[number] : begin_Q[number] + lists.length_Q[number]].tolist()
        chosen = list(dict.fromkeys(codes))
        known = set(chosen)
        missing = [item for item in shown if item not in known]
        noted[ADDED] += len(missing)
        if score_of is None:
            score_of = {item: float(rate_I[item]) for item in (*chosen, *missing)}
        else:
            lowest = min(score_of.values())
            score_of |= dict.fromkeys(missing, lowest)
        chosen += missing
        item_C += chosen
        score_C += [score_of[item] for item in chosen]
        count_Q.append(len(chosen))
    return np.array(item_C, dtype=np.int64), np.array(count_Q, dtype=np.int64), np.array(score_C)


def _scores(codes: list[int], given: list[float | None]) -> dict[int, float] | None:
    """The score of each candidate, the first where it stands twice; None unless all have one."""
    numbers = [score for score in given if score is not None and math.isfinite(score)]
    if not codes or len(numbers) != len(given) or len(given) != len(codes):
        return None
    return dict(zip(reversed(codes), reversed(numbers), strict=True))
