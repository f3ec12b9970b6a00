"""The benchmark's features are the night's, as worked out by hand, and nothing of a test slate is in them."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.quality import movielens
from benchmarks.quality.features import AS_A_NIGHT, Logs, training_tables, windows
from benchmarks.quality.problem import TEST, TRAIN, VALIDATION
from benchmarks.quality.settings import QUICK
from goalrank import schema
from goalrank.dataset import TrainingSet
from goalrank.simulator import WorldConfig, write_days
from tests.components.features_by_hand import features_by_hand
from tests.components.log_samples import Logs as RowsByDay
from tests.unit.test_movielens import write_files

CONFIG = WorldConfig(
    users=30, items=70, new_users_per_day=3, new_items_per_day=4, requests_per_day=60, late_requests=0.2, late_tails=0.2
)
DAYS = 10
"""More than a week, so that the *_7d counters forget."""


@pytest.fixture
def short_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 7 items, so that the few clicks of a small world overflow them."""
    monkeypatch.setattr(schema, "HISTORY_LENGTH", 7)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    write_days(CONFIG, 0, DAYS, str(folder))
    return folder


def rows_by_day(folder: Path) -> RowsByDay:
    """The logs as rows, for the features by hand."""
    found = RowsByDay()
    for table in schema.LOG_TABLES:
        for path in sorted((folder / table).glob("dt=*/*.parquet")):
            day = path.parent.name.removeprefix("dt=")
            found.rows[table][day] = pq.read_table(path, partitioning=None).to_pylist()
    return found


def newest(days: dict[str, list[dict]], entity: str, key: int, before: str) -> dict | None:
    """The last row of an entity that was known before a day."""
    for day in sorted((day for day in days if day < before), reverse=True):
        for row in days[day]:
            if row[entity] == key:
                return row
    return None


def test_rows_are_those_that_a_night_joins(logs: Path, short_histories: None) -> None:
    examples, users, items = training_tables(Logs.read(logs), AS_A_NIGHT)
    made = features_by_hand(rows_by_day(logs))
    by_hand = [row for day in sorted(made["examples"]) for row in made["examples"][day]]
    by_hand.sort(key=lambda row: (row["event_time"], row["request_id"]))
    found = examples.select(schema.EXAMPLES.names).to_pylist()
    assert found == [{name: row[name] for name in schema.EXAMPLES.names} for row in by_hand]
    user_rows, item_rows = users.to_pylist(), items.to_pylist()
    nulls = set()
    for row in examples.to_pylist():
        midnight = row["event_time"].date().isoformat()
        pairs = [("user_id", row["user_id"], user_rows[row["user_row"]], schema.USER_VIEWS)]
        for item, at in list(zip(row["candidates"], row["candidate_rows"], strict=True))[:8]:
            pairs.append(("item_id", item, item_rows[at], schema.ITEM_VIEWS))
        for entity, key, given, views in pairs:
            assert given[entity] == key and given["as_of"].date().isoformat() == midnight
            for view in views:
                expected = newest(made[view.name], entity, key, midnight) or {}
                for feature in view.features:
                    assert given[feature.name] == expected.get(feature.name), (view.name, feature.name, key, midnight)
                    if given[feature.name] is None:
                        nulls.add(view.name)
    assert nulls == set(schema.FEATURE_VIEWS)  # the case "not known yet" was there for every view


def test_windows_hold_each_users_clicks_in_order(logs: Path, short_histories: None) -> None:
    first = CONFIG.date_of(DAYS - 2).isoformat()
    items_WH, topics_WH = windows(Logs.read(logs), first, every_impression=False)
    rows = rows_by_day(logs)
    request_of = {row["request_id"]: row for day in rows.rows["requests"].values() for row in day}
    clicks: dict[int, list[tuple]] = {}
    for day, shown in rows.rows["impressions"].items():
        for row in shown:
            asked = request_of[row["request_id"]]
            if row["click"] and day < first:
                key = (asked["event_time"], row["request_id"], row["position"], row["item_id"])
                clicks.setdefault(asked["user_id"], []).append(key)
    expected = []
    for user in sorted(clicks):
        items = [key[-1] for key in sorted(clicks[user])]
        cuts = list(range(len(items), 0, -schema.HISTORY_LENGTH))
        parts = [items[max(0, cut - schema.HISTORY_LENGTH) : cut] for cut in reversed(cuts)]
        expected += [part for part in parts if len(part) > 1]
    assert [row[row != 0].tolist() for row in items_WH] == expected
    assert any(len(part) == schema.HISTORY_LENGTH for part in expected)
    np.testing.assert_array_equal(topics_WH != 0, items_WH != 0)


# ------------------------------------------------------------------------------------------------------------- leakage


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("ratings") / "ml")


def problem(source: Path, folder: Path) -> movielens.MovieLens:
    """The problem of matched candidates."""
    (folder / "problem").mkdir(parents=True)
    (folder / "scratch").mkdir()
    movielens.prepare(source, "matched", folder / "problem", QUICK, folder / "scratch")
    return movielens.MovieLens(folder / "problem")


def features_of(found: movielens.MovieLens, split: str, *, histories: bool) -> list[np.ndarray]:
    """What a model sees of a split's requests, candidates in order of their id, since theirs is drawn."""
    batch = found.data.batch(found.rows[split])
    order = batch.item_id_BN.argsort(dim=1)
    arrays = [batch.user_dense_BF, batch.user_topics_BT, batch.attributes_BA]
    arrays += [batch.item_dense_BNF.gather(1, order[..., None].expand_as(batch.item_dense_BNF))]
    arrays += [batch.history_items_BH, batch.history_topics_BH] if histories else []
    return [array.numpy() for array in arrays]


def test_what_is_rated_in_the_last_slate_changes_no_feature(ratings: Path, tmp_path: Path) -> None:
    """Other ratings in every user's test slate: labels differ, and nothing else does."""
    lines = (ratings / "ratings.dat").read_bytes().splitlines()
    rows = [line.split(b"::") for line in lines]
    order = sorted(range(len(rows)), key=lambda at: (int(rows[at][0]), int(rows[at][3]), at))
    last_of: dict[bytes, list[int]] = {}
    for at in order:
        last_of.setdefault(rows[at][0], []).append(at)
    for places in last_of.values():
        for at in places[-schema.LIST_LENGTH :]:
            rows[at][2] = b"%d" % (6 - int(rows[at][2]))
    changed = write_files(tmp_path / "changed", ratings=b"\n".join(b"::".join(row) for row in rows) + b"\n")
    before, after = problem(ratings, tmp_path / "a"), problem(changed, tmp_path / "b")
    assert not np.array_equal(
        before.data.feedback(before.rows[TEST]).click_BL, after.data.feedback(after.rows[TEST]).click_BL
    )
    for split in (TRAIN, VALIDATION, TEST):
        for one, other in zip(
            features_of(before, split, histories=True), features_of(after, split, histories=True), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(before.windows[0], after.windows[0])


def test_no_request_sees_its_own_slate_or_a_later_one(ratings: Path, tmp_path: Path) -> None:
    found = problem(ratings, tmp_path)
    order: dict[int, list[int]] = {}
    rows = [line.split(b"::") for line in (ratings / "ratings.dat").read_bytes().splitlines()]
    for user, item, _, _ in sorted(rows, key=lambda row: (int(row[0]), int(row[3]))):
        order.setdefault(int(user), []).append(int(item))
    known_items = set(found.data.items.item_id_I.tolist())
    for split, place in ((TEST, -1), (VALIDATION, -2)):
        examples = found.data.examples.take(pa.array(found.rows[split])).to_pylist()
        assert examples
        for row, at in zip(examples, found.rows[split], strict=True):
            history = found.data.users.history_items_UH[found.data.user_row_E[at]]
            history = history[history != 0].tolist()
            sequence = [item for item in order[row["user_id"]] if item in known_items]
            end = len(sequence) + place * schema.LIST_LENGTH
            assert row["slate"] == sequence[end : end + schema.LIST_LENGTH]
            assert history == sequence[max(0, end - schema.HISTORY_LENGTH) : end]
    # Pretraining ends where validation begins.
    counts = dict.fromkeys(known_items, 0)
    for items in order.values():
        for item in [item for item in items if item in known_items][: -2 * schema.LIST_LENGTH]:
            counts[item] += 1
    seen, times = np.unique(found.windows[0][found.windows[0] != 0], return_counts=True)
    assert {int(item): int(count) for item, count in zip(seen, times, strict=True)} == {
        item: count for item, count in counts.items() if count
    }


def test_aggregates_end_with_the_training_period(ratings: Path, tmp_path: Path) -> None:
    found = problem(ratings, tmp_path)
    logs = Logs.read(tmp_path / "scratch")
    closed = logs.days[-2]
    examples = pq.read_table(found.folder / "examples.parquet").to_pylist()
    users = pq.read_table(found.folder / "users.parquet").to_pylist()
    items = pq.read_table(found.folder / "items.parquet").to_pylist()
    number = (date.fromisoformat(closed) - date(1970, 1, 1)).days
    shown = logs.impressions.to_pylist()
    user_of = dict(zip(logs.requests["request_id"].to_pylist(), logs.requests["user_id"].to_pylist(), strict=True))
    user_total: dict[int, int] = {}
    item_total: dict[int, int] = {}
    for row in shown:
        if row["day"] < number:
            user_total[user_of[row["request_id"]]] = user_total.get(user_of[row["request_id"]], 0) + 1
            item_total[row["item_id"]] = item_total.get(row["item_id"], 0) + 1
    for at in (*found.rows[TEST], *found.rows[VALIDATION]):
        row = examples[at]
        assert users[row["user_row"]]["impressions"] == user_total[row["user_id"]]
        for item, place in zip(row["candidates"], row["candidate_rows"], strict=True):
            assert items[place]["impressions_total"] == item_total.get(item, 0)
            assert items[place]["as_of"].date() == date.fromisoformat(closed)
    for at in found.rows[TRAIN]:
        day = date.fromisoformat(examples[at]["dt"])
        assert all(items[place]["as_of"].date() == day for place in examples[at]["candidate_rows"])


def test_a_problem_reads_back_as_a_training_set(ratings: Path, tmp_path: Path) -> None:
    found = problem(ratings, tmp_path)
    again = TrainingSet.load(found.folder)
    assert json.loads((found.folder / "training_set.json").read_text())["date"] == again.days[-1]
    assert all((again.choice_E[rows]).all() for rows in found.rows.values())
    days = [date.fromisoformat(day) for day in again.days]
    assert days == [days[0] + timedelta(days=number) for number in range(len(days))]
