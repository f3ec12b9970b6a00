"""benchmarks/capacity.py in small: its world, its policies against plain enumeration, and the form of its claims."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from benchmarks import capacity
from benchmarks.capacity_figure import draw
from benchmarks.capacity_policies import (
    ALPHA,
    HOPELESS,
    MOST_EAGER,
    Fit,
    PolicyClass,
    beyond,
    divergences,
    fit,
    log_policy,
)
from benchmarks.capacity_world import CANDIDATES, LENGTH, TEMPERATURE, SmallWorld, small_world
from benchmarks.report import run

USERS = 3
TINY = capacity.Size(USERS, (1, 24), (1, 2), 2, 25, (2,), 1, 10)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The benchmark sets it for its own processes."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world() -> SmallWorld:
    return small_world(USERS)


def generator_by_hand(world: SmallWorld, values: np.ndarray, width: int) -> np.ndarray:
    """pi_UP of one network, a list and a place at a time."""
    shapes = PolicyClass("generator only", 1, width).shapes(world)
    cuts = np.cumsum([np.prod(shape) for shape in shapes])
    features, placed, bias, out, out_bias = (
        part.reshape(shape) for part, shape in zip(np.split(values, cuts[:-1]), shapes, strict=True)
    )
    pi = np.ones((USERS, len(world.lists_PL)))
    for u, (row, items) in product(range(USERS), enumerate(world.lists_PL.tolist())):
        for place in range(LENGTH):
            before = sum((placed[at * CANDIDATES + items[at]] for at in range(place)), np.zeros(width))
            logits = (np.tanh(world.features_UF[u] @ features + before + bias[0]) @ out + out_bias)[0]
            left = [item for item in range(CANDIDATES) if item not in items[:place]]
            pi[u, row] *= softmax(logits[left])[left.index(items[place])]
    return pi


def test_the_world_is_whole_and_pi_star_exact(world: SmallWorld) -> None:
    assert len({tuple(row) for row in world.lists_PL.tolist()}) == len(world.lists_PL) == 6 * 5 * 4
    assert all(len(set(row)) == LENGTH for row in world.lists_PL.tolist())
    np.testing.assert_allclose(world.optimal_UP, softmax(world.reward_UP / TEMPERATURE, axis=1), rtol=1e-10)
    np.testing.assert_allclose(world.entropies, entropy(world.optimal_UP, axis=1))
    assert capacity.small_world(24).list_gain > 0.05  # the list matters, as in the simulator


def test_a_generator_is_a_product_of_steps(world: SmallWorld) -> None:
    policies = PolicyClass("generator only", 1, 3)
    values = policies.start(world, seed=0)
    assert len(values) == policies.parameters(world)
    values = values + 0.1 * torch.randn(len(values), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pi = log_policy(policies, world, values).exp().numpy()
    np.testing.assert_allclose(pi, generator_by_hand(world, values.numpy(), 3), rtol=1e-10)
    np.testing.assert_allclose(pi.sum(axis=1), 1.0)


def two_generators(world: SmallWorld, kind: str) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """All values of a class of two, pi_KUP of its generators by hand, and what is left of the values."""
    policies = PolicyClass(kind, 2, ALPHA)
    values = policies.start(world, seed=3)
    values = values + torch.randn(len(values), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    parts, begin = [], 0
    for shape in policies.shapes(world):
        size = 2 * int(np.prod(shape))
        parts.append(values[begin : begin + size].numpy().reshape(2, -1))
        begin += size
    generators = [generator_by_hand(world, np.concatenate([part[j] for part in parts]), ALPHA) for j in range(2)]
    return values, np.stack(generators), values[begin:].numpy()


def test_a_mixture_weighs_by_user(world: SmallWorld) -> None:
    values, generators_KUP, rest = two_generators(world, "mixture")
    weights_KU = softmax(rest.reshape(2, USERS), axis=0)
    found = log_policy(PolicyClass("mixture", 2, ALPHA), world, values).exp().numpy()
    np.testing.assert_allclose(found, (weights_KU[:, :, None] * generators_KUP).sum(axis=0), rtol=1e-10)


def test_picking_is_the_sum_over_all_proposals(world: SmallWorld) -> None:
    """The integral of a race against what it stands for: every pair of proposals, and which of them is picked."""
    values, generators_KUP, rest = two_generators(world, "picked")
    eagerness = MOST_EAGER / (1.0 + np.exp(-rest[0]))
    expected = np.zeros((USERS, len(world.lists_PL)))
    score_UP = eagerness * (world.reward_UP - world.reward_UP.max(axis=1, keepdims=True)) / TEMPERATURE
    score_UP = score_UP.clip(-HOPELESS)
    for u, first, second in product(range(USERS), range(120), range(120)):
        both = generators_KUP[0, u, first] * generators_KUP[1, u, second]
        share = softmax(score_UP[u, [first, second]])
        expected[u, first] += both * share[0]
        expected[u, second] += both * share[1]
    found = log_policy(PolicyClass("picked", 2, ALPHA), world, values).exp().numpy()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def test_fitting_comes_nearer_and_measures_both_directions(world: SmallWorld) -> None:
    for kind, generators in (("generator only", 1), ("mixture", 2), ("picked", 2)):
        policies = PolicyClass(kind, generators, ALPHA)
        start = log_policy(policies, world, policies.start(world, 0)).exp().numpy()
        before = entropy(world.optimal_UP, start, axis=1).mean()
        found = fit(policies, world, seed=0, steps=15)
        assert 0.0 < found.error < 0.7 * before
        assert found.reverse > 0.0 and found.steps <= 15
        error, reverse = divergences(world, torch.from_numpy(start).log())
        assert error.item() == pytest.approx(before)
        assert reverse.item() == pytest.approx(entropy(start, world.optimal_UP, axis=1).mean())


def test_rows_claims_and_figure(tmp_path: Path) -> None:
    rows = capacity.rows_for(TINY, tmp_path / "cache")
    claims = capacity.claims_of(rows)
    document = run("capacity", lambda quick: (rows, claims), argv=["--json", str(tmp_path / "c.json")], figure=draw)
    assert document["complete"] and (tmp_path / "c.png").stat().st_size > 10_000
    by_kind = {
        kind: [row for row in rows if row["policies"] == kind] for kind in ("generator only", "mixture", "picked")
    }
    assert [row["width"] for row in by_kind["generator only"]] == [1, 4, 6, 24]
    assert {beyond(row["k"]) for row in by_kind["mixture"]} <= {row["width"] for row in by_kind["generator only"]}
    assert all(set(made) == {"name", "value", "target", "holds"} for made in claims)
    assert len(claims) == len(TINY.counts) + len(TINY.picked_counts) + 2
    alone = {row["width"]: row for row in by_kind["generator only"]}
    assert alone[24]["error"] < alone[6]["error"] < alone[1]["error"] < rows[0]["error"]
    first = by_kind["mixture"][0]
    assert first["parameters"] == PolicyClass("generator only", 1, ALPHA).parameters(small_world(USERS))
    assert claims[0]["value"] == alone[beyond(1)]["error"] / first["error"]
    for row in rows[1:]:
        assert row["error"] <= row["second"] and row["error"] <= row["median"]


def test_what_does_not_hold_is_said() -> None:
    row = {"policies": "generator only", "k": 1, "median": 0.3}
    alone = [{**row, "width": width, "error": error} for width, error in ((1, 0.2), (4, 0.4))]
    mixture = {"policies": "mixture", "k": 1, "width": 2, "error": 0.3}
    assert [made["holds"] for made in capacity.claims_of([*alone, mixture])] == [False, False, False]


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    tasks = [(USERS, PolicyClass("mixture", 2, ALPHA), seed, 5) for seed in range(3)]
    one = capacity._fit_all(tasks, tmp_path / "one", processes=1)
    assert capacity._fit_all(tasks, tmp_path / "two", processes=2) == one


def test_a_run_goes_on_from_the_starts_that_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [(USERS, PolicyClass("generator only", 1, width), 0, 5) for width in (1, 2)]
    first = capacity._fit_all(tasks[:1], tmp_path, processes=1)
    done = []

    def fit_and_tell(*given: object) -> Fit:
        done.append(given)
        return fit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(capacity, "fit", fit_and_tell)
    again = capacity._fit_all(tasks, tmp_path, processes=1)
    assert again[0] == first[0] and len(done) == 1
    capacity._fit_all([(USERS, tasks[0][1], 0, 6)], tmp_path, processes=1)  # other steps: another start
    assert len(done) == 2
