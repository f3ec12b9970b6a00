"""19. Zero, NaN or > 1 propensities -> refused; none at all -> not applicable; too little overlap -> inconclusive."""

import json
import math
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import registry
from goalrank.errors import EXIT_DATA_REFUSED, DataRefused
from goalrank.off_policy import MINIMUM_ESS
from goalrank.verdict import load_verdict
from tests.components.graded_night import shared_night
from tests.components.test_check_logs import DAYS, a_list, clean_logs, outcome_of, write
from tests.components.test_check_logs import night as check_logs

BAD = {"zero": 0.0, "NaN": math.nan, "above 1": 1.5}


def test_the_logs_gate_refuses_them(tmp_path, seen):
    """Great Expectations on Spark, the first step of a night."""
    clean_logs(tmp_path / "logs", DAYS[:1])
    spoilt = dict(zip("abc", BAD.values(), strict=True))
    impressions = [
        row
        for name in "abcdef"
        for row in a_list(f"{DAYS[0]}-{name}", {2: {"propensity": spoilt[name]}} if name in spoilt else None)
    ]
    write(tmp_path / "logs", "impressions", DAYS[0], impressions)
    with pytest.raises(DataRefused) as refused:
        check_logs(tmp_path, DAYS[0])
    told = str(refused.value)
    assert "propensity null or in (0, 1], never 0 or NaN" in told
    for name in spoilt:
        assert f"request_id={DAYS[0]}-{name} position=2" in told
    assert outcome_of(tmp_path)["exit_code"] == EXIT_DATA_REFUSED
    seen("check_logs on impressions with propensity 0, NaN and 1.5", f"exit {EXIT_DATA_REFUSED}, all three rows named")


@pytest.fixture
def night():
    """Three registered rankers, "good" being champion; "better" is the challenger whom nothing else stands against."""
    graded = shared_night()
    graded.crown("good")
    return graded


def with_propensities(night, folder, of_list):
    """The night's training set with other propensities: of_list(number, propensities) of each evaluation list."""
    shutil.copytree(night.inputs.folder / "training_set", folder)
    examples = pq.read_table(folder / "examples.parquet")
    lists = examples.column("propensities").to_pylist()
    for number, row in enumerate(night.inputs.data.evaluation_indices()):
        lists[row] = of_list(number, lists[row])
    field = examples.schema.field("propensities")
    changed = examples.set_column(examples.column_names.index(field.name), field, pa.array(lists, field.type))
    pq.write_table(changed, folder / "examples.parquet")
    return str(folder)


@pytest.mark.parametrize("beside", [list, lambda given: [None] * len(given)], ids=["known ones", "unknown ones"])
@pytest.mark.parametrize("bad", BAD)
def test_the_evaluation_refuses_them_too(night, tmp_path, seen, bad, beside):
    """Features that were not made from checked logs: no verdict, so nothing that a promotion could rest on."""
    training_set = with_propensities(
        night, tmp_path / "set", lambda number, given: [BAD[bad], *beside(given[1:])] if number == 0 else beside(given)
    )
    with pytest.raises(DataRefused, match="logged propensities: 1 .*expected probabilities in"):
        night.evaluate(tmp_path, "better", training_set=training_set)
    outcome = json.loads((tmp_path / "run/outcomes/evaluate_ranker.json").read_text())
    assert outcome["exit_code"] == EXIT_DATA_REFUSED
    assert not (tmp_path / "verdict").exists()
    assert registry.champion(night.client).version == night.version("good")
    seen(
        f"evaluate_ranker on one propensity that is {bad}", f"exit {EXIT_DATA_REFUSED}, no verdict, champion untouched"
    )


def off_policy_of(verdict):
    return next(check for check in verdict.checks if check.name == "off_policy")


@pytest.mark.parametrize("setting", ["required", "veto"])
def test_none_at_all_are_not_applicable_and_the_verdict_says_so(night, tmp_path, seen, setting):
    training_set = with_propensities(night, tmp_path / "set", lambda number, given: None)
    evaluation = night.evaluate(tmp_path, "better", training_set=training_set, off_policy=setting)
    check = off_policy_of(evaluation.verdict)
    assert (evaluation.verdict.decision, check.status) == ("promote", "not_applicable")
    assert "logged lists has propensities" in check.detail
    assert evaluation.figures["off_policy"]["status"] == "not_applicable"
    seen(f"a better challenger, no propensities, off_policy={setting}", f"promote, not applicable: {check.detail}")


def test_lists_that_are_known_in_part_are_no_reason_to_promote(night, tmp_path, seen):
    training_set = with_propensities(night, tmp_path / "set", lambda number, given: [*given[:-1], None])
    kept = night.evaluate(tmp_path, "better", training_set=training_set, off_policy="required").verdict
    assert (kept.decision, off_policy_of(kept).status) == ("keep", "inconclusive")
    seen("the same, each list's last propensity unknown", "inconclusive: champion kept")


def test_too_little_overlap_is_never_a_reason_to_promote(night, tmp_path, seen):
    """All weight on one list: propensities of 1 everywhere else."""
    training_set = with_propensities(
        night, tmp_path / "set", lambda number, given: [1e-6 if number % 40 == 0 else 1.0] * len(given)
    )
    kept = night.evaluate(tmp_path, "better", training_set=training_set, off_policy="required").verdict
    check = off_policy_of(kept)
    assert (kept.decision, check.status) == ("keep", "inconclusive")
    worth = kept.off_policy.estimates["difference"].effective_sample_size
    assert worth < MINIMUM_ESS
    assert "off_policy" in kept.reason
    assert load_verdict(tmp_path / "verdict", "evaluation").decision == "keep"
    seen(f"the same, effective sample size {worth:.1f} of at least {MINIMUM_ESS:g}", "inconclusive: champion kept")
