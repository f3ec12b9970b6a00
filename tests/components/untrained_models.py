"""A night's inputs to register_model and what follows, in seconds: models of random weights on synthetic requests."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.evaluate_ranker import scoring
from goalrank import presets
from goalrank.checkpoint import save_model
from goalrank.dataset import TrainingSet
from goalrank.encoders import ModelSizes
from goalrank.objective import ObjectiveConfig
from goalrank.ranker import Ranker
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH
from goalrank.verdict import FLOOR, PROMOTION_CONFIDENCE, SUPERIORITY, Difference, paired_bootstrap
from tests.synthetic import make_training_set

torch.set_num_threads(1)  # matrices this small: a second thread costs more than it brings

SIZES = ModelSizes.from_preset(replace(presets.preset("tiny"), item_buckets=64))


def random_ranker(seed: int) -> Ranker:
    """An untrained ranker, the same for the same seed."""
    torch.manual_seed(seed)
    return Ranker(SIZES).eval()


def random_reward(seed: int) -> RewardModel:
    """An untrained reward model, the same for the same seed."""
    torch.manual_seed(seed)
    return RewardModel(SIZES).eval()


class NightInputs:
    """Folder with training_set/, snapshot, groups/, reward_model/, judge_model/, and a ranker for each name added."""

    def __init__(
        self, folder: Path, requests: int = 400, candidates: int = 12, made: bool = False, **options: Any
    ) -> None:
        """Make the inputs; with `made` the training set lies there already."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not made:
            make_training_set(folder / "training_set", requests=requests, candidates=candidates, **options)
        self.data = TrainingSet.load(folder / "training_set")
        self.date, self.snapshot_id = self.data.date, self.data.snapshot_id
        manifest = {"format": 1, "date": self.date, "snapshot_id": self.snapshot_id}
        (folder / "snapshot").write_text(json.dumps({"root": str(folder), "manifest": manifest}))
        (folder / "groups").mkdir(exist_ok=True)
        statistics = {"helpers": ["mmr", "random"], "statistics": {"reward_std": 0.25, "duplicates": 0.1}}
        (folder / "groups" / "groups.json").write_text(json.dumps(statistics))
        self.judge = random_reward(2)
        self.save("reward_model", random_reward(1), "reward")
        self.save("judge_model", self.judge, "reward")

    def save(self, name: str, model: torch.nn.Module, kind: str) -> str:
        """Write a model directory and return its path."""
        days = self.data.train_days
        save_model(
            self.folder / name,
            model,
            kind,
            config=SIZES.to_dict(),
            created_by={
                "preset": "tiny",
                "seed": 0,
                "snapshot_id": self.snapshot_id,
                "trained_until": days[-1],
                "data_window": [days[0], days[-1]],
                "objective": ObjectiveConfig().to_dict(),
            },
            metrics={"held_out_auc": 0.6, "curves": {"loss": [[step, 1 / (1 + step)] for step in range(5)]}},
        )
        return str(self.folder / name)

    def registration_arguments(self, ranker: str, tracking_uri: str, run: str = "run") -> dict[str, Any]:
        """Arguments of register_model's run for the ranker saved under that name."""
        return {
            **{name: str(self.folder / name) for name in ("reward_model", "judge_model", "training_set")},
            **{name: str(self.folder / name) for name in ("groups", "snapshot")},
            "ranker": str(self.folder / ranker),
            "tracking_uri": tracking_uri,
            "registration": str(self.folder / f"registration-{ranker}"),
            "preset": "tiny",
            "seed": 0,
            "commit": "c0ffee",
            "run_uri": str(self.folder / run),
            "date": self.date,
        }

    def judged(self, ranker: Ranker) -> dict[str, np.ndarray]:
        """Judged reward of each evaluation request under the ranker ("challenger") and the retriever's order."""
        indices_R = self.data.evaluation_indices()
        answers = scoring.answer_all(self.data, indices_R, {"challenger": ranker}, self.judge, 0, lambda *_: None)
        return {name: answer.rewards_R for name, answer in answers.items()}

    def graded_rankers(self) -> dict[str, Ranker]:
        """Rankers shown to be below the floor, above it ("good"), and "better" than the good one.

        Each is trained against (or towards the opposite of) the judge itself, which no night may do: the tests need
        rankers that differ for certain, not rankers that are good.
        """
        below = self._taught(-1.0, lambda judged: self._over(judged, judged["retriever"]).high < FLOOR)
        good = self._taught(+1.0, lambda judged: self._over(judged, judged["retriever"]).low > FLOOR)
        good_R = self.judged(good)["challenger"]
        better = self._taught(+1.0, lambda judged: self._over(judged, good_R).low > SUPERIORITY, copy.deepcopy(good))
        return {"below_floor": below, "good": good, "better": better}

    def _over(self, judged: dict[str, np.ndarray], other_R: np.ndarray) -> Difference:
        users_R = self.data.examples.column("user_id").to_numpy()[self.data.evaluation_indices()]
        return paired_bootstrap(judged["challenger"] - other_R, users_R, confidence=PROMOTION_CONFIDENCE)

    def _taught(
        self, sign: float, enough: Callable[[dict[str, np.ndarray]], bool], ranker: Ranker | None = None
    ) -> Ranker:
        """Group-relative steps on the judge's reward, times `sign`, until that is enough."""
        ranker = ranker or random_ranker(0)
        optimizer = torch.optim.Adam(ranker.parameters(), lr=3e-3)
        chance = torch.Generator().manual_seed(0)
        for step in range(100):
            if step % 4 == 0 and enough(self.judged(ranker)):
                return ranker
            batch = self.data.batch(
                self.data.train_indices()[(np.arange(64) + 64 * step) % len(self.data.train_indices())]
            )
            encoded = ranker.encode(batch)
            with torch.no_grad():
                lists_BGL = ranker.sample(encoded, 8, LIST_LENGTH, generator=chance)
                rewards_BG = sign * self.judge.reward(self.judge.encode(batch), lists_BGL)
                centred_BG = rewards_BG - rewards_BG.mean(dim=1, keepdim=True)
                weight_BG = (centred_BG / (rewards_BG.std(dim=1, keepdim=True) + 1e-9)).softmax(dim=1)
            loss = -(weight_BG * ranker.log_prob(encoded, lists_BGL)[0].log_softmax(dim=1)).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        raise RuntimeError("100 steps were not enough to teach the ranker what the judge likes")
