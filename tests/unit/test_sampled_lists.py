"""Which tolerance two trainings of one ranker are held to."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from goalrank.checkpoint import CARD, FORMAT
from goalrank.processes import TOLERANCE, TOLERANCE_AFTER_A_TIE
from tests.sampled_lists import SAME, tolerance_of

CURVES = {"on_policy_reward": [[2, 0.5], [4, 0.625]], "duplicates": [[2, 0.25], [4, 0.125]], "loss": [[2, 1.0]]}
ROUNDED: list[tuple[str, int, float]] = [("on_policy_reward", 1, SAME / 2), ("loss", 0, 0.5)]
PARTED: list[tuple[str, int, float]] = [("on_policy_reward", 0, 3 * SAME), ("duplicates", 1, -1 / 384)]


def ranker(folder: Path, curves: dict[str, Any]) -> Path:
    folder.mkdir()
    card = {"format": FORMAT, "kind": "ranker", "config": {}, "weights_sha256": "", "created_by": {}}
    (folder / CARD).write_text(json.dumps(card | {"metrics": {"curves": curves}}))
    return folder


@pytest.mark.parametrize(
    ("spoil", "tolerance"),
    [(None, TOLERANCE), *((each, TOLERANCE) for each in ROUNDED), *((each, TOLERANCE_AFTER_A_TIE) for each in PARTED)],
)
def test_the_wide_one_only_where_lists_differ(
    spoil: tuple[str, int, float] | None, tolerance: float, tmp_path: Path
) -> None:
    other = copy.deepcopy(CURVES)
    if spoil is not None:
        name, point, by = spoil
        other[name][point][1] += by
    assert tolerance_of(ranker(tmp_path / "one", CURVES), ranker(tmp_path / "other", other)) == tolerance


def test_runs_of_other_lengths_are_not_the_same(tmp_path: Path) -> None:
    longer = CURVES | {"duplicates": [*CURVES["duplicates"], [6, 0.1]]}
    assert tolerance_of(ranker(tmp_path / "one", CURVES), ranker(tmp_path / "other", longer)) == TOLERANCE_AFTER_A_TIE
