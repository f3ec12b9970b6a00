"""The verdict: its statistics against SciPy and simulation, its rules, and its strict reader."""

import json

import numpy as np
import pytest
from scipy import stats

from goalrank import verdict as v
from goalrank.errors import ModelRefused, UsageError
from goalrank.off_policy import Estimate, OffPolicyResult
from goalrank.verdict import statistics
from goalrank.verdict.consistency import SERVED
from goalrank.verdict.schema import schema_text
from goalrank.verdict.statistics import Comparisons, holm
from goalrank_platform import root
from tests.verdicts import GATES, NO_PROPENSITIES

CHALLENGER = v.ModelVersion(name="goalrank-ranker", version="8", weights_sha256="a" * 64)
CHAMPION = v.ModelVersion(name="goalrank-ranker", version="7", weights_sha256="b" * 64)
NIGHT = {"snapshot_id": "s1", "date": "2026-01-08"}
USERS = 200


def rewards(over_retriever: float, over_champion: float | None, spread: float = 0.5, seed: int = 0):
    """Judged rewards of R requests whose mean paired differences are about those given."""
    random = np.random.default_rng(seed)
    challenger_R = random.normal(2.0, 1.0, 3 * USERS)
    columns = {"challenger": challenger_R, "retriever": challenger_R - over_retriever}
    columns["retriever"] = columns["retriever"] + random.normal(0, spread, 3 * USERS)
    if over_champion is not None:
        columns["champion"] = challenger_R - over_champion + random.normal(0, spread, 3 * USERS)
    return columns


def decide(columns, *, champion=CHAMPION, model=CHALLENGER, metrics=None, allow_bootstrap=False, gates=GATES, **more):
    more = {"slices": {"all": np.ones(3 * USERS, dtype=bool)}, "off_policy": NO_PROPENSITIES} | more
    return v.decide(
        model=model,
        champion=champion,
        **NIGHT,
        rewards=columns,
        users_R=np.repeat(np.arange(USERS), 3),
        metrics=metrics or {"challenger": {"ndcg": 0.4}, "champion": {"ndcg": 0.3} if champion else None},
        allow_bootstrap=allow_bootstrap,
        seed=1,
        gates=gates,
        **more,
    )


# --------------------------------------------------------------------------------------------------------- statistics


def test_interval_agrees_with_scipy_where_every_request_is_its_own_user():
    differences_R = np.random.default_rng(3).gamma(1.0, 1.0, 400) - 0.9
    ours = v.paired_bootstrap(differences_R, seed=5)
    theirs = stats.bootstrap(
        (differences_R,),
        np.mean,
        n_resamples=20_000,
        confidence_level=v.CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.mean == pytest.approx(differences_R.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_same_seed_same_interval_and_another_seed_another():
    differences_R = np.random.default_rng(0).normal(size=100)
    assert v.paired_bootstrap(differences_R, seed=4) == v.paired_bootstrap(differences_R, seed=4)
    assert v.paired_bootstrap(differences_R, seed=4) != v.paired_bootstrap(differences_R, seed=5)


def test_requests_of_one_user_are_no_independent_witnesses():
    per_user_C = np.random.default_rng(0).normal(size=50)
    differences_R = np.repeat(per_user_C, 20)  # twenty copies of what one user thinks
    together = v.paired_bootstrap(differences_R, np.repeat(np.arange(50), 20), seed=1)
    apart = v.paired_bootstrap(differences_R, seed=1)
    assert together.high - together.low == pytest.approx(np.sqrt(20) * (apart.high - apart.low), rel=0.1)


@pytest.mark.parametrize("users", [v.MINIMUM_USERS, 200])
def test_an_equal_challenger_is_found_superior_in_about_its_share_of_nights(users):
    random = np.random.default_rng(11)
    nights = 600
    superior = sum(
        v.paired_bootstrap(random.normal(size=users), seed=night, resamples=500).low > v.SUPERIORITY
        for night in range(nights)
    )
    share = (1 - v.CONFIDENCE) / 2
    # Three standard errors of a binomial share, the most that chance explains.
    assert superior / nights <= share + 3 * np.sqrt(share * (1 - share) / nights)


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        (np.array([]), "not none"),
        (np.zeros((2, 2)), "one number a request"),
        (np.array([0.1, np.nan]), "1 of 2 differences of judged_reward are not finite"),
        (np.array([np.inf, -np.inf]), "2 of 2"),
    ],
)
def test_differences_that_cannot_be_judged_are_refused(differences, message):
    with pytest.raises(ModelRefused, match=message):
        v.paired_bootstrap(differences)


# -------------------------------------------------------------------------------------------------------------- rules


def test_first_night_needs_leave_to_bootstrap_and_says_what_to_set():
    refused = decide(rewards(0.5, None), champion=None)
    assert refused.decision == "refuse"
    assert "allow_bootstrap" in refused.reason


def test_first_night_with_leave_is_promoted_above_the_floor_and_refused_below():
    promoted = decide(rewards(0.5, None), champion=None, allow_bootstrap=True)
    assert promoted.decision == "promote"
    assert promoted.difference is not None and promoted.difference.low > v.FLOOR
    for over_retriever in (0.0, -0.5):
        refused = decide(rewards(over_retriever, None), champion=None, allow_bootstrap=True)
        assert refused.decision == "refuse"
        assert "floor" in refused.reason


def test_promoted_only_when_the_whole_interval_is_above_the_champion():
    assert decide(rewards(0.5, 0.2)).decision == "promote"
    for over_champion in (0.0, -0.3):
        kept = decide(rewards(0.5, over_champion))
        assert kept.decision == "keep"
        assert "superiority" in kept.reason


def test_shown_below_the_floor_is_refused_even_if_the_champion_is_worse():
    assert decide(rewards(-0.3, 0.4)).decision == "refuse"


def test_not_shown_above_the_floor_keeps_the_champion():
    columns = rewards(0.0, 0.4)
    columns["retriever"] = columns["challenger"] + np.random.default_rng(2).normal(0, 0.5, 3 * USERS)
    kept = decide(columns)
    assert kept.decision == "keep"
    assert "floor" in kept.reason


@pytest.mark.parametrize("who", ["challenger", "champion"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_that_is_not_finite_on_either_side_refuses(who, value):
    metrics = {"challenger": {"ndcg": 0.4}, "champion": {"ndcg": 0.3}}
    metrics[who]["ndcg"] = value
    refused = decide(rewards(0.5, 0.2), metrics=metrics)
    assert refused.decision == "refuse"
    assert f"{who}.ndcg" in refused.reason
    json.loads(v.to_json(refused), parse_constant=lambda name: pytest.fail(f"{name} in the document"))


@pytest.mark.parametrize("who", ["challenger", "champion", "retriever"])
def test_a_reward_that_is_not_finite_refuses(who):
    columns = rewards(0.5, 0.2)
    columns[who][7] = np.nan
    refused = decide(columns)
    assert refused.decision == "refuse"
    assert f"rewards.{who}" in refused.reason


def test_a_figure_that_does_not_apply_is_no_reason_to_refuse():
    metrics = {"challenger": {"ndcg": None}, "champion": {"ndcg": None}}
    assert decide(rewards(0.5, 0.2), metrics=metrics).decision == "promote"


def test_too_few_users_never_promote():
    columns = {name: values[:60] for name, values in rewards(0.5, 0.2).items()}
    arguments = {"rewards": columns, "users_R": np.repeat(np.arange(20), 3), "metrics": {}, "seed": 0, **NIGHT}
    arguments["gates"] = GATES
    kept = v.decide(model=CHALLENGER, champion=CHAMPION, allow_bootstrap=False, **arguments)
    assert (kept.decision, "users" in kept.reason) == ("keep", True)
    first = v.decide(model=CHALLENGER, champion=None, allow_bootstrap=True, **arguments)
    assert (first.decision, "users" in first.reason) == ("refuse", True)


def test_a_day_without_any_request_is_refused():
    empty = {name: np.array([]) for name in ("challenger", "champion", "retriever")}
    refused = v.decide(
        model=CHALLENGER,
        champion=CHAMPION,
        **NIGHT,
        rewards=empty,
        users_R=[],
        metrics={},
        allow_bootstrap=False,
        seed=0,
    )
    assert refused.decision == "refuse"


def test_a_further_check_that_fails_stops_the_promotion():
    for value in (300.0, None, float("nan")):
        gates = [*GATES[:1], v.within_budget("latency", value, 100.0, "ms"), *GATES[2:]]
        kept = decide(rewards(0.5, 0.2), gates=gates)
        assert kept.decision == "keep"
        assert "latency" in kept.reason
        assert decide(rewards(0.5, None), champion=None, allow_bootstrap=True, gates=gates).decision == "refuse"


def test_the_same_night_again_keeps_what_it_promoted():
    columns = rewards(0.5, 0.0, spread=0.0)
    columns["retriever"] = columns["challenger"] - 0.5
    kept = decide(columns, champion=CHALLENGER)
    assert kept.decision == "keep"
    assert "champion already" in kept.reason


# ------------------------------------------------------------------------------------------------------------- slices


def lossy_slice(users: int, loss: float, spread: float = 0.1):
    """Rewards of a challenger better by 0.2 but for the first `users` users, on whom it loses; and that slice."""
    columns = rewards(0.5, 0.0, spread=spread)
    chosen_R = np.repeat(np.arange(USERS), 3) < users
    noise_R = np.random.default_rng(5).normal(0, spread, 3 * USERS)
    columns["champion"] = columns["challenger"] - np.where(chosen_R, -loss, 0.2) + noise_R
    return columns, {"some": chosen_R, "others": ~chosen_R}


def test_a_loss_on_a_slice_stops_a_better_mean_and_is_named():
    columns, slices = lossy_slice(52, loss=0.3)
    judged = decide(columns, slices=slices)
    assert judged.difference.low > v.SUPERIORITY
    assert judged.decision == "keep"
    assert "some loses more than" in judged.reason
    some, others = judged.slices
    assert (some.status, others.status) == ("failed", "passed")
    assert (some.users, some.requests) == (52, 156)
    assert some.margin == pytest.approx(v.SLICE_MARGIN * columns["champion"][slices["some"]].mean())
    assert some.difference.mean == pytest.approx((columns["challenger"] - columns["champion"])[slices["some"]].mean())


def test_a_slice_that_may_lose_too_much_is_inconclusive_and_no_yes():
    columns, slices = lossy_slice(60, loss=v.SLICE_MARGIN * 2.0, spread=0.5)
    judged = decide(columns, slices=slices)
    assert judged.slices[0].status == "inconclusive"
    assert judged.decision == "keep"
    assert "slices (inconclusive): some may lose more than" in judged.reason


def test_a_loss_within_the_margin_is_no_reason_to_keep():
    columns, slices = lossy_slice(100, loss=v.SLICE_MARGIN, spread=0.1)
    assert decide(columns, slices=slices).decision == "promote"


def test_a_slice_too_small_to_judge_says_its_size():
    columns, slices = lossy_slice(v.MINIMUM_SLICE_USERS - 1, loss=0.4)
    judged = decide(columns, slices=slices)
    assert judged.slices[0].status == "not_applicable"
    assert judged.slices[0].difference is None
    check = next(check for check in judged.checks if check.name == "slices")
    assert f"some ({v.MINIMUM_SLICE_USERS - 1} users)" in check.detail
    assert judged.decision == "promote"


def test_an_empty_slice_does_not_apply_and_no_slices_at_all_are_no_yes():
    nobody = {"nobody": np.zeros(3 * USERS, dtype=bool)}
    for slices, wanted in ((nobody, ("promote", "not_applicable")), ({}, ("keep", "inconclusive"))):
        judged = decide(rewards(0.5, 0.2), slices=slices)
        check = next(check for check in judged.checks if check.name == "slices")
        assert (judged.decision, check.status) == wanted


def test_holm_s_procedure_on_the_numbers_of_a_textbook():
    # Holm (1979): 0.01 <= .05/4, 0.013 <= .05/3, 0.02 <= .05/2, 0.2 > .05/1; and a first that fails stops all.
    assert holm([0.2, 0.01, 0.02, 0.013], 0.05) == [False, True, True, True]
    assert holm([0.02, 0.02, 0.02], 0.05) == [False, False, False]
    assert holm([], 0.05) == []


def test_a_slice_is_bootstrapped_as_it_would_be_alone():
    differences_R = np.random.default_rng(0).normal(size=600)
    users_R, chosen_R = np.arange(600) // 3, np.arange(600) < 300
    compared = Comparisons(600, users_R, seed=1)
    compared.add("all", differences_R)
    compared.add("half", differences_R, chosen_R)
    together, alone = compared.interval("half"), v.paired_bootstrap(differences_R[:300], users_R[:300], seed=2)
    width = alone.high - alone.low
    assert together.mean == pytest.approx(alone.mean)
    assert [together.low, together.high] == pytest.approx([alone.low, alone.high], abs=0.06 * width)


def test_many_users_are_drawn_in_pieces_with_the_same_result(monkeypatch):
    differences_R = np.random.default_rng(0).normal(size=500)
    kept = v.paired_bootstrap(differences_R, seed=3)
    monkeypatch.setattr(statistics, "CACHED_CELLS", 0)
    drawn = v.paired_bootstrap(differences_R, seed=3)
    assert [drawn.low, drawn.high] == pytest.approx([kept.low, kept.high], abs=1e-6)


# ------------------------------------------------------------------------------------------------------------- anchor

ANCHOR = v.ModelVersion(name="goalrank-ranker", version="3", weights_sha256="d" * 64)


def against_anchor(over_anchor: float, spread: float):
    columns = rewards(0.5, 0.2)
    noise_R = np.random.default_rng(9).normal(0, spread, 3 * USERS)
    columns["anchor"] = columns["challenger"] - over_anchor + noise_R - noise_R.mean()
    return decide(columns, anchor=ANCHOR)


def test_better_than_the_champion_but_below_the_anchor_is_kept():
    lost = against_anchor(-0.1, spread=0.1)
    check = next(check for check in lost.checks if check.name == "anchor")
    assert (lost.decision, check.status, lost.anchor) == ("keep", "failed", ANCHOR)
    assert "against version 3" in lost.reason
    unsure = against_anchor(0.0, spread=2.0)
    check = next(check for check in unsure.checks if check.name == "anchor")
    assert (unsure.decision, check.status) == ("keep", "inconclusive")


def test_within_the_margin_of_the_anchor_is_promoted():
    promoted = against_anchor(-v.ANCHOR_MARGIN, spread=0.05)
    assert promoted.decision == "promote"
    assert promoted.anchor_difference.mean == pytest.approx(-v.ANCHOR_MARGIN)


def test_without_an_anchor_the_reason_is_told():
    promoted = decide(rewards(0.5, 0.2), no_anchor="the journal is young")
    check = next(check for check in promoted.checks if check.name == "anchor")
    assert (check.status, check.detail) == ("not_applicable", "the journal is young")


# ---------------------------------------------------------------------------------------------------------- off-policy


@pytest.mark.parametrize(
    ("setting", "status", "decision"),
    [
        ("required", "passed", "promote"),
        ("required", "not_applicable", "promote"),
        ("required", "inconclusive", "keep"),
        ("required", "failed", "keep"),
        ("veto", "inconclusive", "promote"),
        ("veto", "failed", "keep"),
    ],
)
def test_what_the_off_policy_estimate_may_do(setting, status, decision):
    estimate = Estimate("dr", 0.1, float("-inf"), float("nan"), 12.0, 600)
    section = v.off_policy_section(OffPolicyResult(status, "because", {"difference": estimate}), setting)
    assert section.estimates["difference"].low is None
    judged = decide(rewards(0.5, 0.2), gates=[v.off_policy_gate(section), *GATES[1:]], off_policy=section)
    assert judged.decision == decision
    assert judged.off_policy == section
    check = next(check for check in judged.checks if check.name == "off_policy")
    assert "because" in check.detail


def test_an_unknown_off_policy_setting_is_refused():
    with pytest.raises(UsageError, match="off_policy 'maybe' found, expected one of required, veto"):
        v.off_policy_section(OffPolicyResult("passed", "", {}), "maybe")


@pytest.mark.parametrize("left_out", [check.name for check in GATES])
def test_a_gate_that_was_never_asked_cannot_promote(left_out):
    with pytest.raises(ValueError, match=f"these checks were not made: {left_out}"):
        decide(rewards(0.5, 0.2), gates=[check for check in GATES if check.name != left_out])


@pytest.mark.parametrize("who", ["challenger", "champion"])
def test_weights_that_are_not_finite_refuse_before_anything_is_scored(who):
    refused = decide({}, not_finite=[f"{who}.weights.encoder.bias"])
    assert refused.decision == "refuse"
    assert f"{who}.weights.encoder.bias" in refused.reason


# ------------------------------------------------------------------------------------------------------------- schema


def test_the_published_schema_is_the_code_s():
    published = (root() / "docs" / "verdict.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run `python -m goalrank.verdict.schema > docs/verdict.schema.json`"


# ------------------------------------------------------------------------------------------------------------- reader


@pytest.fixture
def document():
    return json.loads(v.to_json(decide(rewards(0.5, 0.2), slices={"half": np.arange(3 * USERS) < 300})))


def write(tmp_path, content):
    path = tmp_path / "verdict"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_was_written_is_read_back(tmp_path):
    promoted = decide(rewards(0.5, 0.2))
    path = write(tmp_path, v.to_json(promoted))
    assert v.load_verdict(path, "evaluation") == promoted


def _without(field):
    return lambda document: document.pop(field)


def _with(*path_and_value):
    *path, last, value = path_and_value

    def change(document):
        for key in path:
            document = document[key]
        document[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("decision"), "decision"),
        (_without("snapshot_id"), "snapshot_id"),
        (_without("champion"), "champion"),
        (_without("checks"), "checks"),
        (_with("decision", "yes"), "decision"),
        (_with("decision", True), "decision"),
        (_with("format", v.FORMAT - 1), f"format {v.FORMAT - 1} found, expected {v.FORMAT}"),
        (_with("kind", "serving"), "kind"),
        (_with("model", "version", 8), "model.version"),
        (_with("model", "version", "08"), "model.version"),
        (_with("model", "weights_sha256", "A" * 64), "model.weights_sha256"),
        (_with("checks", []), "checks"),
        (_with("checks", 0, "status", True), "checks.0.status"),
        (_with("checks", 0, "status", "maybe"), "checks.0.status"),
        (_with("checks", 0, "passed", True), "checks.0.passed"),
        (_with("checks", 0, "status", "failed"), "decision promote although these checks failed"),
        (_with("checks", 0, "status", "inconclusive"), "decision promote although these checks failed"),
        (lambda document: document["checks"].pop(), "these checks were not made: anchor"),
        (lambda document: document["checks"].append(document["checks"][0]), "a check stands twice"),
        (_with("slices", 0, "status", "failed"), "check slices is passed, its slices say otherwise"),
        (_with("slices", 0, "users", -1), "slices.0.users"),
        (_with("difference", "low", -0.1), "although the difference may be -0.1"),
        (_with("champion", "version", "8"), "is the champion already"),
        (_without("anchor"), "anchor"),
        (_with("difference", None), "the difference it rests on is missing"),
        (_with("difference", "low", "0.1"), "difference.low"),
        (_with("date", "yesterday"), "date"),
        (_with("thresholds", "floor", None), "thresholds.floor"),
        (_with("approved_by", "me"), "approved_by"),
    ],
)
def test_a_malformed_verdict_is_refused_and_the_fault_named(tmp_path, document, change, message):
    change(document)
    with pytest.raises(ModelRefused, match="malformed") as refusal:
        v.load_verdict(write(tmp_path, document), "evaluation")
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "promote",
        "[" * 100_000,
        '{"a": NaN}',
        '{"a": 1, "a": 1}',
        "x" * (v.MAXIMUM_BYTES + 1),
    ],
)
def test_what_is_no_verdict_at_all_is_refused(tmp_path, content):
    for kind in ("evaluation", "serving"):
        with pytest.raises(ModelRefused):
            v.load_verdict(write(tmp_path, content), kind)


def test_numbers_too_large_to_be_finite_are_refused(tmp_path, document):
    text = json.dumps(document).replace(json.dumps(document["difference"]["low"]), "1e999")
    with pytest.raises(ModelRefused, match=r"difference\.low|checks"):
        v.load_verdict(write(tmp_path, text), "evaluation")


def test_a_key_that_stands_twice_is_refused(tmp_path, document):
    text = json.dumps(document).replace('"decision"', '"decision": "keep", "decision"', 1)
    with pytest.raises(ModelRefused, match="a key stands twice"):
        v.load_verdict(write(tmp_path, text), "evaluation")


def test_a_missing_verdict_is_refused(tmp_path):
    with pytest.raises(ModelRefused, match="cannot be read"):
        v.load_verdict(tmp_path / "none", "evaluation")


def test_a_serving_verdict_passes_only_with_requests_and_all_checks(tmp_path, document):
    serving = {key: document[key] for key in ("format", "model", "snapshot_id", "date", "judged_at")}
    checks = [{"name": name, "value": 0, "threshold": 0, "status": "passed", "detail": ""} for name in SERVED]
    serving |= {"kind": "serving", "decision": "pass", "reason": "equal", "checks": checks, "requests": 20}
    assert v.load_verdict(write(tmp_path, serving), "serving").requests == 20
    for wrong, message in (
        ({"requests": 0}, "not a single request"),
        ({"requests": -1}, "requests"),
        ({"checks": [{**checks[0], "status": "failed"}, *checks[1:]]}, "checks failed: answered"),
        ({"checks": [{**checks[0], "value": 5}, *checks[1:]]}, "and not 0: answered"),
        ({"checks": [{**checks[0], "status": "not_applicable"}, *checks[1:]]}, "were not made: answered"),
        ({"checks": checks[:-1]}, f"were not made: {SERVED[-1]}"),
    ):
        with pytest.raises(ModelRefused, match=message):
            v.load_verdict(write(tmp_path, serving | wrong), "serving")


def _check(document, name):
    return next(check for check in document["checks"] if check["name"] == name)


def _say(name, **fields):
    return lambda document: _check(document, name).update(fields)


def _margin_of(document, low):
    _check(document, "superiority")["value"] = document["difference"]["low"] = low


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["thresholds"].pop("superiority"), "superiority None found"),
        (_with("thresholds", "superiority", -100.0), "superiority -100.0 found"),
        (_with("thresholds", "mood", 1.0), "mood 1.0 found"),
        (lambda document: document["thresholds"].pop("resamples"), "resamples missing"),
        (_say("finite", value=3.0), "check finite is called passed"),
        (_say("users", value=0.0), "check users is called passed"),
        (_say("floor", value=-5.0), "check floor is called passed"),
        (_say("latency", value=10_000.0), "check latency is called passed"),
        (_say("size", value=None), "check size is called passed"),
        (_say("superiority", status="not_applicable"), "these checks must apply: superiority"),
        (_say("superiority", value=0.3), "not the one that was checked"),
        (lambda document: _margin_of(document, -5.0), "check superiority is called passed"),
        (_with("difference", "confidence", 0.01), "confidence 0.01"),
        (_with("difference", "low", 9.0), "expected its lower end first"),
        (_with("off_policy", "status", "failed"), "its section is failed"),
        (_with("off_policy", None), "the off-policy section is missing"),
        (_with("slices", []), "check slices is passed, its slices say otherwise"),
        (_with("slices", 0, "difference", "low", -5.0), "is not within its margin"),
        (_with("slices", 0, "margin", 5.0), "has the margin 5.0"),
        (_with("slices", 0, "users", 1), "of 1 users is called passed"),
        (_say("anchor", status="passed"), "there is no anchor"),
        (_with("anchor", ANCHOR.model_dump()), "not about the anchor's interval"),
    ],
)
def test_a_yes_that_its_own_numbers_deny_is_refused(tmp_path, document, change, message):
    change(document)
    with pytest.raises(ModelRefused, match="malformed") as refusal:
        v.load_verdict(write(tmp_path, document), "evaluation")
    assert message in str(refusal.value)


def test_an_anchor_that_may_lose_more_than_its_margin_is_no_yes(tmp_path):
    columns = rewards(0.5, 0.2)
    promoted = decide(columns | {"anchor": columns["champion"]}, anchor=ANCHOR)
    document = json.loads(v.to_json(promoted))
    assert promoted.decision == "promote" and v.load_verdict(write(tmp_path, document), "evaluation") == promoted
    document["anchor_difference"]["low"] = _check(document, "anchor")["value"] = -5.0
    with pytest.raises(ModelRefused, match="the anchor may lose 5"):
        v.load_verdict(write(tmp_path, document), "evaluation")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"version": "9"}, "version 8, expected 9"),
        ({"weights_sha256": "c" * 64}, "weights"),
        ({"name": "another"}, "model goalrank-ranker, expected another"),
    ],
)
def test_a_verdict_about_another_model_is_refused(found, message):
    promoted = decide(rewards(0.5, 0.2))
    v.require_about(promoted, CHALLENGER, **NIGHT)
    with pytest.raises(ModelRefused, match=message):
        v.require_about(promoted, CHALLENGER.model_copy(update=found), **NIGHT)


@pytest.mark.parametrize("other", [{"snapshot_id": "s2"}, {"date": "2026-01-09"}])
def test_a_verdict_about_another_night_is_refused(other):
    with pytest.raises(ModelRefused, match="something else"):
        v.require_about(decide(rewards(0.5, 0.2)), CHALLENGER, **{**NIGHT, **other})
