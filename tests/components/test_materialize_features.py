"""materialize_features against a real Feast: file offline store, SQLite online store."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import goalrank_platform
from components.dask_tokens import cheap_list_tokens
from components.feature_store import ENTITIES, offline_rows, online_rows, open_store, views_of
from components.materialize_features.main import run
from components.materialize_features.online import read_record
from goalrank import schema
from goalrank.errors import DataRefused, TryAgain
from tests.components.tiny_snapshot import feature_row, midnight, write_snapshot

USERS, ITEMS, DAYS, LAST = 20, 40, 3, "2026-01-04"


def materialize(tmp_path: Path, artifact: Path, out: str = "training_set", **options: object) -> Path:
    target = tmp_path / out
    run(
        str(artifact),
        str(tmp_path / "feast"),
        str(target),
        options.pop("window_days", DAYS),
        str(tmp_path / "run"),
        **options,
    )
    return target


def outcome(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "run" / "outcomes" / "materialize_features.json").read_text())


def newest(rows: list[dict], key_name: str, key: int, as_of) -> dict | None:
    """The point-in-time join restated: latest row whose event and creation are not after `as_of`."""
    known = [
        row
        for row in rows
        if row[key_name] == key and row["event_timestamp"] <= as_of and row["created_timestamp"] <= as_of
    ]
    return max(known, key=lambda row: (row["event_timestamp"], row["created_timestamp"])) if known else None


def all_rows(artifact: Path, view: schema.FeatureView) -> list[dict]:
    document = json.loads(artifact.read_text())
    folders = [Path(document["root"]) / day["path"] / view.name for day in document["manifest"]["days"]]
    return [row for folder in folders for row in pq.read_table(folder).to_pylist()]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """One materialised night: (folder, snapshot artifact, training set)."""
    folder = tmp_path_factory.mktemp("night")
    artifact = write_snapshot(folder / "snapshots", LAST, DAYS, USERS, ITEMS)
    return folder, artifact, materialize(folder, artifact)


def test_training_set_follows_the_contract(night):
    folder, _, training_set = night
    examples = pq.read_table(training_set / "examples.parquet")
    users, items = (pq.read_table(training_set / f"{name}.parquet") for name in ("users", "items"))
    assert examples.schema.equals(schema.TRAINING_EXAMPLES)
    assert users.schema.equals(schema.training_rows_schema("user_id"))
    assert items.schema.equals(schema.training_rows_schema("item_id"))
    card = json.loads((training_set / "training_set.json").read_text())
    assert card["date"] == LAST and card["days"] == ["2026-01-02", "2026-01-03", LAST]
    order = list(zip(examples["event_time"].to_pylist(), examples["request_id"].to_pylist(), strict=True))
    assert order == sorted(order)
    # Every reference points at the right entity on the right day, and no (entity, day) is there twice.
    user_pairs = list(zip(users["user_id"].to_pylist(), users["as_of"].to_pylist(), strict=True))
    item_pairs = list(zip(items["item_id"].to_pylist(), items["as_of"].to_pylist(), strict=True))
    assert len(set(user_pairs)) == len(user_pairs) and len(set(item_pairs)) == len(item_pairs)
    for row in examples.to_pylist():
        day = row["event_time"].replace(hour=0, minute=0, second=0, microsecond=0)
        assert user_pairs[row["user_row"]] == (row["user_id"], day)
        assert [item_pairs[index] for index in row["candidate_rows"]] == [(item, day) for item in row["candidates"]]
    assert outcome(folder)["figures"]["users_rows"] == users.num_rows


@pytest.mark.parametrize("entity", ["user_id", "item_id"])
def test_features_are_those_known_at_the_midnight_before(night, entity):
    """Every cell against a join restated in plain Python; day one has no feature yet, so unknowns are among them."""
    _, artifact, training_set = night
    table = pq.read_table(training_set / ("users.parquet" if entity == "user_id" else "items.parquet"))
    seen = {True: 0, False: 0}
    for view in schema.USER_VIEWS if entity == "user_id" else schema.ITEM_VIEWS:
        source = all_rows(artifact, view)
        for row in table.to_pylist():
            expected = newest(source, entity, row[entity], row["as_of"])
            seen[expected is not None] += 1
            for field in view.features:
                assert row[field.name] == (expected[field.name] if expected else None), (view.name, field.name, row)
    assert seen[True] and seen[False]


def test_online_rows_equal_offline_rows_at_the_end_of_the_night(night):
    folder, _, _ = night
    store = open_store(str(folder / "feast"))
    for entity, keys in (("user_id", [3, 1, 999, 3]), ("item_id", [*range(ITEMS, 0, -1), 12345])):
        online = online_rows(store, entity, keys)
        offline = offline_rows(store, entity, keys, midnight(LAST, 1))
        assert online.schema == offline.schema == schema.training_rows_schema(entity)
        assert online[entity].to_pylist() == offline[entity].to_pylist() == keys
        assert online.drop_columns(["as_of"]).equals(offline.drop_columns(["as_of"]))
        features = [name for name in online.column_names if name not in (entity, "as_of")]
        unknown = online.to_pylist()[keys.index(999 if entity == "user_id" else 12345)]
        assert all(unknown[name] is None for name in features)
    assert (
        online_rows(store, "user_id", []).num_rows == offline_rows(store, "user_id", [], midnight(LAST)).num_rows == 0
    )


def test_cheap_tokens_do_not_change_the_join(night, monkeypatch):
    import contextlib

    folder, _, _ = night
    store = open_store(str(folder / "feast"))
    keys = [key for key in range(1, USERS + 1) for _ in range(DAYS)]
    times = [midnight(LAST, 1 - back) for _ in range(USERS) for back in range(DAYS)]
    cheap = offline_rows(store, "user_id", keys, times)
    monkeypatch.setattr("components.feature_store.cheap_list_tokens", contextlib.nullcontext)
    assert offline_rows(store, "user_id", keys, times).equals(cheap)


def test_cheap_tokens_tell_arrays_apart_and_leave_dask_as_it_was():
    import numpy as np
    from dask.tokenize import tokenize

    usual = tokenize(np.array([1, "a"], dtype=object))
    with cheap_list_tokens():
        tokens = set()
        for number in range(200):  # memory of dead arrays is reused
            array = np.array([[number], "x"], dtype=object)
            assert tokenize(array) == tokenize(array) == tokenize(array[:])
            assert tokenize(array[:1]) != tokenize(array)
            tokens.add(tokenize(array))
            del array
        assert len(tokens) == 200
    assert tokenize(np.array([1, "a"], dtype=object)) == usual


def test_a_row_created_after_the_event_is_not_joined(tmp_path):
    """Event_timestamp lies before the request's day, creation after it began."""
    late = feature_row(schema.USER_STATS, 1, "2026-01-03", seed=9)
    late |= {"impressions": 777_777, "event_timestamp": midnight("2026-01-04")}
    late["created_timestamp"] = midnight("2026-01-04") + timedelta(seconds=1)
    artifact = write_snapshot(
        tmp_path / "snapshots",
        LAST,
        DAYS,
        USERS,
        ITEMS,
        requests=200,
        extra={("user_stats", "2026-01-03"): [late]},
        skip={("user_stats", "2026-01-03"): {1}},
    )
    rows = pq.read_table(materialize(tmp_path, artifact) / "users.parquet").to_pylist()
    mine = {row["as_of"]: row["impressions"] for row in rows if row["user_id"] == 1}
    assert midnight("2026-01-04") in mine and 777_777 not in mine.values()
    store = open_store(str(tmp_path / "feast"))
    assert offline_rows(store, "user_id", [1], late["created_timestamp"])["impressions"].to_pylist() == [777_777]


def test_a_late_row_reaches_both_stores_on_the_next_run(tmp_path):
    """What arrived on the new day is in both after it; only that is written."""
    first = write_snapshot(tmp_path / "snapshots", "2026-01-03", 2, USERS, ITEMS)
    materialize(tmp_path, first, window_days=2)
    newcomer = feature_row(schema.USER_STATS, 500, "2026-01-04", seed=1) | {"clicks": 4242}
    # Same days as before plus one, in which user 500 appears.
    second = write_snapshot(tmp_path / "snapshots", LAST, DAYS, USERS, ITEMS, extra={("user_stats", LAST): [newcomer]})
    documents = [json.loads(artifact.read_text()) for artifact in (first, second)]
    known = {day["dt"]: day for day in documents[0]["manifest"]["days"]}
    documents[1]["manifest"]["days"] = [known.get(day["dt"], day) for day in documents[1]["manifest"]["days"]][1:]
    second.write_text(json.dumps(documents[1]))
    materialize(tmp_path, second, window_days=2)
    assert outcome(tmp_path)["figures"]["online"]["mode"] == "new_rows"
    store = open_store(str(tmp_path / "feast"))
    assert online_rows(store, "user_id", [500])["clicks"].to_pylist() == [4242]
    assert offline_rows(store, "user_id", [500], midnight(LAST, 1))["clicks"].to_pylist() == [4242]
    assert offline_rows(store, "user_id", [500], midnight(LAST))["clicks"].to_pylist() == [None]


def test_entities_of_the_base_before_the_window_stay_known(tmp_path):
    artifact = write_snapshot(tmp_path / "snapshots", LAST, DAYS, USERS, ITEMS)
    document = json.loads(artifact.read_text())
    first, *document["manifest"]["days"] = document["manifest"]["days"]
    document["manifest"]["base"] = first
    artifact.write_text(json.dumps(document))
    materialize(tmp_path, artifact, window_days=2)
    store = open_store(str(tmp_path / "feast"))
    expected = [feature_row(schema.USER_PROFILE, 1, "2026-01-02", 0)["attributes"]]
    assert offline_rows(store, "user_id", [1], midnight("2026-01-03"))["attributes"].to_pylist() == expected
    assert None not in online_rows(store, "user_id", list(range(1, USERS + 1)))["attributes"].to_pylist()


def test_the_same_date_again_with_fewer_rows_leaves_nothing_stale(tmp_path):
    """An entity that the second run no longer has is unknown afterwards."""
    extra = {("item_content", LAST): [feature_row(schema.ITEM_CONTENT, 900, LAST, seed=1)]}
    materialize(tmp_path, write_snapshot(tmp_path / "a", LAST, DAYS, USERS, ITEMS, extra=extra, name="more"))
    store = open_store(str(tmp_path / "feast"))
    assert online_rows(store, "item_id", [900])["title"].to_pylist() == ["item 900"]
    materialize(tmp_path, write_snapshot(tmp_path / "b", LAST, DAYS, USERS, ITEMS, name="fewer"), "again")
    assert online_rows(store, "item_id", [900])["title"].to_pylist() == [None]
    assert outcome(tmp_path)["figures"]["online"] == {"mode": "all_rows", "emptied": 1}
    assert [folder.name for folder in (tmp_path / "feast" / "offline").iterdir()] == [f"fewer-{LAST}"]


def test_a_materialisation_cut_short_leaves_nothing_stale(tmp_path, monkeypatch):
    """Ended after an item went online that the next run no longer has: that run still empties it."""
    from components.materialize_features import online

    extra = {("item_content", LAST): [feature_row(schema.ITEM_CONTENT, 900, LAST, seed=1)]}
    more = write_snapshot(tmp_path / "a", LAST, DAYS, USERS, ITEMS, extra=extra, name="more")
    with monkeypatch.context() as patched:
        patched.setattr(online, "_differing", lambda *_: sys.exit("killed once everything was written"))
        with pytest.raises(SystemExit):
            materialize(tmp_path, more)
    assert online_rows(open_store(str(tmp_path / "feast")), "item_id", [900])["title"].to_pylist() == ["item 900"]
    materialize(tmp_path, write_snapshot(tmp_path / "b", LAST, DAYS, USERS, ITEMS, name="fewer"), "again")
    assert online_rows(open_store(str(tmp_path / "feast")), "item_id", [900])["title"].to_pylist() == [None]
    assert outcome(tmp_path)["figures"]["online"] == {"mode": "all_rows", "emptied": 1}


@pytest.mark.parametrize("view", list(schema.FEATURE_VIEWS))
def test_a_dropped_view_fails_the_night_and_is_named(tmp_path, view):
    repository = tmp_path / "feature_repo"
    shutil.copytree(goalrank_platform.root() / "feature_repo", repository)
    definitions = repository / "definitions.py"
    kept = [
        line
        for line in definitions.read_text().splitlines()
        if not line.startswith(f"{view} =") and line.strip() != f"{view},"
    ]
    definitions.write_text("\n".join(kept))
    artifact = write_snapshot(tmp_path / "snapshots", LAST, 1, 3, 12, requests=2)
    with pytest.raises(DataRefused, match=rf"does not supply view {view};"):
        materialize(tmp_path, artifact, feature_repo=str(repository))
    assert outcome(tmp_path)["exit_code"] == DataRefused.exit_code
    assert not (tmp_path / "feast" / "registry.db").exists() and not (tmp_path / "training_set").exists()


def test_a_view_whose_definition_alone_is_gone_is_named_too(tmp_path):
    repository = tmp_path / "feature_repo"
    shutil.copytree(goalrank_platform.root() / "feature_repo", repository)
    definitions = repository / "definitions.py"
    lines = definitions.read_text().splitlines()
    definitions.write_text("\n".join(line for line in lines if not line.startswith("item_stats =")))
    artifact = write_snapshot(tmp_path / "snapshots", LAST, 1, 3, 12, requests=2)
    with pytest.raises(DataRefused, match=r"definitions.py cannot be read .*item_stats"):
        materialize(tmp_path, artifact, feature_repo=str(repository))


def test_a_dropped_feature_fails_the_night_and_is_named(tmp_path):
    repository = tmp_path / "feature_repo"
    shutil.copytree(goalrank_platform.root() / "feature_repo", repository)
    definitions = repository / "definitions.py"
    text = definitions.read_text()
    definitions.write_text(text.replace("for feature in view.features]", "for feature in view.features[1:]]"))
    artifact = write_snapshot(tmp_path / "snapshots", LAST, 1, 3, 12, requests=2)
    with pytest.raises(DataRefused, match="feature user_stats:impressions, feature user_history:history_items"):
        materialize(tmp_path, artifact, feature_repo=str(repository))


def test_rows_missing_from_the_snapshot_are_refused(tmp_path):
    artifact = write_snapshot(tmp_path / "snapshots", LAST, 1, 3, 12, requests=2)
    document = json.loads(artifact.read_text())
    document["manifest"]["days"][0]["rows"]["user_stats"] += 1
    artifact.write_text(json.dumps(document))
    with pytest.raises(DataRefused, match="view user_stats holds 3 rows, its manifest says 4"):
        materialize(tmp_path, artifact)
    assert list((tmp_path / "feast" / "offline").iterdir()) == []


def test_an_answer_of_feast_with_rows_missing_is_refused(tmp_path, monkeypatch):
    """Fail closed: features blanked by the join are noticed, whatever the cause."""
    import components.materialize_features.training_set as module

    def forgetful(store, entity, keys, as_of):
        rows = offline_rows(store, entity, keys, as_of)
        if entity != "item_id":
            return rows
        index = rows.schema.get_field_index("age_days")
        blank = [None if row % 7 == 0 else value for row, value in enumerate(rows["age_days"].to_pylist())]
        import pyarrow as pa

        rows = rows.set_column(index, "age_days", pa.array(blank, pa.int64()))
        index = rows.schema.get_field_index("impressions_7d")
        blank = [None if row % 7 == 0 else value for row, value in enumerate(rows["impressions_7d"].to_pylist())]
        return rows.set_column(index, "impressions_7d", pa.array(blank, pa.int64()))

    monkeypatch.setattr(module, "offline_rows", forgetful)
    artifact = write_snapshot(tmp_path / "snapshots", LAST, 2, 3, 12, requests=5)
    with pytest.raises(DataRefused, match="Feast gives no row of item_stats for item_id"):
        materialize(tmp_path, artifact)


def test_online_store_away_is_try_again_and_the_next_run_is_clean(tmp_path):
    artifact = write_snapshot(tmp_path / "snapshots", LAST, 1, 3, 12, requests=2)
    (tmp_path / "feast" / "online.db").mkdir(parents=True)  # SQLite cannot open a folder, root or not
    with pytest.raises(TryAgain, match="online store"):
        materialize(tmp_path, artifact)
    assert outcome(tmp_path)["exit_code"] == TryAgain.exit_code
    (tmp_path / "feast" / "online.db").rmdir()
    materialize(tmp_path, artifact)
    assert outcome(tmp_path)["kind"] == "done"


def test_an_empty_store_is_try_again_for_readers(tmp_path):
    with pytest.raises(TryAgain, match="does not open"):
        open_store(str(tmp_path / "nothing"))


def _read_on(feast_uri: str, ready, stop, answer) -> None:
    """Another process: reads user 1 again and again; reports how often, and the first error."""
    store = open_store(feast_uri)
    reads, error, values = 0, "", set()
    while not stop.is_set():
        try:
            values.add(online_rows(store, "user_id", [1])["impressions"].to_pylist()[0])
            reads += 1
        except Exception as failure:
            error = error or repr(failure)
        ready.set()
    answer.put((reads, error, values))


def test_online_reads_of_another_process_go_on_while_a_night_is_materialised(tmp_path):
    """No read fails, and the reader sees the old value, then the new one, never none."""
    before = write_snapshot(tmp_path / "a", LAST, 1, 300, 60, name="before", seed=1)
    after = write_snapshot(tmp_path / "b", LAST, 1, 300, 60, name="after", seed=2)
    materialize(tmp_path, before)
    context = multiprocessing.get_context("spawn")
    ready, stop, answer = context.Event(), context.Event(), context.Queue()
    reader = context.Process(target=_read_on, args=(str(tmp_path / "feast"), ready, stop, answer))
    reader.start()
    try:
        assert ready.wait(120)
        materialize(tmp_path, after, "again")
        time.sleep(0.2)
    finally:
        stop.set()
        reads, error, values = answer.get(timeout=60)
        reader.join(60)
    expected = {feature_row(schema.USER_STATS, 1, LAST, seed)["impressions"] for seed in (1, 2)}
    assert error == "" and reads > 20 and values == expected


# ------------------------------------------------------------------------------------------------ training-serving skew


def altered_online(monkeypatch, view, key, **values):
    """Somebody else writes one row of one view between the night's own write and its check."""
    import pandas as pd

    import components.materialize_features.main as module

    whole = module.materialize_online

    def materialize_and_alter(store, snapshot, folder, *rest):
        figures = whole(store, snapshot, folder, *rest)
        rows = pq.read_table(folder / view.name / "features.parquet").to_pylist()
        row = newest(rows, view.entity, key, midnight(LAST, 1)) | values
        store.write_to_online_store(view.name, pd.DataFrame([row | {"event_timestamp": midnight(LAST, 2)}]))
        return figures

    monkeypatch.setattr(module, "materialize_online", materialize_and_alter)


def test_equal_stores_have_no_skew_and_the_figures_say_what_was_compared(night):
    folder, _, _ = night
    skew = outcome(folder)["figures"]["skew"]
    assert skew["differing"] == 0 and skew["users"] > 5 and skew["items"] > 20
    features = {entity: sum(len(view.features) for view in views_of(entity)) for entity in ENTITIES}
    assert skew["compared"] == skew["users"] * features["user_id"] + skew["items"] * features["item_id"]


def test_a_feature_that_differs_online_is_refused_with_entity_and_both_values(tmp_path, monkeypatch):
    artifact = write_snapshot(tmp_path / "snapshots", LAST, 1, 3, 12, requests=30)
    right = feature_row(schema.ITEM_STATS, 7, LAST, 0)["clicks_7d"]
    altered_online(monkeypatch, schema.ITEM_STATS, 7, clicks_7d=123_456)
    with pytest.raises(DataRefused, match="training-serving skew: .* found 1 of") as refused:
        materialize(tmp_path, artifact)
    assert f"item_stats:clicks_7d of item_id 7 is 123456 online, {right} offline" in str(refused.value)
    assert "item_stats:clicks_7d (1)" in str(refused.value) and "To mend:" in str(refused.value)
    assert outcome(tmp_path)["exit_code"] == DataRefused.exit_code
    assert outcome(tmp_path)["figures"]["skew"]["differing"] == 1
    record = read_record(tmp_path / "feast")
    assert record.keys() == {"may"}, "no night goes on from what is online: the next one writes all rows"


def test_a_list_that_differs_online_is_refused_too(tmp_path, monkeypatch):
    artifact = write_snapshot(tmp_path / "snapshots", LAST, 1, 3, 12, requests=30)
    altered_online(monkeypatch, schema.USER_HISTORY, 2, history_items=[5], history_topics=[1])
    with pytest.raises(DataRefused, match=r"user_history:history_items of user_id 2 is \[5\] online, \[") as refused:
        materialize(tmp_path, artifact)
    assert "found 2 of" in str(refused.value)


def test_a_day_without_a_request_to_compare_is_refused(tmp_path):
    """No request of the newest day, though older days have some: nothing compared is no pass."""
    artifact = write_snapshot(tmp_path / "snapshots", LAST, 2, 3, 12, requests=5)
    document = json.loads(artifact.read_text())
    newest_day = document["manifest"]["days"][-1]
    newest_day["rows"]["examples"] = 0
    artifact.write_text(json.dumps(document))
    examples = tmp_path / "snapshots" / newest_day["path"] / "examples" / "part-0.parquet"
    pq.write_table(pq.read_table(examples).slice(0, 0), examples)
    with pytest.raises(DataRefused, match=f"expected requests of {LAST} among the examples.*found none.*To mend:"):
        materialize(tmp_path, artifact, window_days=2)
    assert outcome(tmp_path)["figures"]["skew"] == {"users": 0, "items": 0, "compared": 0, "differing": 0}
    assert read_record(tmp_path / "feast").keys() == {"may"}
