"""15. A verdict missing, malformed, or about something else -> refused, by the gate and by the promotion itself."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from components import registry
from components.gate_promotion.main import gate
from components.promote_model.main import run as promote
from goalrank.errors import EXIT_MODEL_REFUSED, ModelRefused
from goalrank.verdict import FORMAT, MAX_AGE_HOURS, to_json
from tests.components.graded_night import shared_night
from tests.verdicts import passing


def change(**fields):
    return lambda text: json.dumps(json.loads(text) | fields)


def judged(hours_ago):
    at = datetime.now(UTC) - timedelta(hours=hours_ago)
    return change(judged_at=at.strftime("%Y-%m-%dT%H:%M:%SZ"))


def model(**fields):
    return lambda text: change(model=json.loads(text)["model"] | fields)(text)


def checks(edit):
    def changed(text):
        document = json.loads(text)
        document["checks"] = edit(document["checks"])
        return json.dumps(document)

    return changed


SPOILT = {
    "missing": lambda text: None,
    "empty": lambda text: "",
    "cut in half": lambda text: text[: len(text) // 2],
    "no object": lambda text: "[]",
    "a NaN in it": lambda text: text.replace('"reason"', '"more": NaN, "reason"', 1),
    "a key twice": lambda text: text.replace('"reason"', '"reason": "no", "reason"', 1),
    "a field too many": change(approved_by="me"),
    "of an older release": change(format=FORMAT - 1),
    "judged too long ago": judged(hours_ago=MAX_AGE_HOURS + 1),
    "judged in the future": judged(hours_ago=-24),
    "judged on no day": change(judged_at="2026-02-30T00:00:00Z"),
    "of the other kind": lambda text: text.replace('"evaluation"', '"x"').replace('"serving"', '"evaluation"'),
    "an unknown decision": change(decision="yes"),
    "without checks": change(checks=[]),
    "a failed check under a yes": checks(lambda all_: [all_[0] | {"status": "failed"}, *all_[1:]]),
    "an inconclusive check under a yes": checks(lambda all_: [all_[0] | {"status": "inconclusive"}, *all_[1:]]),
    "of another version": model(version="99"),
    "of other weights": model(weights_sha256="f" * 64),
    "of another model": model(name="another"),
    "of another snapshot": change(snapshot_id="another"),
    "of another date": change(date="2025-12-31"),
}
EVALUATION_ONLY = {
    f"without the check {name}": checks(lambda all_, name=name: [check for check in all_ if check["name"] != name])
    for name in ("finite", "users", "floor", "superiority", "slices", "anchor", "off_policy", "latency", "size")
} | {
    "against no champion": change(champion=None),
    "without a difference": change(difference=None),
    "without thresholds": change(thresholds={}),
    "judged by thresholds of its own": lambda text: change(
        thresholds=json.loads(text)["thresholds"] | {"superiority": -100.0}
    )(text),
    "a check passed that its numbers fail": checks(
        lambda all_: [check | ({"value": -5.0} if check["name"] == "floor" else {}) for check in all_]
    ),
    "superiority that does not apply": checks(
        lambda all_: [
            check | ({"status": "not_applicable"} if check["name"] == "superiority" else {}) for check in all_
        ]
    ),
    "without a look at any slice": change(slices=[]),
    "without the off-policy section": change(off_policy=None),
}
SERVING_ONLY = {
    "without the check equal_lists": checks(lambda all_: [one for one in all_ if one["name"] != "equal_lists"]),
    "lists that differed, called passed": checks(lambda all_: [one | {"value": 5.0} for one in all_]),
}


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A night that deserves its promotion: real evaluation, champion good, challenger better."""
    folder, graded = tmp_path_factory.mktemp("promotable"), shared_night()
    graded.crown("good")
    evaluated = graded.evaluate(folder, "better")
    assert evaluated.verdict.decision == "promote"
    ranker = registry.registered_identity(evaluated.registration, "ranker")
    serving = passing(ranker, evaluated.registration["snapshot_id"], evaluated.registration["date"])
    return graded, evaluated, (folder / "verdict").read_text(), to_json(serving)


@pytest.fixture(scope="module")
def refused():
    """What was refused so far, for the point's one line."""
    return []


@pytest.mark.parametrize(
    ("which", "how"),
    [(kind, how) for kind in ("evaluation", "serving") for how in SPOILT]
    + [("evaluation", how) for how in EVALUATION_ONLY]
    + [("serving", how) for how in SERVING_ONLY],
)
def test_no_gate_opens_and_no_alias_moves(night, tmp_path, refused, which, how):
    graded, evaluated, evaluation, serving = night
    graded.forget()
    champion = graded.crown("good")
    texts = {"evaluation": evaluation, "serving": serving}
    texts[which] = (SPOILT | EVALUATION_ONLY | SERVING_ONLY)[how](texts[which])
    for name, text in texts.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    paths = {"evaluation": str(tmp_path / "evaluation"), "serving": str(tmp_path / "serving")}
    paths |= {"registration": evaluated.arguments["registration"], "run_uri": str(tmp_path / "run")}
    for step, call in (
        ("gate_promotion", lambda: gate(**paths)),
        (
            "promote_model",
            lambda: promote(
                **paths,
                tracking_uri=graded.tracking_uri,
                journal_uri=str(tmp_path / "journal"),
                date=graded.inputs.date,
            ),
        ),
    ):
        with pytest.raises(ModelRefused):
            call()
        outcome = json.loads((tmp_path / f"run/outcomes/{step}.json").read_text())
        assert outcome["exit_code"] == EXIT_MODEL_REFUSED
    assert registry.champion(graded.client).version == champion
    refused.append(f"{which} verdict {how}")


def test_left_alone_the_same_verdicts_promote(night, tmp_path, seen, refused):
    """So that it was the fault, each time, that was refused."""
    graded, evaluated, evaluation, serving = night
    graded.forget()
    graded.crown("good")
    (tmp_path / "evaluation").write_text(evaluation)
    (tmp_path / "serving").write_text(serving)
    paths = {"evaluation": str(tmp_path / "evaluation"), "serving": str(tmp_path / "serving")}
    paths |= {"registration": evaluated.arguments["registration"], "run_uri": str(tmp_path / "run")}
    assert gate(**paths) is True
    promote(**paths, tracking_uri=graded.tracking_uri, journal_uri=str(tmp_path / "journal"), date=graded.inputs.date)
    assert registry.champion(graded.client).version == graded.version("better")
    told = f"{len(refused)} spoilt verdicts (the first: {', '.join(refused[:5])})"
    seen(told, f"exit {EXIT_MODEL_REFUSED} from gate and promotion each time, champion unmoved; unspoilt they promote")
