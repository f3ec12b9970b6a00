"""The objective beside the divergence it stands for, in a world whose lists can all be written down.

The paper derives its loss as a tractable upper bound of the divergence between pi* and the policy; its proof is not
restated here. Our reading, which needs convexity alone: let pi_B be the reference policy of a group B and pi_bar its
mean over groups. Then

    KL(pi_bar || pi_theta)  <=  E_B KL(pi_B || pi_theta)  =  loss - E_B entropy(pi_B),

and the right side is called the bound. That it also bounds KL(pi* || pi_theta) would need pi_bar = pi*, which holds for
no small group: pi_bar is flatter, or, standardised, has a temperature of each group's own. So three curves are kept
while a policy learns from groups alone: the bound, what it bounds for certain, and the divergence to pi*.

World and policies are those of benchmarks/capacity.py; rewards are r* itself, so no reward model's error is in it.

Shapes: U users, M groups of each, G lists in a group, P lists there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.ablations.arms import Arm
from benchmarks.ablations.figure import panels, save
from benchmarks.ablations.settings import Size
from benchmarks.ablations.study import Study
from benchmarks.capacity_policies import PolicyClass, log_policy
from benchmarks.capacity_world import TEMPERATURE, SmallWorld, small_world
from benchmarks.kept import digest_of, kept
from benchmarks.quality.stages import Place, code_digest
from benchmarks.report import Claim, Row, claim, progress
from goalrank.objective import Normalisation, group_reference

USERS, WIDTH = 24, 64
LEARNT_GROUPS, WATCHED_GROUPS = 8, 200
"""Groups a user: of a step, and of a point of the curves."""
RATE, POINTS = 0.02, 15
LEAST_CORRELATION = 0.9
PART = "bound"


@dataclass(frozen=True)
class Groups:
    """How groups are made and their rewards turned into a policy."""

    size: int
    normalisation: Normalisation
    temperature: float
    own: int = 0  # lists of the policy itself among them

    @property
    def name(self) -> str:
        """For tables."""
        how = "at pi*'s temperature" if self.normalisation == "raw" else f"standardised, {self.temperature:g}"
        return f"{self.size} lists, {how}{f', {self.own} own' if self.own else ''}"


ARMS = (
    *(Groups(size, "raw", TEMPERATURE) for size in (3, 8, 50)),
    *(Groups(size, "standardised", 0.25) for size in (3, 8, 50)),
    Groups(8, "raw", TEMPERATURE, own=4),
    Groups(8, "standardised", 0.25, own=4),
)


def study(thin: bool) -> Study:
    """All its rows are curves of the small world."""
    question = f"E KL(pi_B || pi) beside KL(pi* || pi), {USERS} users, all 120 lists, r* itself, width {WIDTH}"
    return Study("bound", question, (), _claims, _draw, beside=_curves)


def _curves(place: Place, size: Size, _: Sequence[Arm]) -> list[Row]:
    code = code_digest(("benchmarks.ablations.bound",))
    rows: list[Row] = []
    for groups in ARMS[:: 3 if size.thin else 1]:
        each = []
        for seed in range(size.bound_seeds):
            depends = {"groups": asdict(groups), "seed": seed, "steps": size.bound_steps, "code": code}
            work = partial(_watched, groups, seed, size.bound_steps)
            each.append(kept(place.cache / "bound" / digest_of(depends), work)["curve"])
        found = np.array(each)
        progress(f"bound: {groups.name}: {found[:, -1].mean(axis=0).round(4).tolist()}")
        for step, bound, mixture, divergence in found.mean(axis=0).tolist():
            values = {"bound": bound, "divergence to pi_bar": mixture, "divergence to pi*": divergence}
            rounded = {name: round(value, 5) for name, value in values.items()}
            rows.append({"part": PART, "arm": groups.name, "seeds": size.bound_seeds, "step": int(step), **rounded})
    return rows


def _watched(groups: Groups, seed: int, steps: int, _: Path) -> dict[str, Any]:
    return {"curve": watched(groups, seed, steps)}


def watched(groups: Groups, seed: int, steps: int) -> list[list[float]]:
    """[[step, bound, KL(pi_bar || pi), KL(pi* || pi)], ...] while a policy learns from the groups, means over users."""
    world, policies = _world(), PolicyClass("generator only", 1, WIDTH)
    chance = torch.Generator().manual_seed(1000 + seed)
    values = policies.start(world, seed).requires_grad_()
    optimizer = torch.optim.Adam([values], lr=RATE)
    points, every = [], max(1, steps // POINTS)
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            with torch.no_grad():
                log_pi_UP = log_policy(policies, world, values)
                at_UMG, reference_UMG = _drawn(world, groups, log_pi_UP, WATCHED_GROUPS, chance)
                points.append([float(step), *_divergences(world, log_pi_UP, at_UMG, reference_UMG)])
        log_pi_UP = log_policy(policies, world, values)
        at_UMG, reference_UMG = _drawn(world, groups, log_pi_UP.detach(), LEARNT_GROUPS, chance)
        loss = -(reference_UMG * _at(log_pi_UP, at_UMG)).sum(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return points


def _drawn(
    world: SmallWorld, groups: Groups, log_pi_UP: Tensor, count: int, chance: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Lists at_UMG of groups, uniform ones without repetition and the policy's own, and their reference policy."""
    users, lists = log_pi_UP.shape
    others = groups.size - groups.own
    at_UMG = torch.rand(users, count, lists, generator=chance).argsort(dim=-1)[..., :others]
    if groups.own:
        drawn = torch.multinomial(log_pi_UP.exp(), count * groups.own, replacement=True, generator=chance)
        at_UMG = torch.cat([at_UMG, drawn.view(users, count, groups.own)], dim=-1)
    same_UMGG = at_UMG.unsqueeze(-1) == at_UMG.unsqueeze(-2)
    first_UMG = ~same_UMGG.tril(diagonal=-1).any(dim=-1)
    reward_UMG = _at(torch.from_numpy(world.reward_UP), at_UMG)
    reference_XG = group_reference(
        reward_UMG.flatten(0, 1), first_UMG.flatten(0, 1), groups.normalisation, groups.temperature
    )
    return at_UMG, reference_XG.double().view(at_UMG.shape)


def _divergences(world: SmallWorld, log_pi_UP: Tensor, at_UMG: Tensor, reference_UMG: Tensor) -> list[float]:
    entropy_UM = -torch.special.xlogy(reference_UMG, reference_UMG).sum(dim=-1)
    loss_UM = -(reference_UMG * _at(log_pi_UP, at_UMG)).sum(dim=-1)
    mean_UP = torch.zeros_like(log_pi_UP).scatter_add_(1, at_UMG.flatten(1), reference_UMG.flatten(1))
    mean_UP /= at_UMG.shape[1]
    optimal_UP = torch.from_numpy(world.optimal_UP)
    return [
        float((loss_UM - entropy_UM).mean()),
        *(float((torch.special.xlogy(p, p) - p * log_pi_UP).sum(dim=1).mean()) for p in (mean_UP, optimal_UP)),
    ]


def _at(values_UP: Tensor, at_UMG: Tensor) -> Tensor:
    return values_UP.gather(1, at_UMG.flatten(1)).view(at_UMG.shape)


@lru_cache(maxsize=1)
def _world() -> SmallWorld:
    return small_world(USERS)


def _claims(rows: list[Row]) -> list[Claim]:
    curves: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("part") == PART:
            curves.setdefault(row["arm"], []).append(row)
    slack = min(row["bound"] - row["divergence to pi_bar"] for found in curves.values() for row in found)
    made = [claim("least of bound less KL(pi_bar || pi), all arms and steps", slack, "at least", 0.0)]
    for arm, found in curves.items():
        least = min(row["bound"] - row["divergence to pi*"] for row in found)
        made.append(claim(f"{arm}: least of bound less KL(pi* || pi) while training", least, "at least", 0.0))
    for arm, found in curves.items():
        pair = np.array([[row["bound"], row["divergence to pi*"]] for row in found])
        name = f"{arm}: correlation of bound and KL(pi* || pi) along training"
        made.append(claim(name, float(np.corrcoef(pair.T)[0, 1]), "at least", LEAST_CORRELATION))
    return made


def _draw(rows: list[Row], file: Path) -> None:
    figure, axes = panels(2)
    for panel, how in zip(axes, ("pi*'s temperature", "standardised"), strict=True):
        arms = dict.fromkeys(row["arm"] for row in rows if row.get("part") == PART and how in row["arm"])
        for number, arm in enumerate(arms):
            found = [row for row in rows if row["arm"] == arm]
            steps, colour = [row["step"] for row in found], f"C{number}"
            panel.plot(steps, [row["divergence to pi*"] for row in found], color=colour, label=arm)
            panel.plot(steps, [row["bound"] for row in found], color=colour, linestyle="--")
        panel.set(yscale="log", xlabel="training step", ylabel="nats: line KL(pi* || pi), dashed the bound")
        panel.legend(frameon=False, fontsize=7)
    save(figure, file)
