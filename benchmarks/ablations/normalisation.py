"""What normalising the rewards of a group does and does not do against the reward model's errors.

Rewards are the true ones with an error planted (signals.py), so that how much of the order is right is known; last, the
trained guide's, whose errors are its own. Arms: standardised (dividing alone is the same policy), raw at the
temperature that makes it as sharp on the whole data set (centring alone is the same policy as raw), ranks, also
matched; of r* and the guide also raw at the very temperature of standardised ones, which is another sharpness.
Expected, before any run: a constant in a request changes nothing in any arm; a scale of the request's own changes
nothing where rewards are divided by their spread; monotone transforms change nothing for ranks (but for ties); an error
that differs between lists stays in every arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.ablations import runs
from benchmarks.ablations.arms import TRUTH, Arm, Error, Signal
from benchmarks.ablations.figure import REGRET, curve, dots, panels, save
from benchmarks.ablations.settings import Size
from benchmarks.ablations.study import Study, by_arm
from benchmarks.ablations.training import mask_of, measured_groups, reward_of
from benchmarks.quality.stages import Place
from benchmarks.report import Claim, Row, claim
from goalrank.metrics import rank_correlation
from goalrank.objective import Normalisation, ObjectiveConfig, group_relative_loss

CONSTANT, SCALE, GUIDE = Signal(True, "constant", 10.0), Signal(True, "scale", 10.0), Signal()
LIST_ERRORS: tuple[Error, ...] = ("noise", "popularity")
LIST_SIZES = (0.5, 2.0)
MONOTONE: tuple[Error, ...] = ("cube", "saturating", "steps")
STANDARDISED = "standardised"
OBJECTIVES = {
    STANDARDISED: ObjectiveConfig(),
    "raw, matched": ObjectiveConfig(normalisation="raw", matched_to="standardised"),
    "ranks, matched": ObjectiveConfig(normalisation="ranks", matched_to="standardised"),
}
WITH_UNMATCHED = OBJECTIVES | {"raw": ObjectiveConfig(normalisation="raw")}
"""Also raw at the temperature that standardised rewards have, in units of the reward."""
ALL_ARMS: tuple[Normalisation, ...] = ("standardised", "divided", "raw", "centred", "ranks")
BASE, GUIDE_BASE = f"{TRUTH.name}; {STANDARDISED}", f"{GUIDE.name}; {STANDARDISED}"
LOSS_LIMIT, REGRET_LIMIT = 1e-3, 0.01
"""Of a loss that rounding alone may change (the constants are 10 times the spread, rewards float32); and of regret,
what is held to be no change: above the spread over seeds where rewards are r*'s (0.001 to 0.008), below it under the
guide (0.015 to 0.021)."""


def study(thin: bool) -> Study:
    """Every error under every objective, and the guide."""
    signals = [TRUTH, CONSTANT, SCALE]
    signals += [Signal(True, error, size) for error in LIST_ERRORS for size in LIST_SIZES]
    signals += [Signal(True, error) for error in MONOTONE]
    if thin:
        signals = [TRUTH, SCALE, Signal(True, "noise", 2.0)]
    arms = [
        Arm(f"{signal.name}; {name}", signal=signal, objective=objective)
        for signal in (*signals, GUIDE)
        for name, objective in (WITH_UNMATCHED if signal in (TRUTH, GUIDE) else OBJECTIVES).items()
    ]
    question = (
        "rewards are r* with an error planted, or the guide's; arms of the normalisation, equally sharp on the whole "
        f'data set but for "raw"; the base is {BASE}, of the guide\'s arms {GUIDE_BASE}'
    )
    return Study("normalisation", question, arms, _claims, _draw, BASE, _losses, _base_of)


def _base_of(arm: str) -> str:
    """The guide's errors are not the normalisation's doing: its arms are compared with one another."""
    return GUIDE_BASE if arm.startswith(f"{GUIDE.name}; ") else BASE


def _losses(place: Place, size: Size, _: Sequence[Arm]) -> list[Row]:
    """By how much a constant in each request changes the loss of each arm, for one and the same policy."""
    guide, truth, problem = runs.guide_of(place, 0), runs.truth_of(place), runs.problem_of(place)
    plain, shifted = (
        measured_groups(problem, reward_of(signal, guide, truth), size.measured_groups) for signal in (TRUTH, CONSTANT)
    )
    mask_RG, chance = mask_of(plain), torch.Generator().manual_seed(0)
    log_prob_RG = -10.0 + torch.randn(mask_RG.shape, generator=chance)
    ones_R = torch.ones(len(mask_RG))
    rows: list[Row] = []
    for normalisation in ALL_ARMS:
        # As sharp in units of the rewards as standardised ones are in units of their spread.
        temperature = 0.25 * (truth.spread if normalisation in ("raw", "centred") else 1.0)
        objective = ObjectiveConfig(normalisation=normalisation, temperature=temperature)
        first, second = (
            float(group_relative_loss(log_prob_RG, torch.from_numpy(groups.rewards_RG), mask_RG, ones_R, objective))
            for groups in (plain, shifted)
        )
        change = abs(second - first) / abs(first)
        rows.append({"part": "loss under a constant", "normalisation": normalisation, "loss": first, "change": change})
    return rows


def _claims(rows: list[Row]) -> list[Claim]:
    changes = [row["change"] for row in rows if row.get("part") == "loss under a constant"]
    made = []
    if changes:
        name = "a constant in each request: largest relative change of the loss over all arms"
        made.append(claim(name, max(changes), "at most", LOSS_LIMIT))
    known = {name: row["regret"] for name, row in by_arm(rows).items()}
    for objective, signal, limit in (
        ("standardised", SCALE, "at most"),
        ("ranks, matched", SCALE, "at most"),
        ("raw, matched", SCALE, "at least"),
        ("ranks, matched", Signal(True, "cube"), "at most"),
        ("ranks, matched", Signal(True, "saturating"), "at most"),
    ):
        plain, other = known.get(f"{TRUTH.name}; {objective}"), known.get(f"{signal.name}; {objective}")
        if plain is not None and other is not None:
            what = "changes" if limit == "at most" else "loses (it must not be robust)"
            gap = abs(other - plain) if limit == "at most" else other - plain
            made.append(claim(f"{signal.name}, {objective}: regret {what} by", gap, limit, REGRET_LIMIT))
    standardised, raw = known.get(GUIDE_BASE), known.get(f"{GUIDE.name}; raw, matched")
    if standardised is not None and raw is not None:
        name = "guide, raw, matched: regret differs from standardised by"
        made.append(claim(name, abs(raw - standardised), "at most", REGRET_LIMIT))
    return made


def _draw(rows: list[Row], file: Path) -> None:
    figure, (left, right) = panels(2, height=6.0)
    trained = [row for row in rows if "regret" in row]
    dots(left, trained, BASE)
    for objective in OBJECTIVES:
        of_objective = [row for row in trained if row["arm"].endswith(f"; {objective}")]
        curve(right, of_objective, "agreement", objective, joined=False)
    for row in trained:
        if row["arm"].endswith("; standardised"):
            at = (row["agreement"], row["regret"])
            right.annotate(row["signal"].removeprefix("r*, "), at, (3, 4), textcoords="offset points", fontsize=6)
    right.set(xlabel="share of pairs of lists in the true order", ylabel=REGRET)
    right.legend(frameon=False, fontsize=8)
    save(figure, file)


def correlation(rows: list[Row]) -> float:
    """Spearman's of regret and agreement over arms, ties at their mean rank; NaN with fewer than three."""
    regret, agreement = (np.array([row[name] for row in by_arm(rows).values()]) for name in ("regret", "agreement"))
    return rank_correlation(regret, agreement)
