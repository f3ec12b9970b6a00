"""Each method of the field learns an effect that needs what is its own, beside one that lacks it and does not.

Chances of a click are 0.9, 0.45 or 0.02 a place (tests/planted.py), so a method that sees the effect earns nearly twice
what a blind one does; the bounds stand between the two.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from goalrank import baselines
from goalrank.baselines import Lesson, Trained
from goalrank.encoders import Encoded, ModelSizes, RequestEncoder
from goalrank.presets import preset
from goalrank.reward import RewardModel, gather_items
from goalrank.schema import LIST_LENGTH
from tests import planted
from tests.planted import CANDIDATES, REQUESTS, Pays, PlantedRequests

torch.set_num_threads(1)

PRESET = replace(preset("tiny"), item_buckets=64)
SIZES = ModelSizes.from_preset(PRESET)
LEARNING, EVENING = np.arange(1600), np.arange(1600, REQUESTS)
FEW = 4
"""Places looked at where a request has four items that pay best."""


def learn(name: str, pays: Pays, steps: int, seed: int = 0, **how: bool) -> tuple[PlantedRequests, Trained]:
    made = PlantedRequests.draw(pays, seed, **how)
    torch.manual_seed(seed)
    lesson = Lesson(made, LEARNING, RequestEncoder(SIZES), PRESET, seed, evaluator=RewardModel(SIZES), steps=steps)  # type: ignore[arg-type]
    return made, baselines.train(name, lesson)


def lists_of(made: PlantedRequests, trained: Trained, length: int) -> Tensor:
    """A method's lists of the evening; where it proposes several, the generator's own best."""
    batch, policy = made.batch(EVENING), trained.policy
    with torch.no_grad():
        return policy.propose(batch, length)[:, 0] if hasattr(policy, "propose") else policy.rank(batch, length)


def earned(name: str, pays: Pays, steps: int, length: int = FEW, seed: int = 0, **how: bool) -> float:
    """Mean chance of a click at a place of the lists of the trained method."""
    made, trained = learn(name, pays, steps, seed, **how)
    return made.earned(pays, EVENING, lists_of(made, trained, length))


@pytest.mark.parametrize("name", ["dlcm", "prm", "mir"])
def test_list_wise_scorers_see_what_stands_beside_a_candidate(name) -> None:
    assert earned(name, planted.by_company, 500) > 0.62  # knowing all: 0.675; least of three seeds: 0.644


def test_a_pointwise_scorer_does_not() -> None:
    assert earned("dnn", planted.by_company, 500) < 0.55  # A or B, always: 0.45


def test_a_pointwise_scorer_learns_what_item_and_user_say_by_themselves() -> None:
    """Lists drawn at random earn 0.24."""
    assert earned("dnn", planted.by_match, 100, planted.HISTORY, many=True) > 0.8


@pytest.mark.parametrize(("name", "low", "high"), [("prm", 0.8, 1.0), ("mir", 0.0, 0.7)])
def test_prm_sees_places_in_the_initial_list_which_a_model_of_sets_cannot(name, low, high) -> None:
    assert low < earned(name, planted.by_initial_place, 200, skewed=True) < high


@pytest.mark.parametrize(("name", "low", "high"), [("dlcm", 0.7, 1.0), ("mir", 0.0, 0.5)])
def test_dlcm_reads_the_initial_ranking_item_after_item(name, low, high) -> None:
    assert low < earned(name, planted.by_initial_neighbour, 250, skewed=True) < high


@pytest.mark.parametrize(("name", "low", "high"), [("mir", 0.5, 1.0), ("prm", 0.0, 0.35)])
def test_mir_holds_every_candidate_against_every_item_of_the_history(name, low, high, monkeypatch) -> None:
    """The shared encoder is made blind to the history, so that only MIR's own attention to it is left; without its
    affinities MIR earns what PRM does."""
    whole = RequestEncoder.forward

    def blind(self, batch, history=None) -> Encoded:
        nothing = torch.zeros_like(batch.history_items_BH), torch.zeros_like(batch.user_topics_BT)
        return whole(self, replace(batch, history_items_BH=nothing[0], user_topics_BT=nothing[1]))

    monkeypatch.setattr(RequestEncoder, "forward", blind)
    assert low < earned(name, planted.by_match, 500, planted.HISTORY, many=True) < high


@pytest.mark.parametrize(("name", "low", "high"), [("nar4rec", 0.75, 1.0), ("prm", 0.0, 0.6)])
def test_nar4rec_matches_candidates_with_places(name, low, high) -> None:
    """A on the first places, B on the last: items worth the same to whoever gives each one score."""
    assert low < earned(name, planted.by_place, 200, LIST_LENGTH) < high


def likes_a(model: RewardModel, encoded: Encoded, lists_BGL: Tensor) -> Tensor:
    """A reward model that likes A, early in the list above all."""
    a_BGL = gather_items(encoded.topics_BNT[..., planted.A : planted.A + 1], lists_BGL).squeeze(-1)
    worth_L = 1.0 / torch.arange(1, lists_BGL.shape[2] + 1)
    return (a_BGL * worth_L).sum(dim=-1).expand(model.sizes.reward_heads, -1, -1)


@pytest.mark.parametrize("name", ["dlcm", "prm", "mir", "pier", "nar4rec"])
def test_the_reward_models_signal_reaches_the_variants_that_are_to_have_it(name, monkeypatch) -> None:
    """The log speaks for B, a little; the reward model for A."""
    monkeypatch.setattr(RewardModel, "score_lists", likes_a)
    share = {}
    for variant in (name, f"{name}+r"):
        made, trained = learn(variant, planted.by_little, 100)
        kinds_BL = made.kind_EN[EVENING].gather(1, lists_of(made, trained, FEW))
        share[variant] = float((kinds_BL == planted.A).float().mean())
    assert share[name] < 0.5 and share[f"{name}+r"] > 0.8


def test_both_of_piers_parts_learn_from_the_reward_model(monkeypatch) -> None:
    """The lists it draws by its scorer alone would be of A; whether its list model knows, random lists show."""
    monkeypatch.setattr(RewardModel, "score_lists", likes_a)
    agreement = {}
    for variant in ("pier", "pier+r"):
        made, trained = learn(variant, planted.by_little, 100)
        batch, permuter = made.batch(EVENING), trained.policy.permuter
        chance = torch.Generator().manual_seed(0)
        lists_BGL = torch.rand((len(batch), 16, CANDIDATES), generator=chance).argsort(dim=2)[..., :FEW]
        with torch.no_grad():
            encoded = permuter.encoder(batch)
            wanted_BG = likes_a(RewardModel(SIZES), encoded, lists_BGL)[0]
            found_BG = permuter.reward(encoded, lists_BGL)
        agreement[variant] = np.corrcoef(found_BG.flatten(), wanted_BG.flatten())[0, 1]
    assert agreement["pier"] < 0.0 and agreement["pier+r"] > 0.7
