"""The night on the cluster's stores is the night on one machine: same features, same verdict, weights but for rounding.

MLflow on PostgreSQL and S3, Feast on Spark, Redis and PostgreSQL, Spark on a master and two workers of which one is
killed while it works, the ranker trained by two processes; all of it on loopback, by settings alone (conftest.py).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from components.extract_features.snapshots import Snapshot
from goalrank import schema
from goalrank.checkpoint import WEIGHTS, read_model_card
from goalrank.processes import TOLERANCE
from goalrank.simulator.world import FIRST_ITEM_ID, FIRST_USER_ID
from tests.column.conftest import NIGHTS, PROCESSES, Column, Nights
from tests.pipeline.conftest import outcomes
from tests.sampled_lists import tolerance_of

pytestmark = pytest.mark.timeout(3600 * NIGHTS)  # all nights are run by whichever test comes first


def rows_of(nights: Nights, night: int) -> dict[str, pa.Table]:
    """Every table of a night's snapshot, rows in one order."""
    snapshot = Snapshot.load(nights.artifact(night, "extract-features", "snapshot"))
    views = {
        name: snapshot.read_view(name).sort_by(
            [(column, "ascending") for column in (view.entity, "event_timestamp", "created_timestamp")]
        )
        for name, view in schema.FEATURE_VIEWS.items()
    }
    return {**views, "examples": snapshot.read_examples()}


def weights_of(nights: Nights, night: int, step: str, name: str) -> str:
    """SHA-256 of a model's weights, as its card has it."""
    return str(read_model_card(nights.artifact(night, step, name))["weights_sha256"])


def lists_of(nights: Nights, night: int) -> pa.Table:
    """What challenger, champion and retriever answered to every evaluation request."""
    return pq.read_table(nights.artifact(night, "evaluate-ranker", "lists"))


def online(nights: Nights) -> dict[str, pa.Table]:
    """What the online store that the environment names holds of every user and item, and of ids that none has."""
    from components.feature_store import online_rows, open_store

    store = open_store(str(nights.workspace / "feast"))
    first = {"user_id": FIRST_USER_ID, "item_id": FIRST_ITEM_ID}
    return {entity: online_rows(store, entity, range(start - 1, start + 600)) for entity, start in first.items()}


def largest_difference(one: Path, other: Path) -> float:
    """Of any weight of two models of the same architecture."""
    left, right = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert left.keys() == right.keys()
    return max(float((right[name] - weight).abs().max()) for name, weight in left.items())


def test_a_worker_was_lost_while_features_were_extracted(clustered: Nights, column: Column) -> None:
    assert column.spark.workers[0].poll() is not None
    assert outcomes(clustered.results[0])["extract_features"]["kind"] == "done"
    assert "Lost executor" in (clustered.folder(0) / "pipeline.log").read_text()


@pytest.mark.parametrize("night", range(NIGHTS))
def test_the_same_features(embedded: Nights, clustered: Nights, night: int) -> None:
    one, other = embedded.results[night], clustered.results[night]
    assert other["snapshot_id"] == one["snapshot_id"]
    modes = [outcomes(result)["extract_features"]["figures"]["mode"] for result in (one, other)]
    assert modes == ["incremental" if night else "full"] * 2
    expected, found = rows_of(embedded, night), rows_of(clustered, night)
    assert expected["examples"].num_rows > 1000
    assert [name for name in expected if not found[name].equals(expected[name])] == []


@pytest.mark.parametrize("night", range(NIGHTS))
def test_feast_gives_the_same_training_set(embedded: Nights, clustered: Nights, night: int) -> None:
    for table in ("examples", "users", "items"):
        one, other = (
            pq.read_table(nights.artifact(night, "materialize-features", "training_set") / f"{table}.parquet")
            for nights in (embedded, clustered)
        )
        assert other.equals(one), table


def on_the_column(column: Column, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process is told to use the cluster's stores."""
    for name, value in column.environment().items():
        monkeypatch.setenv(name, value)


def test_redis_holds_what_sqlite_does(
    embedded: Nights, clustered: Nights, column: Column, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = online(embedded)
    on_the_column(column, monkeypatch)
    found = online(clustered)
    for entity, rows in expected.items():
        known = rows.num_rows - rows["attributes" if entity == "user_id" else "title"].null_count
        assert 100 < known < rows.num_rows
        assert found[entity].equals(rows), entity
    modes = [outcomes(result)["materialize_features"]["figures"]["online"]["mode"] for result in clustered.results]
    assert modes == ["all_rows", *["new_rows"] * (NIGHTS - 1)]


def test_a_mended_row_replaces_the_one_of_the_same_time(
    clustered: Nights, column: Column, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day that is rebuilt has the times of the rows that are online; Feast's Redis store would keep the old ones."""
    from feast.infra.provider import get_provider
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    from components.feature_store import online_rows, open_store

    on_the_column(column, monkeypatch)
    store = open_store(str(clustered.workspace / "feast"))
    key = EntityKey(join_keys=["item_id"], entity_values=[Value(int64_val=10**9)])
    for title in ("as it was", "mended"):
        row = (key, {"title": Value(string_val=title)}, datetime(2026, 1, 5, tzinfo=UTC), None)
        view = store.get_feature_view(schema.ITEM_CONTENT.name)
        get_provider(store.config).online_write_batch(store.config, view, [row], lambda written: None)
        assert online_rows(store, "item_id", [10**9])["title"].to_pylist() == [title]


@pytest.mark.parametrize("night", range(NIGHTS))
def test_two_processes_train_the_same_ranker_but_for_rounding(
    embedded: Nights, clustered: Nights, night: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("reward_model", "judge_model"):  # trained by one process in both
        assert weights_of(clustered, night, "train-reward", model) == weights_of(embedded, night, "train-reward", model)
    assert outcomes(embedded.results[night])["train_ranker"]["figures"]["processes"] == 1
    assert outcomes(clustered.results[night])["train_ranker"]["figures"]["processes"] == PROCESSES
    one, other = (nights.artifact(night, "train-ranker", "ranker") for nights in (embedded, clustered))
    difference, tolerance = largest_difference(one, other), tolerance_of(one, other)
    with capsys.disabled():
        parted = "same lists sampled" if tolerance == TOLERANCE else "after a tie"
        print(f"\nnight {night + 1}: largest difference of a weight {difference:.2g} ({parted}: below {tolerance:g})")
    assert difference < tolerance


@pytest.mark.parametrize("night", range(NIGHTS))
def test_the_same_verdict(embedded: Nights, clustered: Nights, night: int) -> None:
    one, other = embedded.results[night], clustered.results[night]
    assert (other["verdict"], other["exit_code"]) == (one["verdict"], one["exit_code"]), other["reason"]
    assert other["exit_code"] == 0, other["reason"]
    assert other["model_version"] == one["model_version"]
    said = [
        {check["name"]: check["status"] for check in json.loads(path.read_text())["checks"]}
        for path in (nights.artifact(night, "evaluate-ranker", "verdict") for nights in (embedded, clustered))
    ]
    assert said[1] == said[0]


@pytest.mark.parametrize("night", range(NIGHTS))
def test_the_same_requests_judged_by_the_same_judge(
    embedded: Nights, clustered: Nights, night: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The retriever's lists and their rewards are equal; the rankers' differ where rounding has decided a near tie."""
    one, other = lists_of(embedded, night), lists_of(clustered, night)
    fixed = ["request_id", "retriever", "retriever_reward"]
    assert other.select(fixed).equals(one.select(fixed))
    pairs = zip(one["challenger"].to_pylist(), other["challenger"].to_pylist(), strict=True)
    with capsys.disabled():
        print(f"\nnight {night + 1}: {sum(a == b for a, b in pairs)} of {one.num_rows} lists of the challenger equal")


def test_versions_lie_in_postgres_and_files_in_s3(clustered: Nights, column: Column) -> None:
    import psycopg

    with psycopg.connect(column.databases.mlflow) as database:
        named = database.execute("SELECT name, version FROM model_versions").fetchall()
        aliases = database.execute("SELECT alias, version FROM registered_model_aliases WHERE name = 'goalrank-ranker'")
        champion = dict(aliases.fetchall())["champion"]
    assert {(name, 1 + night) for name in ("goalrank-ranker", "goalrank-reward") for night in range(NIGHTS)} <= set(
        named
    )
    promoted = [result["model_version"] for result in clustered.results if result["verdict"] == "promoted"]
    assert str(champion) == promoted[-1]
    assert any(key.endswith("model/weights.safetensors") for key in column.bucket.objects())
    assert not (clustered.workspace / "mlflow").exists()


def test_the_registry_of_features_lies_in_postgres(clustered: Nights, column: Column) -> None:
    import psycopg

    with psycopg.connect(column.databases.feast.replace("+psycopg", "")) as database:
        views = {name for (name,) in database.execute("SELECT feature_view_name FROM feature_views").fetchall()}
    assert views == set(schema.FEATURE_VIEWS)
    left = {path.name for path in (clustered.workspace / "feast").iterdir()}
    assert left == {"offline", "online.json"}, "no database of files, nothing left of what Spark staged"


def test_no_password_is_written_down(clustered: Nights, column: Column) -> None:
    secrets = [column.redis.partition("password=")[2], column.databases.feast.split(":")[2].partition("@")[0]]
    for file in clustered.workspace.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), file
