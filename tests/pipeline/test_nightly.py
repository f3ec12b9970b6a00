"""The night whole, twice: bootstrap, then challenger against champion. Real Spark, GE, Feast, torch, MLflow, kfp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import STEPS
from tests.pipeline.conftest import goalrank, outcomes, run_night
from tests.unit.test_command_line import PROMISED_KEYS
from tests.webhook import Webhook


def lists_of(result: dict[str, Any]) -> pa.Table:
    """What challenger, champion and retriever answered to every evaluation request of a night."""
    (folder,) = Path(result["report"]).parent.glob("artifacts/*/evaluate-ranker/lists")
    return pq.read_table(folder)


def test_no_first_champion_without_leave(without_leave: dict[str, Any]) -> None:
    assert (without_leave["verdict"], without_leave["exit_code"]) == ("refused", 4)
    assert "allow_bootstrap" in without_leave["reason"]
    steps = outcomes(without_leave)
    assert "gate_promotion" not in steps
    assert "promote_model" not in steps
    assert Path(without_leave["report"]).is_file()


def test_first_night_promotes_by_bootstrap(without_leave: dict[str, Any], first_night: dict[str, Any]) -> None:
    assert (first_night["verdict"], first_night["exit_code"]) == ("promoted", 0), first_night["reason"]
    assert first_night.keys() >= PROMISED_KEYS
    assert [stage["name"] for stage in first_night["stages"]] == list(STEPS)
    assert first_night["metrics"]["champion"] is None
    assert first_night["snapshot_id"] == without_leave["snapshot_id"]
    assert first_night["date"] == without_leave["date"], "a refused date is tried again"
    assert Path(first_night["report"]).is_file()


def test_the_webhook_hears_of_the_refused_night_and_of_the_promoted_one(
    webhook: Webhook, without_leave: dict[str, Any], first_night: dict[str, Any]
) -> None:
    told = [(said["date"], said["verdict"], said["exit_code"], said["report"]) for said in webhook.posted]
    assert told == [
        (night["date"], night["verdict"], night["exit_code"], night["report"]) for night in (without_leave, first_night)
    ]
    assert "allow_bootstrap" in str(webhook.posted[0]["text"])


def test_an_interrupted_night_can_be_resumed(interrupted: dict[str, Any]) -> None:
    assert (interrupted["exit_code"], interrupted["returncode"]) == (75, 75)
    assert "train_reward" in interrupted["reason"]
    assert "goalrank resume" in interrupted["reason"]


def test_resume_goes_on_from_the_step_that_did_not_end(second_night: dict[str, Any]) -> None:
    said = (Path(second_night["report"]).parent / "progress.jsonl").read_text().splitlines()
    begun = [event["step"] for event in map(json.loads, said) if event["event"] == "start"]
    assert begun.count("train_reward") == 2
    assert [begun.count(step) for step in STEPS[:4]] == [1, 1, 1, 1]


def test_second_night_rescores_the_champion_on_the_same_snapshot(
    first_night: dict[str, Any], second_night: dict[str, Any]
) -> None:
    assert second_night["exit_code"] == 0, second_night["reason"]
    assert second_night["date"] > first_night["date"]
    assert second_night["snapshot_id"] != first_night["snapshot_id"]
    metrics = second_night["metrics"]
    assert metrics["champion"] is not None
    assert metrics["champion"].keys() == metrics["challenger"].keys()


def test_promotion_ran_exactly_when_the_gate_said_yes(second_night: dict[str, Any]) -> None:
    steps = outcomes(second_night)
    said_yes = steps["gate_promotion"]["figures"]["promote"]
    assert ("promote_model" in steps) is said_yes
    assert second_night["verdict"] == ("promoted" if said_yes else "kept")


def test_the_same_date_again_changes_nothing(second_night: dict[str, Any], again: dict[str, Any]) -> None:
    """Same input, same seed: same snapshot though rebuilt from all days, same weights, same lists; one promotion."""
    assert (again["verdict"], again["exit_code"]) == ("kept", 0), again["reason"]
    assert again["snapshot_id"] == second_night["snapshot_id"]
    assert again["model_version"] == second_night["model_version"]
    assert lists_of(again).equals(lists_of(second_night))
    steps = outcomes(again)
    assert steps["extract_features"]["figures"]["mode"] == "full"
    assert "promote_model" not in steps


def test_second_night_reads_only_the_new_day(second_night: dict[str, Any]) -> None:
    figures = outcomes(second_night)["extract_features"]["figures"]
    assert figures["mode"] == "incremental"
    assert {read.rsplit("=", 1)[1] for read in figures["read"]} == {second_night["date"]}


def test_aliases_in_mlflow(workspace: Path, first_night: dict[str, Any], second_night: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    database = f"sqlite:///{workspace}/mlflow/mlflow.db"
    # Both by name: another test of this process may have set MLflow's own default registry.
    client = MlflowClient(tracking_uri=database, registry_uri=database)
    champion = client.get_model_version_by_alias("goalrank-ranker", "champion")
    challenger = client.get_model_version_by_alias("goalrank-ranker", "challenger")
    newest = second_night if second_night["verdict"] == "promoted" else first_night
    assert str(champion.version) == newest["model_version"]
    assert str(challenger.version) == second_night["model_version"]
    assert champion.tags.keys() >= {"run", "snapshot_id", "commit", "data_window", "weights_sha256", "preset", "seed"}
    assert client.get_model_version_by_alias("goalrank-reward", "champion")


def test_rank_answers_with_the_champion(workspace: Path, second_night: dict[str, Any]) -> None:
    done = goalrank("rank", "--workspace", str(workspace), "--example")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(set(answer["items"])) == len(answer["items"]) == 6
    assert answer["fallback"] is None


def test_refused_data_stops_the_night(workspace: Path, again: dict[str, Any]) -> None:
    """The next day arrives with the column `click` renamed: exit 3, nothing downstream, champion untouched."""
    from goalrank import simulator

    logs = workspace / "logs"
    config = simulator.load_world(str(logs))
    day = simulator.day_number(config, again["date"]) + 1
    simulator.write_days(config, day, 1, str(logs))
    newest = max((logs / "impressions").iterdir())
    (file,) = newest.glob("*.parquet")
    whole = file.read_bytes()
    table = pq.read_table(file, partitioning=None)
    pq.write_table(table.rename_columns([{"click": "clicked"}.get(c, c) for c in table.column_names]), file)
    try:
        refused = run_night(workspace)
        assert (refused["verdict"], refused["exit_code"]) == ("refused", 3)
        assert "click" in refused["reason"]
        assert [stage["name"] for stage in refused["stages"]] == [STEPS[0], STEPS[-1]]
        assert Path(refused["report"]).is_file()
    finally:
        file.write_bytes(whole)
    again = json.loads(goalrank("rank", "--workspace", str(workspace), "--example").stdout)
    assert again["model_version"] is not None


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--date", "tomorrow"], "expected a day such as"),
        (["--preset", "huge"], "huge"),
        (["--logs", "elsewhere"], "use another --workspace"),
    ],
)
def test_wrong_usage_starts_nothing(workspace: Path, first_night: dict[str, Any], flags: list[str], found: str) -> None:
    before = sorted((workspace / "nights").rglob("night.json"))
    done = goalrank("nightly", "--workspace", str(workspace), *flags)
    assert done.returncode == 2
    assert found in done.stderr
    assert sorted((workspace / "nights").rglob("night.json")) == before
