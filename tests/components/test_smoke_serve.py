"""smoke_serve on real Feast and MLflow: a fresh process answers, and every way to be wrong is refused."""

import json
import shutil
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import registry
from components.materialize_features.main import run as materialize
from components.register_model.main import run as register
from components.serve_model.bodies import ISSUED_PREFIX
from components.smoke_serve import main, offline
from components.smoke_serve.main import invalid, run
from goalrank.errors import ModelRefused, ServingRefused, TryAgain
from goalrank.verdict import load_verdict, require_about
from tests.components.tiny_snapshot import write_snapshot
from tests.components.untrained_models import NightInputs, random_ranker

LAST, DAYS, REQUESTS = "2026-01-04", 2, 8


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A materialised night with a registered ranker: its folder and tracking URI."""
    folder = tmp_path_factory.mktemp("night")
    artifact = write_snapshot(folder / "snapshots", LAST, DAYS)
    materialize(str(artifact), str(folder / "feast"), str(folder / "training_set"), DAYS, str(folder / "run"))
    inputs = NightInputs(folder, made=True)
    shutil.copy(artifact, folder / "snapshot")
    inputs.save("ranker", random_ranker(4), "ranker")
    tracking_uri = f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
    register(**inputs.registration_arguments("ranker", tracking_uri))
    return inputs, tracking_uri


@pytest.fixture
def arguments(night, tmp_path):
    inputs, tracking_uri = night
    return {
        "registration": str(inputs.folder / "registration-ranker"),
        "snapshot": str(inputs.folder / "snapshot"),
        "training_set": str(inputs.folder / "training_set"),
        "feast_uri": str(inputs.folder / "feast"),
        "tracking_uri": tracking_uri,
        "verdict": str(tmp_path / "verdict"),
        "run_uri": str(tmp_path / "run"),
        "requests": REQUESTS,
    }


def verdict(arguments):
    return load_verdict(arguments["verdict"], "serving")


def failed(arguments) -> list[str]:
    return [check.name for check in verdict(arguments).checks if not check.passed]


def test_a_sound_version_passes_and_the_verdict_names_it(arguments):
    run(**arguments)
    passed = verdict(arguments)
    assert (passed.decision, passed.requests) == ("pass", REQUESTS)
    registration = registry.read_registration(arguments["registration"])
    model = registry.registered_identity(registration, "ranker")
    require_about(passed, model, registration["snapshot_id"], LAST)
    figures = json.loads((Path(arguments["run_uri"]) / "outcomes/smoke_serve.json").read_text())["figures"]
    assert figures["served_p50_ms"] > 0


def test_requests_to_which_the_service_gave_their_ids_are_asked_too(arguments, tmp_path):
    """Served traffic comes back as logs; a client may not send such an id, and none did."""
    training_set = tmp_path / "training_set"
    shutil.copytree(arguments["training_set"], training_set)
    examples = pq.read_table(training_set / "examples.parquet")
    issued = pa.array([f"{ISSUED_PREFIX}{name}" for name in examples["request_id"].to_pylist()])
    renamed = examples.set_column(examples.schema.get_field_index("request_id"), "request_id", issued)
    pq.write_table(renamed, training_set / "examples.parquet")
    run(**arguments | {"training_set": str(training_set)})
    assert (verdict(arguments).decision, verdict(arguments).requests) == ("pass", REQUESTS)


def test_features_that_differ_online_are_refused_and_named(arguments, night, tmp_path):
    """One night's work undone behind Feast's back: the online store's item statistics are emptied."""
    feast = tmp_path / "feast"
    shutil.copytree(arguments["feast_uri"], feast)
    (database,) = [path for path in feast.rglob("*.db") if b"item_stats" in path.read_bytes() and "online" in path.name]
    with sqlite3.connect(database) as connection:
        (table,) = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if name.endswith("item_stats")
        ]
        connection.execute(f'DELETE FROM "{table}"')
    with pytest.raises(ServingRefused, match="equal_features"):
        run(**arguments | {"feast_uri": str(feast)})
    assert verdict(arguments).decision == "refuse"
    assert "equal_features" in failed(arguments)
    outcome = json.loads((Path(arguments["run_uri"]) / "outcomes/smoke_serve.json").read_text())
    assert (outcome["kind"], outcome["exit_code"]) == ("serving_refused", 5)


def test_a_list_other_than_offline_is_refused(arguments, monkeypatch):
    real = offline.lists_of
    monkeypatch.setattr(offline, "lists_of", lambda *given: [real(*given)[0][::-1], *real(*given)[1:]])
    with pytest.raises(ServingRefused, match="equal_lists"):
        run(**arguments)
    assert failed(arguments) == ["equal_lists"]


def test_damaged_weights_in_the_store_are_refused(arguments, night, tmp_path):
    inputs, tracking_uri = night
    store = Path(tracking_uri.removeprefix("sqlite:///")).parent
    registration = registry.read_registration(arguments["registration"])
    (weights,) = [
        path
        for path in store.rglob("weights.safetensors")
        if "artifacts/artifacts" in path.as_posix()
        and registry.file_sha256(path) == registration["ranker"]["weights_sha256"]
    ]
    sound = weights.read_bytes()
    try:
        weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        with pytest.raises(ServingRefused, match="SHA-256"):
            run(**arguments)
        assert failed(arguments) == ["served"]
    finally:
        weights.write_bytes(sound)


def test_a_request_the_service_cannot_take_is_refused(arguments, monkeypatch):
    real = offline.logged_requests

    def with_a_repeated_candidate(*given):
        requests = real(*given)
        requests[0]["candidates"][1] = requests[0]["candidates"][0]
        return requests

    monkeypatch.setattr(offline, "logged_requests", with_a_repeated_candidate)
    with pytest.raises(ServingRefused, match="expected distinct items"):
        run(**arguments)
    assert failed(arguments) == ["answered"]


def test_a_process_that_dies_is_refused_and_one_that_hangs_tried_again(arguments, monkeypatch, tmp_path):
    monkeypatch.setattr(main.sys, "executable", "/bin/false")
    with pytest.raises(ServingRefused, match="ended with code 1"):
        run(**arguments)
    assert failed(arguments) == ["served"]
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(main.sys, "executable", str(sleeper))
    monkeypatch.setattr(main, "TIMEOUT_SECONDS", 0.5)
    with pytest.raises(TryAgain, match="no answer within"):
        run(**arguments)


def test_a_day_without_requests_is_refused(arguments, monkeypatch):
    monkeypatch.setattr(offline, "logged_requests", lambda *_: [])
    with pytest.raises(ServingRefused, match="no request of"):
        run(**arguments)
    assert verdict(arguments).requests == 0


def test_a_snapshot_of_another_night_is_refused(arguments, tmp_path):
    other = write_snapshot(tmp_path / "snapshots", LAST, 1, name="other")
    with pytest.raises(ModelRefused, match="artifacts of one night"):
        run(**arguments | {"snapshot": str(other)})


def test_requests_are_of_the_night_spread_over_it_and_always_the_same(arguments):
    chosen = offline.logged_requests(arguments["training_set"], LAST, 5)
    assert chosen == offline.logged_requests(arguments["training_set"], LAST, 5)
    examples = pq.read_table(Path(arguments["training_set"]) / "examples.parquet").to_pylist()
    days = {row["request_id"]: row["dt"] for row in examples}
    assert {days[request["request_id"]] for request in chosen} == {LAST}
    assert len(chosen) == 5
    everything = offline.logged_requests(arguments["training_set"], LAST, 10_000)
    assert len(everything) == sum(day == LAST for day in days.values())


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([1, 2, 3, 4, 5, 6], ""),
        ([1, 2, 3, 4, 5], "5 items, expected 6"),
        ([1, 2, 3, 4, 5, 5], "stands twice"),
        ([1, 2, 3, 4, 5, 99], r"items [99] are not among"),
    ],
)
def test_what_makes_a_list_invalid(items, reason):
    found = invalid(items, list(range(1, 9)))
    assert found == reason if not reason else reason in found


def test_a_short_request_needs_only_what_it_has():
    assert invalid([2, 1], [1, 2]) == ""
