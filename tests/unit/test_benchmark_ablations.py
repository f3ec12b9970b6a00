"""benchmarks/ablations in small: every study end to end, the cache, the planted errors, the bound."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.ablations import __main__ as command
from benchmarks.ablations import bound, ceiling, group_size, helpers, normalisation, objective, on_policy, runs
from benchmarks.ablations.arms import TRUTH, Arm, Signal
from benchmarks.ablations.settings import FULL, GOOD_GUIDE, QUICK
from benchmarks.ablations.signals import PlantedReward, Truth
from benchmarks.ablations.training import MEASURED_LISTS, order_of, reward_of
from benchmarks.quality.problem import TRAIN
from benchmarks.quality.settings import FULL as QUALITY
from benchmarks.quality.stages import SIMULATOR, Place, code_digest
from benchmarks.report import claim
from goalrank.errors import UsageError
from goalrank.group_plan import planned
from goalrank.objective import Loss
from goalrank.policies import REGISTRY, Opinion, Proposal, helper_columns, propose_lists, top_lists
from goalrank.schema import LIST_LENGTH
from goalrank.simulator import true_reward

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = Place(SIMULATOR, QUICK.scale, tmp_path_factory.mktemp("ablations"), Path("unused"))
    runs.prepare(found, QUICK.seeds)
    return found


@pytest.fixture(scope="module")
def truth(place: Place) -> Truth:
    return runs.truth_of(place)


def test_every_study_end_to_end(place: Place, tmp_path: Path, capsys) -> None:
    options = ["--study", "all", "--quick", "--cache", str(place.cache), "--json", str(tmp_path / "ablations.json")]
    assert command.main(options) == 0
    printed = capsys.readouterr()
    document = json.loads((tmp_path / "ablations.json").read_text())
    assert json.loads(printed.out.splitlines()[-1]) == document and document["complete"] and document["quick"]
    for name, make in command.STUDIES.items():
        rows = [row for row in document["rows"] if row["study"] == name]
        made = [row for row in rows if "regret" in row]
        assert [row["arm"] for row in made] == [arm.name for arm in make(True).arms]
        assert all(row["seeds"] == QUICK.seeds and 0 < row["regret"] < 5 and 0 <= row["agreement"] <= 1 for row in made)
        for row in (row for row in made if "regret - base" in row):
            by_seed = [row[f"seed {seed}"] for seed in range(QUICK.seeds)]
            assert np.mean(by_seed) == pytest.approx(row["regret - base"], abs=2e-4)
            if len(set(by_seed)) > 1:
                assert stats.ttest_1samp(by_seed, 0.0).pvalue <= row["Holm p over seeds"] + 0.01
        assert (tmp_path / f"ablations-{name}.png").stat().st_size > 5_000
        assert any(made["name"].startswith(f"{name}: ") for made in document["claims"])
    statistics = [row for row in document["rows"] if row.get("part") == helpers.STATISTICS_PART]
    assert [row["helpers"] for row in statistics] == [
        arm.name for arm in helpers.study(True).arms if not arm.without_helpers
    ]
    of = {row["helpers"]: row for row in statistics}
    assert of["all nine heuristics"]["distinct_items"] > of["retriever_sampled alone"]["distinct_items"] > 0
    assert all(0 <= row["duplicates"] < 1 and row["reward_std"] > 0 for row in statistics)
    page = (tmp_path / "ablations.md").read_text()
    assert all(f"## {name}" in page for name in command.STUDIES) and "own lists alone" in page
    assert command.main(options) == 0  # from the cache
    again = json.loads((tmp_path / "ablations.json").read_text())
    assert again["rows"] == document["rows"] and "to do" not in capsys.readouterr().err


def test_some_arms_of_a_study_are_those_and_their_base_and_nothing_is_claimed_of_them(
    place: Place, tmp_path: Path, capsys
) -> None:
    options = ["--study", "group_size", "--quick", "--cache", str(place.cache)]
    file = tmp_path / "some.json"
    assert command.main([*options, "--arms", "^3 lists, equal temperature$", "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    named = [row["arm"] for row in document["rows"] if "arm" in row]
    assert named == [f"{size} lists, {group_size.EQUAL}" for size in (3, 8)]
    assert document["claims"] == []
    assert [row["only arms with this in their name"] for row in document["rows"] if "part" in row] == [
        "^3 lists, equal temperature$"
    ]
    assert "^3 lists, equal temperature$" in file.with_suffix(".md").read_text()
    assert command.main(["--study", "helpers", *options[2:], "--arms", "mmr|random alone|and both"]) == 0
    of_helpers = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    kept = [helpers.BASE, "and both neural ones"]
    assert [row["arm"] for row in of_helpers if "arm" in row] == kept
    assert [row["helpers"] for row in of_helpers if "helpers" in row] == kept
    assert command.main([*options, "--arms", "17 lists"]) == UsageError.exit_code
    assert "'17 lists' found, expected part of the name of an arm: 3 lists, " in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        command.main([*options, "--arms", "("])
    assert ended.value.code == UsageError.exit_code and "regular expression" in capsys.readouterr().err


def test_two_processes_teach_the_guides_that_one_would(place: Place, tmp_path: Path) -> None:
    other = replace(place, cache=tmp_path)
    runs.prepare(other, QUICK.seeds, jobs=2)
    for seed in range(QUICK.seeds):
        first, second = (runs.guide_of(one, seed).state_dict() for one in (place, other))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_good_guide_is_judged_on_requests_that_choose_and_never_on_those_reported() -> None:
    assert GOOD_GUIDE.scale.days == QUALITY.days - 1 and GOOD_GUIDE.scale.world == QUALITY.world
    steps = [one.preset.reward_steps + one.preset.ranker_steps for one in (GOOD_GUIDE.scale, QUALITY)]
    assert steps[0] == steps[1]


def test_a_run_cut_short_is_done_anew_and_the_others_are_not(place: Place, monkeypatch) -> None:
    done: list[str] = []
    original = runs.trained_arm

    def noted(*given, **named):
        done.append(next(one.name for one in given if isinstance(one, Arm)))
        if len(done) == 2:
            raise KeyboardInterrupt
        return original(*given, **named)

    monkeypatch.setattr(runs, "trained_arm", noted)
    wanted = [runs.Run(Arm(f"own {lists}", f"lists=2 own={lists}"), 0) for lists in (1, 2, 3)]
    with pytest.raises(KeyboardInterrupt):
        runs.conduct(place, wanted, 1, "test")
    found = runs.conduct(place, wanted, 1, "test")
    assert done == ["own 1", "own 2", "own 2", "own 3"]
    assert [found[run]["group_size"] for run in wanted] == [3, 4, 5]


def test_a_digest_names_all_a_run_depends_on_and_not_its_name(place: Place) -> None:
    arm = Arm("one", "lists=4 own=4")
    key = runs._folder(place, runs.Run(arm, 0))
    assert runs._folder(place, runs.Run(replace(arm, name="other"), 0)) == key
    objective = normalisation.OBJECTIVES["raw, matched"]
    others = [
        replace(arm, plan="lists=4 own=5"),
        replace(arm, without_helpers=True),
        replace(arm, signal=TRUTH),
        replace(arm, signal=Signal(True, "noise", 2.0)),
        replace(arm, objective=objective),
    ]
    longer = replace(place, scale=replace(place.scale, preset=replace(place.scale.preset, ranker_steps=7)))
    keys = {runs._folder(place, runs.Run(other, 0)) for other in others}
    assert len({key, *keys, runs._folder(place, runs.Run(arm, 1)), runs._folder(longer, runs.Run(arm, 0))}) == 8
    assert code_digest(("benchmarks.ablations.training",)) != code_digest(("benchmarks.ablations.signals",))


def test_an_arm_that_diverges_is_a_result(place: Place, monkeypatch) -> None:
    def refuse(*_, **__) -> None:
        raise runs.ModelRefused("loss is nan")

    monkeypatch.setattr(runs, "trained_arm", refuse)
    run = runs.Run(Arm("broken", "lists=3 own=7"), 0)
    assert runs.conduct(place, [run], 1, "test")[run]["refused"] == "loss is nan"


# ---------------------------------------------------------------------------------------------------------- the signals


def scored(place: Place, truth: Truth, signal: Signal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards, true rewards [R, G] and lists of the same random lists of some training requests."""
    problem = runs.problem_of(place)
    rows_R = problem.rows[TRAIN][:24]
    batch = problem.data.batch(rows_R)
    lists = np.random.default_rng(3).random((len(rows_R), 40, 50)).argsort(axis=2)[..., :LIST_LENGTH]
    model = reward_of(signal, runs.guide_of(place, 0), truth)
    rewards = model.score_lists(model.encode(batch), torch.from_numpy(lists))
    requests = problem.data.examples.take(rows_R)
    ids = np.array(requests["candidates"].to_pylist())
    expected = true_reward(problem.config, requests, np.take_along_axis(ids[:, None], lists, axis=2))
    return rewards[0].numpy().astype(float), expected, lists


def test_the_truth_is_the_simulators(place: Place, truth: Truth) -> None:
    found, expected, _ = scored(place, truth, TRUTH)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert truth.spread == pytest.approx(expected.std(axis=1).mean(), rel=0.2)


def test_planted_errors_are_what_they_say(place: Place, truth: Truth) -> None:
    _, true, _ = scored(place, truth, TRUTH)
    constant = scored(place, truth, Signal(True, "constant", 10.0))[0] - true
    assert constant.std(axis=1).max() < 1e-5 and 4 < constant.std() / truth.spread < 20
    scale = scored(place, truth, Signal(True, "scale", 10.0))[0] / true
    assert scale.std(axis=1).max() < 1e-5 and 0.1 <= scale.min() < 0.5 and 2 < scale.max() <= 10
    noise = (scored(place, truth, Signal(True, "noise", 2.0))[0] - true) / truth.spread
    assert noise.std() == pytest.approx(2.0, rel=0.1) and abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.5
    popularity = (scored(place, truth, Signal(True, "popularity", 2.0))[0] - true) / truth.spread
    assert popularity.std() == pytest.approx(2.0, rel=0.2)
    nothing, _, _ = scored(place, truth, Signal(True, "noise", math.inf))
    assert abs(np.corrcoef(nothing.ravel(), true.ravel())[0, 1]) < 0.1
    for error in ("cube", "saturating", "steps"):
        found = scored(place, truth, Signal(True, error))[0]
        order = true.argsort(axis=1)
        assert (np.diff(np.take_along_axis(found, order, axis=1), axis=1) >= 0).all(), error
    again = scored(place, truth, Signal(True, "noise", 2.0))[0]
    np.testing.assert_array_equal(again, scored(place, truth, Signal(True, "noise", 2.0))[0])


def test_order_is_measured_on_the_same_lists(place: Place, truth: Truth) -> None:
    problem, guide = runs.problem_of(place), runs.guide_of(place, 0)
    found = {
        signal.name: order_of(problem, truth, reward_of(signal, guide, truth), 40)
        for signal in (TRUTH, Signal(True, "noise", 1.0), Signal(True, "noise", math.inf), Signal(True, "cube"))
    }
    right = [one["agreement"] for one in found.values()]
    assert right[0] == right[3] == 1.0 and right[0] > right[1] > right[2] and abs(right[2] - 0.5) < 0.05
    assert found["r*, cube"]["kendall_tau"] == 1.0


def test_the_planted_reward_knows_no_noise_and_starts_as_the_guide(place: Place, truth: Truth) -> None:
    guide = runs.guide_of(place, 0)
    model = PlantedReward(truth, TRUTH, guide)
    assert model.sizes.reward_heads == 1
    ours, theirs = model.encoder.state_dict(), guide.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_planted_rewards_encoder_is_asked_where_a_helper_looks_at_it_and_nowhere_else(
    place: Place, truth: Truth
) -> None:
    problem, guide = runs.problem_of(place), runs.guide_of(place, 0)
    rows_R = problem.rows[TRAIN][:8]
    batch, shown_BL = problem.data.batch(rows_R), problem.data.feedback(rows_R).slate_BL
    model = PlantedReward(truth, TRUTH, guide).eval()
    asked: list[int] = []
    model.encoder.register_forward_hook(lambda *_: asked.append(1))
    encoded = model.encode(batch)
    proposal = Proposal(batch, shown_BL, LIST_LENGTH, Opinion(model, encoded))
    blind = [policy for name, policy in REGISTRY.items() if "next_item" not in name and "alone" not in name]
    lists_BGL = propose_lists(proposal, blind, torch.Generator().manual_seed(0))
    model.score_lists(encoded, lists_BGL)
    assert not asked
    found_BL = REGISTRY["next_item"].propose(proposal, torch.Generator())
    assert asked == [1]
    expected = guide.eval().encoder(batch)
    asked.clear()  # it is the guide's encoder
    torch.testing.assert_close(proposal.opinion.next_item, expected.match_BN)
    torch.testing.assert_close(found_BL, top_lists(expected.match_BN, batch.mask_BN, LIST_LENGTH))
    assert not asked  # worked out once


# -------------------------------------------------------------------------------------------------------------- studies


def test_full_studies_have_the_arms_that_were_asked_for() -> None:
    sizes = [int(arm.at) for arm in group_size.study(False).arms]
    assert sizes == [3, 5, 8, 12, 20, 50, 100] * 2 + list(group_size.TRUE_SIZES)
    assert [int(arm.at) for arm in group_size.study(False).arms if arm.signal.truth] == list(group_size.TRUE_SIZES)
    for arm in group_size.study(False).arms:
        assert planned(FULL.scale.preset, arm.plan).group_size == arm.at
    left_out = [arm for arm in helpers.study(False).arms if arm.name.startswith("without ")]
    assert len(left_out) == len(helpers.HEURISTICS)
    for arm in left_out:
        mix = planned(FULL.scale.preset, arm.plan)
        names = {policy.name for policy in helper_columns(mix.helper_lists, mix.helpers)}
        assert set(helpers.HEURISTICS) - names == {arm.name.removeprefix("without ")}
    assert {arm.plan for arm in on_policy.study(False).arms} >= {"lists=8 own=8 refresh=never", "lists=16 own=0"}
    assert {group_size.study(False).compared_with(arm.name) for arm in group_size.study(False).arms} == {
        f"8 lists, {series}" for series in (group_size.EQUAL, group_size.MATCHED, group_size.TRUE)
    }
    losses = {arm.objective.loss for arm in objective.study(False).arms}
    assert losses == set(get_args(Loss))
    normalised = normalisation.study(False)
    assert normalised.compared_with("guide; raw, matched") == "guide; standardised"
    assert {normalised.compared_with(arm.name) for arm in normalised.arms if arm.signal.truth} == {normalisation.BASE}
    by_signal = {arm.signal.name: [] for arm in normalised.arms}
    for arm in normalised.arms:
        by_signal[arm.signal.name].append(arm.objective)
    for found in (by_signal["guide"], by_signal["r*"]):
        assert [(one.normalisation, one.matched_to, one.temperature) for one in found] == [
            ("standardised", "none", 0.25),
            ("raw", "standardised", 0.25),
            ("ranks", "standardised", 0.25),
            ("raw", "none", 0.25),
        ]
    bias = {arm.signal.error for arm in normalised.arms}
    assert bias == {"none", "constant", "scale", "noise", "popularity", "cube", "saturating", "steps"}
    assert len({arm.signal for arm in ceiling.study(False).arms}) == 2 + 2 * len(ceiling.SIZES)
    for make in command.STUDIES.values():
        names = [arm.name for arm in make(False).arms]
        assert len(set(names)) == len(names) and (not names or make(False).base in names)
        for arm in make(False).arms:
            planned(FULL.scale.preset, arm.plan)
    assert MEASURED_LISTS >= 2


def test_claims_of_the_objective_and_of_group_size_are_about_what_they_say() -> None:
    def rows(regrets: dict[str, float]) -> list[dict[str, object]]:
        return [{"arm": name, "regret": value, "at": float(name.split(" ")[0])} for name, value in regrets.items()]

    named = {arm.name: 0.5 for arm in objective.study(False).arms}
    found = [{"arm": name, "regret": value} for name, value in (named | {objective.BASE: 0.4}).items()]
    assert [one["holds"] for one in objective._claims(found)] == [True, True]
    better = {next(name for name in named if name.startswith("rcpo")): 0.3}
    found = [{"arm": name, "regret": value} for name, value in (named | {objective.BASE: 0.4} | better).items()]
    assert [one["value"] for one in objective._claims(found)] == [pytest.approx(0.1)] * 2
    other = {"every copy counts": 0.3}
    found = [{"arm": name, "regret": value} for name, value in (named | {objective.BASE: 0.4} | other).items()]
    assert [one["holds"] for one in objective._claims(found)] == [False, True]

    true = {f"{size} lists, {group_size.TRUE}": 1.0 / size for size in group_size.TRUE_SIZES}
    held = {one["name"]: one["holds"] for one in group_size._claims(rows(true))}
    assert held == {
        f"{group_size.TRUE}: least regret of 8 to 20 lists less the least of all sizes": False,  # 100 have less
        f"{group_size.TRUE}: least regret of 8 to 20 lists less the least of 3 to 5": True,
    }


def test_a_constant_changes_no_arms_loss(place: Place) -> None:
    rows = normalisation._losses(place, QUICK, [])
    assert [row["normalisation"] for row in rows] == list(normalisation.ALL_ARMS)
    assert max(row["change"] for row in rows) <= normalisation.LOSS_LIMIT
    made = normalisation._claims(rows)
    assert [one["holds"] for one in made] == [True]
    rows[0]["change"] = 2 * normalisation.LOSS_LIMIT
    assert [one["holds"] for one in normalisation._claims(rows)] == [False]


def rows_of(regrets: dict[str, float], **more: list[float]) -> list[dict]:
    rows = [{"arm": arm, "regret": value} for arm, value in regrets.items()]
    for name, values in more.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def test_claims_hold_where_they_should_and_nowhere_else() -> None:
    sharp = {3: 0.5, 8: 0.3, 100: 0.35}
    for worse, holds in ((0.45, [True, True, True, True, True]), (0.25, [False, True, True, True, False])):
        equal = {**sharp, 100: worse}
        names = {f"{size} lists, {group_size.EQUAL}": value for size, value in equal.items()}
        names |= {f"{size} lists, {group_size.MATCHED}": value for size, value in sharp.items()}
        made = group_size._claims(rows_of(names, at=[3, 8, 100] * 2))
        assert [one["holds"] for one in made] == holds
    known = {helpers.BASE: 0.3, "without mmr": 0.31, "random alone": 0.2, "random and own lists": 0.4}
    assert [one["holds"] for one in helpers._claims(rows_of(known | {helpers.NO_OWN: 0.25}))] == [True, False, True]
    assert [one["holds"] for one in helpers._claims(rows_of(known | {helpers.NO_OWN: 0.15}))] == [True, True, True]
    assert [one["holds"] for one in helpers._claims(rows_of(known | {"ctr and own lists": 0.2}))] == [False, True]
    named = {"guide; standardised": 0.8, "guide; raw, matched": 0.8 + 0.9 * normalisation.REGRET_LIMIT}
    assert [one["holds"] for one in normalisation._claims(rows_of(named))] == [True]
    named["guide; raw, matched"] = 0.8 - 1.1 * normalisation.REGRET_LIMIT
    assert [one["holds"] for one in normalisation._claims(rows_of(named))] == [False]
    made = on_policy._claims(rows_of({on_policy.BASE: 0.3, on_policy.FIXED: 0.31, on_policy.NONE: 0.2}))
    assert [one["holds"] for one in made] == [False, True]
    found = {"r*": 0.1, "r*, noise 1": 0.2, "r*, popularity 1": 0.4}
    made = ceiling._claims(rows_of(found, agreement=[1.0, 0.8, 0.6]))
    assert [one["holds"] for one in made] == [True, True]
    made = ceiling._claims(rows_of(found, agreement=[0.6, 0.8, 1.0]))
    assert made[0] == claim(made[0]["name"], made[0]["value"], "at most", ceiling.LEAST_CORRELATION)
    assert not made[0]["holds"]


def test_arms_that_are_level_share_a_rank_whatever_their_order() -> None:
    regrets, agreements = [0.1, 0.2, 0.2, 0.2, 0.4], [1.0, 0.9, 0.7, 0.8, 0.8]
    expected = stats.spearmanr(regrets, agreements).statistic
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        rows = rows_of({f"arm {at}": regrets[at] for at in order}, agreement=[agreements[at] for at in order])
        assert normalisation.correlation(rows) == pytest.approx(expected)
    assert math.isnan(normalisation.correlation(rows[:2]))


# ------------------------------------------------------------------------------------------------------------ the bound


def test_the_bound_is_above_what_it_bounds_and_training_lowers_both() -> None:
    for groups in (bound.ARMS[1], bound.ARMS[-1]):
        points = np.array(bound.watched(groups, 0, 40))
        _, above, mixture, optimal = points.T
        assert (above >= mixture).all() and (mixture >= 0).all() and (optimal >= 0).all()
        assert above[-1] < above[0] and optimal[-1] < optimal[0]


def test_groups_of_all_lists_have_pi_star_as_their_reference() -> None:
    """Then the bound is the divergence itself."""
    points = bound.watched(bound.Groups(120, "raw", bound.TEMPERATURE), 0, 1)
    for _, above, mixture, optimal in points:
        assert above == pytest.approx(optimal, rel=1e-4) and mixture == pytest.approx(optimal, rel=1e-4)
