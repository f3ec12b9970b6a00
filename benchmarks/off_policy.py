"""The off-policy estimators where the truth is known: `python -m benchmarks.off_policy [--quick] [--json FILE]`.

    simulator     bias, standard deviation, error and interval coverage of each estimator against r*, for targets near
                  to and far from the logging policy, by size of the log (benchmarks/off_policy_world.py)
    ESS           coverage by effective sample size: what goalrank.off_policy.result.MINIMUM_ESS rests on
    Open Bandit   item level, from the Thompson log to the uniform policy, beside the uniform log's own click rate;
                  left out, with the reason, where the files are not there (OPEN_BANDIT, or ../shared/data/open-bandit)

What the night itself compares, with its own rankers and judge, is measured by benchmarks/off_policy_night.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from scipy.stats import norm

from benchmarks.off_policy_world import MODELS, KnownWorld, Replicate
from benchmarks.report import Claim, Row, claim, progress, run
from goalrank.off_policy import (
    MINIMUM_ESS,
    Estimation,
    cascade_dr,
    cluster_intervals,
    dr,
    ips,
    item_position_dr,
    list_dr,
    list_ips,
    list_snips,
    logged_value,
    rips,
    snips,
)
from goalrank.off_policy.intervals import METHODS
from goalrank.open_bandit import OpenBanditLog, read_log, uniform_policy

OPEN_BANDIT = Path(os.environ.get("OPEN_BANDIT", Path(__file__).parents[2] / "shared" / "data" / "open-bandit"))
EXPECTED = {"men": "covers", "women": "inconclusive"}
"""By campaign, what the estimate of the uniform policy should be found to do with the uniform log's own click rate."""
BANDIT_DECIDING = ("snips", "dr")
DECIDING = "item_position_dr"
BINS = (0, 2, 5, 10, 20, 50, 100, 1000)
PAIRS = (("ranker", None), ("retriever", None), ("random", None), ("rival", "ranker"), ("ranker", "random"))
"""Values of a target, and differences of two."""


class Tally:
    """Answers of one estimator in one setting, replicate after replicate."""

    def __init__(self, truth: float) -> None:
        self.truth = truth
        self.values: list[float] = []
        self.worths: list[float] = []
        self.ends: list[list[tuple[float, float]]] = []

    def add(self, found: Estimation, ends: list[tuple[float, float]]) -> None:
        self.values.append(found.value)
        self.worths.append(found.effective_sample_size)
        self.ends.append(ends)

    @property
    def covered(self) -> np.ndarray:
        """Replicates by interval method, bool."""
        low_KM, high_KM = np.moveaxis(np.array(self.ends), -1, 0)
        return (low_KM <= self.truth) & (self.truth <= high_KM)

    @property
    def shown_below(self) -> np.ndarray:
        """Is the whole interval below the truth: what a veto of an equal challenger would be."""
        return np.array(self.ends)[..., 1] < self.truth

    def row(self) -> Row:
        values_K, low_high = np.array(self.values), np.array(self.ends)
        covered_M = self.covered.mean(axis=0)
        return {
            "truth": round(self.truth, 4),
            "bias": round(float(values_K.mean() - self.truth), 4),
            "bias_error": round(float(values_K.std() / np.sqrt(len(values_K))), 4),
            "sd": round(float(values_K.std()), 4),
            "rmse": round(float(np.sqrt(((values_K - self.truth) ** 2).mean())), 4),
            "ess": round(float(np.median(self.worths)), 1),
            **{f"covers_{method}": round(float(share), 3) for method, share in zip(METHODS, covered_M, strict=True)},
            "half_width": round(float(np.median(low_high[:, 0, 1] - low_high[:, 0, 0]) / 2), 4),
            "needed": round(float(norm.ppf(0.975) * values_K.std()), 4),
            "replicates": len(values_K),
        }


def estimations(world: KnownWorld, log: Replicate, target: str) -> dict[str, tuple[float, Estimation]]:
    """By name: the truth and each estimator's answer; the model is "lists" but where the name says otherwise."""
    shown_nL = (world.lists[target][log.rows_n] == log.slate_nL).astype(np.float64)
    rows = (log.reward_nL, shown_nL, log.propensity_nL)
    first = (log.reward_nL[:, 0], shown_nL[:, 0], log.propensity_nL[:, 0])
    truth, first_truth = float(world.truth[target].mean()), float(world.first_truth[target].mean())
    predicted = {
        name: (world.predict(name, log.rows_n, log.slate_nL), world.value[target, name][log.rows_n]) for name in MODELS
    }
    model_nL, value_nL = predicted["lists"]
    model = (model_nL, value_nL.sum(axis=1))
    return {
        "ips, first item": (first_truth, ips(*first)),
        "snips, first item": (first_truth, snips(*first)),
        "dr, first item": (first_truth, dr(*first, model_n=model_nL[:, 0], model_value_n=value_nL[:, 0])),
        "list_ips": (truth, list_ips(*rows)),
        "list_snips": (truth, list_snips(*rows)),
        "list_dr": (truth, list_dr(*rows, *model)),
        "rips": (truth, rips(*rows)),
        "cascade_dr": (truth, cascade_dr(*rows, *model)),
        DECIDING: (truth, item_position_dr(*rows, *model)),
        "item_position_dr, self-normalised": (truth, item_position_dr(*rows, *model, self_normalised=True)),
        **{
            f"item_position_dr, model {name}": (truth, item_position_dr(*rows, found_nL, own_nL.sum(axis=1)))
            for name, (found_nL, own_nL) in predicted.items()
            if name != "lists"
        },
        "model alone": (truth, logged_value(value_nL)),
    }


def simulate(sizes: tuple[int, ...], replicates: int, pool: int, resamples: int) -> dict[tuple[int, str, str], Tally]:
    """Tallies by size of the log, target or pair, and estimator."""
    world = KnownWorld(pool)
    tallies: dict[tuple[int, str, str], Tally] = {}
    for size in sizes:
        random = np.random.default_rng(size)
        for number in range(replicates):
            log = world.replicate(size, random)
            answers = {target: estimations(world, log, target) for target in world.lists}
            wanted: dict[tuple[int, str, str], tuple[float, Estimation]] = {}
            for target, other in PAIRS:
                for name, (truth, found) in answers[target].items():
                    if other is None:
                        wanted[size, target, name] = (truth, found)
                    else:
                        their_truth, theirs = answers[other][name]
                        wanted[size, f"{target} - {other}", name] = (truth - their_truth, found.minus(theirs))
            influence_nE = np.stack([found.influence_R for _, found in wanted.values()], axis=1)
            ends = [
                cluster_intervals(influence_nE, log.users_n, seed=number, method=method, resamples=resamples)
                for method in METHODS
            ]
            for column, (key, (truth, found)) in enumerate(wanted.items()):
                both = [(float(low_E[column]), float(high_E[column])) for low_E, high_E in ends]
                tallies.setdefault(key, Tally(truth)).add(found, both)
            if (number + 1) % 20 == 0:
                progress(f"{size} requests: {number + 1} of {replicates} replicates")
    return tallies


def coverage_by_sample_size(tallies: dict[tuple[int, str, str], Tally]) -> list[Row]:
    """Of the deciding estimator, over all sizes, targets and pairs: coverage in bins of the effective sample size."""
    deciding = [tally for (_, _, name), tally in tallies.items() if name == DECIDING]
    worths_K = np.concatenate([tally.worths for tally in deciding])
    covered_KM = np.concatenate([tally.covered for tally in deciding])
    below_KM = np.concatenate([tally.shown_below for tally in deciding])
    rows = []
    for low, high in zip(BINS, (*BINS[1:], np.inf), strict=True):
        inside_K = (worths_K >= low) & (worths_K < high)
        if inside_K.any():
            rows.append(
                {
                    "part": "ESS",
                    "target": f"{low} to {high:g}",
                    "replicates": int(inside_K.sum()),
                    **{
                        f"covers_{method}": round(float(covered_KM[inside_K, column].mean()), 3)
                        for column, method in enumerate(METHODS)
                    },
                    "shown_below": round(float(below_KM[inside_K, 0].mean()), 3),
                }
            )
    return rows


def open_bandit(folder: Path) -> tuple[list[Row], list[Claim]]:
    """The uniform policy's click rate from each campaign's Thompson log, beside that of the uniform log itself."""
    rows: list[Row] = []
    claims: list[Claim] = []
    for campaign in EXPECTED:
        logged = read_log(folder, "bts", campaign)
        own_rate = float(read_log(folder, "random", campaign).click_n.mean())
        verdicts = {}
        for found, (low, high) in zip(*_bandit_intervals(logged), strict=True):
            conclusive = found.effective_sample_size >= MINIMUM_ESS
            inside = low <= own_rate <= high
            verdicts[found.estimator] = ("covers" if inside else "misses") if conclusive else "inconclusive"
            rows.append(
                {
                    "part": "Open Bandit",
                    "target": f"uniform, {campaign}",
                    "estimator": found.estimator,
                    "requests": len(logged),
                    "truth": own_rate,
                    "value": round(found.value, 5),
                    "low": round(low, 5),
                    "high": round(high, 5),
                    "ess": round(found.effective_sample_size, 1),
                    "verdict": verdicts[found.estimator],
                }
            )
        wanted = EXPECTED[campaign]
        right = sum(verdicts[name] == wanted for name in BANDIT_DECIDING)
        claims.append(claim(f"Open Bandit, {campaign}: {wanted}, of snips and dr", right, "at least", 2))
    return rows, claims


def _bandit_intervals(logged: OpenBanditLog) -> tuple[list[Estimation], list[tuple[float, float]]]:
    found = uniform_policy(logged)
    low_E, high_E = cluster_intervals(np.stack([each.influence_R for each in found], axis=1), None, seed=0)
    return found, [(float(low), float(high)) for low, high in zip(low_E, high_E, strict=True)]


def rows_of(quick: bool) -> tuple[list[Row], list[Claim]]:
    """All three parts."""
    sizes, replicates, pool, resamples = ((300, 1000), 30, 3000, 200) if quick else ((300, 1000, 3000), 300, 12000, 600)
    tallies = simulate(sizes, replicates, pool, resamples)
    rows: list[Row] = [
        {"part": "simulator", "requests": size, "target": target, "estimator": name, **tally.row()}
        for (size, target, name), tally in tallies.items()
    ]
    by_worth = coverage_by_sample_size(tallies)
    enough = [row for row in by_worth if float(row["target"].split()[0]) >= MINIMUM_ESS]
    counts = np.array([row["replicates"] for row in enough], dtype=np.float64)
    covered = float(counts @ [row[f"covers_{METHODS[0]}"] for row in enough] / counts.sum()) if len(enough) else np.nan
    below = float(counts @ [row["shown_below"] for row in enough] / counts.sum()) if len(enough) else np.nan
    decided = [row for row in rows if row["estimator"] == DECIDING and row["ess"] >= MINIMUM_ESS]
    narrowest = min((row["half_width"] / row["needed"] for row in decided), default=float("nan"))
    claims = [
        claim(f"coverage of the 95% interval where the ESS is at least {MINIMUM_ESS:g}", covered, "at least", 0.93),
        claim(f"equal policies shown to be worse where the ESS is at least {MINIMUM_ESS:g}", below, "at most", 0.04),
        claim(
            f"least width of the interval, of what the scatter asks, ESS {MINIMUM_ESS:g}", narrowest, "at least", 0.8
        ),
    ]
    if OPEN_BANDIT.is_dir():
        bandit_rows, bandit_claims = open_bandit(OPEN_BANDIT)
    else:
        progress(f"Open Bandit left out: {OPEN_BANDIT} is not there; set OPEN_BANDIT to its folder")
        bandit_rows, bandit_claims = [], []
    return [*rows, *by_worth, *bandit_rows], [*claims, *bandit_claims]


if __name__ == "__main__":
    run("off_policy", rows_of, __doc__.splitlines()[0])
