"""The night's own off-policy comparison, on logs drawn anew.

    python -m benchmarks.off_policy_night WORKSPACE [--quick] [--json FILE]

Takes the newest two nights of a workspace with a simulated world: the newest night's evaluation requests, ranker
(challenger) and judge, and the ranker of the night before (champion). Each replicate draws users with replacement,
shows every request a new list and samples what users do; then the real comparison (goalrank.off_policy.comparison) is
made. The truth is r* of the rankers' greedy lists. Ways of logging:

    retriever           as the world logs: Plackett-Luce over the retriever's scores, a uniform share
    champion 2%, 15%    as the ranking service logs: the champion's greedy list, a sampled one for that share of them
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from benchmarks.off_policy import Tally
from benchmarks.report import Claim, Row, claim, progress, run
from goalrank.checkpoint import load_model
from goalrank.dataset import TrainingSet
from goalrank.encoders import Encoded
from goalrank.off_policy import MINIMUM_ESS, Estimation, cluster_intervals, item_position_dr, logged_value
from goalrank.off_policy.intervals import METHODS
from goalrank.off_policy.rankers import prefix_rewards
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH, RewardWeights
from goalrank.simulator import load_world
from goalrank.simulator.feedback import CandidateFacts, sample_feedback
from goalrank.simulator.traffic import plackett_luce_propensity, sample_lists
from goalrank.simulator.truth import true_reward
from goalrank.simulator.world import FIRST_ITEM_ID, FIRST_USER_ID, world_of

RETRIEVER = "retriever"
EXPLORATION = {"champion 2%": 0.02, "champion 15%": 0.15}
LOGGING = {RETRIEVER: (1.0, 0.3), "champion 2%": (1.0,), "champion 15%": (1.0,)}
"""By way of logging, shares of the day's users in a replicate: how the interval fares on fewer requests."""
BATCH = 512


@dataclass(frozen=True)
class Known:
    """One policy's lists, what they truly earn and what the judge thinks; candidates' rows."""

    lists_RL: np.ndarray
    truth_R: np.ndarray
    judged_R: np.ndarray


class Night:
    """The evaluation requests of a night, encoded once; only those with as many candidates as the world offers."""

    def __init__(self, workspace: Path) -> None:
        newest = sorted(workspace.glob("nights/*/*/artifacts/*/train-ranker/ranker"))[-2:]
        if len(newest) < 2:
            raise FileNotFoundError(f"{workspace} holds {len(newest)} nights with a ranker, expected at least 2")
        artifacts = newest[-1].parent.parent
        data = TrainingSet.load(artifacts / "materialize-features" / "training_set")
        world = load_world(str(workspace / "logs"))
        if world is None:
            raise FileNotFoundError(f"{workspace / 'logs'} holds no simulated world, so no truth to compare with")
        self.world = world
        midnight = np.datetime64(data.date, "us").astype(np.int64)
        at_E = data.examples.column("event_time").cast(pa.int64()).to_numpy()
        indices = data.evaluation_indices()
        here = (data.candidates.lengths[indices] == world.candidates) & (at_E[indices] >= midnight)
        self.indices = indices[here]
        requests = data.examples.take(pa.array(self.indices))
        self.candidate_RN = np.array(requests.column("candidates").to_pylist())
        self.score_RN = np.array(requests.column("candidate_scores").to_pylist())
        users_R = requests.column("user_id").to_numpy()
        day = (np.datetime64(data.date) - np.datetime64(world.first_day)).astype(int)
        self.facts = CandidateFacts.of(
            world_of(world, int(day)), users_R - FIRST_USER_ID, self.candidate_RN - FIRST_ITEM_ID
        )
        _, index_R = np.unique(users_R, return_inverse=True)
        self.requests_of = np.split(np.argsort(index_R, kind="stable"), np.cumsum(np.bincount(index_R))[:-1])
        judge, champion, challenger = load_model(artifacts / "train-reward" / "judge_model"), *map(load_model, newest)
        assert isinstance(judge, RewardModel) and isinstance(champion, Ranker) and isinstance(challenger, Ranker)
        self.judge, self.champion = judge, champion
        self.judged = self._encoded(data, judge)
        self.championed = self._encoded(data, champion)
        self.known = {
            "challenger": self._known(challenger, self._encoded(data, challenger), requests),
            "champion": self._known(champion, self.championed, requests),
        }

    def _encoded(self, data: TrainingSet, model: Ranker | RewardModel) -> Encoded:
        with torch.inference_mode():
            return model.encode(data.batch(self.indices))

    def _known(self, ranker: Ranker, encoded: Encoded, requests: pa.Table) -> Known:
        with torch.inference_mode():
            lists_RL = ranker.greedy(encoded, LIST_LENGTH)
            judged_R = prefix_rewards(self.judge, self.judged, lists_RL).sum(dim=1)
        ids_RL = np.take_along_axis(self.candidate_RN, lists_RL.numpy(), axis=1)
        return Known(lists_RL.numpy(), true_reward(self.world, requests, ids_RL), judged_R.numpy())

    def replicate(self, share: float, logging: str, random: np.random.Generator) -> dict[str, Estimation]:
        """Every estimation on one new log; "users" of the log go into `users_n`."""
        drawn = random.integers(0, len(self.requests_of), max(2, round(share * len(self.requests_of))))
        rows_n = np.concatenate([self.requests_of[user] for user in drawn])
        self.users_n = np.repeat(np.arange(len(drawn)), [len(self.requests_of[user]) for user in drawn])
        if logging == RETRIEVER:
            slate_nL, propensity_nL = self._retriever(rows_n, random)
        else:
            slate_nL, propensity_nL = self._champion(rows_n, EXPLORATION[logging], random)
        weights, feedback = RewardWeights(), sample_feedback(self.facts[rows_n], slate_nL, random)
        reward_nL = (
            weights.click * feedback.click
            + weights.like * feedback.like
            + weights.watch_minute / 60 * feedback.watch_seconds
        )
        model_nL = self._by_batches(
            rows_n, slate_nL, lambda rows, slate_BL: prefix_rewards(self.judge, self.judged.rows(rows), slate_BL)
        )
        found = {"logging policy": logged_value(reward_nL)}
        for name, known in self.known.items():
            shown_nL = (known.lists_RL[rows_n] == slate_nL).astype(np.float64)
            found[name] = item_position_dr(reward_nL, shown_nL, propensity_nL, model_nL, known.judged_R[rows_n])
        found["challenger - champion"] = found["challenger"].minus(found["champion"])
        if logging == RETRIEVER:
            found["challenger - logging policy"] = found["challenger"].minus(found["logging policy"])
        return found

    def _retriever(self, rows_n: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        uniform_n = random.random(len(rows_n)) < self.world.uniform_share
        logits_nN = np.where(uniform_n[:, None], 0.0, self.score_RN[rows_n] / self.world.temperature)
        slate_nL = sample_lists(logits_nN, LIST_LENGTH, random)
        return slate_nL, plackett_luce_propensity(logits_nN, slate_nL)

    def _champion(
        self, rows_n: np.ndarray, exploration: float, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """As components/serve_model/exploration.py: the propensity under the mixture, whichever list was drawn."""
        greedy_nL = self.known["champion"].lists_RL[rows_n]
        explored = np.flatnonzero(random.random(len(rows_n)) < exploration)
        slate_nL = greedy_nL.copy()
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        with torch.inference_mode():
            asked = self.championed.rows(torch.from_numpy(rows_n[explored]))
            slate_nL[explored] = self.champion.sample(asked, 1, LIST_LENGTH, 1.0, generator)[:, 0].numpy()
        steps_nL = np.exp(
            self._by_batches(
                rows_n,
                slate_nL,
                lambda rows, slate_BL: self.champion.log_prob(self.championed.rows(rows), slate_BL[:, None])[1][:, 0],
            )
        )
        follows_nL = np.logical_and.accumulate(slate_nL == greedy_nL, axis=1)
        first_n1 = np.ones((len(rows_n), 1))
        sampled_nL = np.cumprod(steps_nL, axis=1)
        mixed_nL = exploration * sampled_nL + (1 - exploration) * follows_nL
        before_nL = np.concatenate([first_n1, mixed_nL[:, :-1]], axis=1)
        return slate_nL, np.clip(mixed_nL / before_nL, 1e-300, 1.0)

    def _by_batches(self, rows_n, slate_nL, answer) -> np.ndarray:  # type: ignore[no-untyped-def]
        parts: list[Tensor] = []
        with torch.inference_mode():
            for first in range(0, len(rows_n), BATCH):
                rows = torch.from_numpy(rows_n[first : first + BATCH])
                parts.append(answer(rows, torch.from_numpy(slate_nL[first : first + BATCH])).double())
        return torch.cat(parts).numpy()

    def truth(self, name: str, logged: float) -> float:
        """Of a policy or a pair; the logging policy's own is the mean over replicates."""
        values = {who: float(known.truth_R.mean()) for who, known in self.known.items()} | {"logging policy": logged}
        ours, _, theirs = name.partition(" - ")
        return values[ours] - (values[theirs] if theirs else 0.0)


def measure(night: Night, replicates: int) -> tuple[list[Row], list[Claim]]:
    """Rows by way of logging and share of users; claims about what passes the minimum effective sample size."""
    rows: list[Row] = []
    worths, covered, below = [], [], []
    for logging, shares in LOGGING.items():
        for share in shares:
            random = np.random.default_rng(round(share * 100))
            kept: dict[str, list[tuple[Estimation, list[tuple[float, float]]]]] = {}
            for number in range(replicates):
                found = night.replicate(share, logging, random)
                influence_nE = np.stack([each.influence_R for each in found.values()], axis=1)
                ends = [
                    cluster_intervals(influence_nE, night.users_n, seed=number, method=method, resamples=400)
                    for method in METHODS
                ]
                for column, (name, each) in enumerate(found.items()):
                    both = [(float(low_E[column]), float(high_E[column])) for low_E, high_E in ends]
                    kept.setdefault(name, []).append((each, both))
                if (number + 1) % 10 == 0:
                    progress(f"{logging}, {share:g} of the users: {number + 1} of {replicates}")
            logged = float(np.mean([each.value for each, _ in kept["logging policy"]]))
            for name, answers in kept.items():
                tally = Tally(night.truth(name, logged))
                for each, both in answers:
                    tally.add(each, both)
                low, high = np.quantile(tally.worths, [0.05, 0.95])
                rows.append(
                    {
                        "logging": logging,
                        "users": share,
                        "target": name,
                        **tally.row(),
                        "ess_5%": round(float(low), 1),
                        "ess_95%": round(float(high), 1),
                        "shown_below": round(float(tally.shown_below[:, 0].mean()), 3),
                    }
                )
                if " - " in name:
                    worths += tally.worths
                    covered += tally.covered[:, 0].tolist()
                    below += tally.shown_below[:, 0].tolist()
    enough = np.array(worths) >= MINIMUM_ESS
    night_row = next(row for row in rows if row["target"] == "challenger - champion")
    least = f"ESS at least {MINIMUM_ESS:g}"
    claims = [
        claim(f"coverage of differences, {least}", _share(covered, enough), "at least", 0.93),
        claim(f"equal ones shown to be worse, {least}", _share(below, enough), "at most", 0.04),
        claim("5% quantile of the night's ESS, challenger - champion", night_row["ess_5%"], "at least", MINIMUM_ESS),
    ]
    return rows, claims


def _share(values: list[bool], chosen: np.ndarray) -> float:
    return float(np.array(values)[chosen].mean()) if chosen.any() else float("nan")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    given, others = parser.parse_known_args()
    torch.set_num_threads(1)
    run("off_policy_night", lambda quick: measure(Night(given.workspace), 10 if quick else 150), argv=others)
