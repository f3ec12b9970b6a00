"""Non-inferiority on slices: a better mean must not be paid for by some of the users.

Each slice large enough to be judged asks: is the challenger shown not to lose more than SLICE_MARGIN of what the
champion earns there? All must say yes, so no correction for their number is needed to keep the error small
(intersection-union test; Berger 1982, "Multiparameter hypothesis testing and acceptance sampling": a challenger that
is worse than the margin on any slice passes no more often than that slice's own test errs). Their number costs power
instead, hence few slices, a minimum size and a margin that one night can tell. A slice that is not shown to be good
enough is "inconclusive"; it is called "failed" only where a loss beyond the margin is itself shown, by Holm's
procedure over all slices, so that the report accuses no slice by chance.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from goalrank.verdict.document import Check, Slice, Status, slices_status
from goalrank.verdict.statistics import Comparisons, holm
from goalrank.verdict.thresholds import CONFIDENCE, MINIMUM_SLICE_USERS, SLICE_MARGIN


def add_slices(compared: Comparisons, differences_R: np.ndarray, slices: Mapping[str, np.ndarray]) -> None:
    """Ask for the comparisons that :func:`judge_slices` will read."""
    for name, chosen_R in slices.items():
        if compared.users(chosen_R) >= MINIMUM_SLICE_USERS:
            compared.add(f"slice {name}", differences_R, chosen_R)


def judge_slices(compared: Comparisons, champion_R: np.ndarray, slices: Mapping[str, np.ndarray]) -> list[Slice]:
    """Every slice with its numbers and status, in the order given.

    Args:
        compared: after :func:`add_slices`.
        champion_R: the champion's judged reward of each request.
        slices: by name, which requests (bool [R]) belong to it; slices may overlap.
    """
    margins: dict[str, float] = {}
    p_values: dict[str, float] = {}
    for name, chosen_R in slices.items():
        if compared.users(chosen_R) >= MINIMUM_SLICE_USERS:
            margins[name] = SLICE_MARGIN * abs(float(champion_R[chosen_R].mean()))
            p_values[name] = compared.share_above(f"slice {name}", -margins[name])
    lost = dict(zip(p_values, holm(list(p_values.values()), (1 - CONFIDENCE) / 2), strict=True))
    judged = []
    for name, chosen_R in slices.items():
        requests, users = int(np.count_nonzero(chosen_R)), compared.users(chosen_R)
        champion = float(champion_R[chosen_R].mean()) if requests else None
        if name not in margins:
            judged.append(
                Slice(
                    name=name,
                    requests=requests,
                    users=users,
                    champion=champion,
                    difference=None,
                    margin=None,
                    status="not_applicable",
                )
            )
            continue
        difference = compared.interval(f"slice {name}")
        status: Status = "passed" if difference.low > -margins[name] else "inconclusive"
        if lost[name]:
            status = "failed"
        judged.append(
            Slice(
                name=name,
                requests=requests,
                users=users,
                champion=champion,
                difference=difference,
                margin=margins[name],
                status=status,
            )
        )
    return judged


def slices_check(judged: list[Slice]) -> Check:
    """All slices as one check: how many of them stand in the way."""
    against = [part for part in judged if part.status in ("failed", "inconclusive")]
    small = [part for part in judged if part.status == "not_applicable"]
    told = [_told(part) for part in against]
    if small:
        sizes = ", ".join(f"{part.name} ({part.users} users)" for part in small)
        told.append(f"fewer than {MINIMUM_SLICE_USERS} users, not judged: {sizes}")
    return Check(
        name="slices",
        value=float(len(against)),
        threshold=0.0,
        status=slices_status(judged),
        detail="; ".join(told)
        or (f"{len(judged)} slices within {SLICE_MARGIN:.0%}" if judged else "no slice was looked at"),
    )


def _told(part: Slice) -> str:
    assert part.difference is not None and part.margin is not None
    shown = "loses more than" if part.status == "failed" else "may lose more than"
    return (
        f"{part.name} {shown} {part.margin:.4f} a request ({part.difference.mean:+.4f}, "
        f"{part.difference.low:+.4f} to {part.difference.high:+.4f}, {part.users} users)"
    )
