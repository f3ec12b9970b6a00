"""A simulated day as logs of the data contract, and the truth about logged requests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from goalrank import simulator
from goalrank.errors import DataRefused, UsageError
from goalrank.schema import DAILY_TABLES, LOG_TABLES
from goalrank.simulator import WorldConfig
from goalrank.simulator.world import world_of

DAYS = 4
CONFIG = WorldConfig(
    seed=7, users=200, items=120, requests_per_day=500, candidates=20, new_items_per_day=4, late_tails=0.01
)


def read(logs: Path, table: str, day: int) -> pa.Table:
    return pq.ParquetFile(logs / table / f"dt={CONFIG.date_of(day)}" / "part-00000.parquet").read()


def everything(logs: Path, table: str, days: int = DAYS) -> pa.Table:
    return pa.concat_tables(read(logs, table, day) for day in range(days))


def contents(logs: Path) -> dict[str, bytes]:
    return {str(path.relative_to(logs)): path.read_bytes() for path in logs.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "logs"
    seen: list[tuple[int, int]] = []
    dates = simulator.write_days(CONFIG, 0, DAYS, str(folder), lambda done, total: seen.append((done, total)))
    assert dates == ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return folder


@pytest.mark.parametrize("table", LOG_TABLES)
def test_files_have_exactly_the_schemas_of_the_contract(logs: Path, table: str) -> None:
    for day in range(DAYS):
        assert read(logs, table, day).schema.equals(LOG_TABLES[table])


def test_the_same_world_gives_the_same_bytes(logs: Path, tmp_path: Path) -> None:
    simulator.day_requests.cache_clear()
    world_of.cache_clear()
    for day in range(DAYS):  # one process a night
        simulator.write_day(CONFIG, day, str(tmp_path / "again"))
        simulator.day_requests.cache_clear()
    assert contents(tmp_path / "again") == contents(logs)


def test_rows_make_sense(logs: Path) -> None:
    requests, impressions = everything(logs, "requests"), everything(logs, "impressions")
    known_items = set(everything(logs, "items")["item_id"].to_pylist())
    known_users = set(everything(logs, "users")["user_id"].to_pylist())
    assert set(requests["user_id"].to_pylist()) <= known_users
    ids = requests["request_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    candidates = dict(zip(ids, requests["candidates"].to_pylist(), strict=True))
    for row, scores in zip(candidates.values(), requests["candidate_scores"].to_pylist(), strict=True):
        assert len(row) == len(set(row)) == len(scores) == CONFIG.candidates
        assert set(row) <= known_items
    rows = impressions.to_pylist()
    assert all(row["item_id"] in candidates[row["request_id"]] for row in rows if row["request_id"] in candidates)
    assert all(0 < row["propensity"] <= 1 and row["watch_seconds"] >= 0 for row in rows)
    assert len({(row["request_id"], row["position"]) for row in rows}) == len(rows)


def test_users_and_items_are_announced_before_they_appear(logs: Path) -> None:
    items: set[int] = set()
    users: set[int] = set()
    fresh_items: set[int] = set()
    for day in range(DAYS):
        today = read(logs, "requests", day)
        begin = pa.scalar(midnight(day), today["event_time"].type)
        on_time = today.filter(pc.greater_equal(today["event_time"], begin))
        offered = set(pc.list_flatten(on_time["candidates"]).to_pylist())
        if day:
            assert offered <= items and set(on_time["user_id"].to_pylist()) <= users
            assert offered & fresh_items, "yesterday's new items are offered today"
        fresh_items = set(read(logs, "items", day)["item_id"].to_pylist())
        assert len(fresh_items) == (120 + 4 if day == 0 else 4)
        items |= fresh_items
        users |= set(read(logs, "users", day)["user_id"].to_pylist())
        for table in ("items", "users"):
            made = read(logs, table, day)["created_at"].to_pylist()
            assert max(made) < midnight(day + 1)
            assert day == 0 or min(made) >= midnight(day)


def midnight(day: int) -> datetime:
    return datetime.combine(CONFIG.date_of(day), time(), UTC)


def test_about_one_request_in_a_hundred_arrives_a_day_late_and_a_few_tails_do(logs: Path) -> None:
    late, whole, tails = Counter[int](), Counter[str](), set()
    for day in range(DAYS):
        events = read(logs, "requests", day)["event_time"].to_pylist()
        ages = [(midnight(day) - midnight_of(event)) // timedelta(days=1) for event in events]
        assert set(ages) <= {0, 1}
        late[day] = sum(ages)
        arrived_today = set(read(logs, "requests", day)["request_id"].to_pylist())
        positions: dict[str, list[int]] = {}
        for row in read(logs, "impressions", day).to_pylist():
            positions.setdefault(row["request_id"], []).append(row["position"])
        for request_id, found in positions.items():
            if request_id in arrived_today:
                assert found == list(range(1, len(found) + 1)), "no gap within an arrival"
                whole[request_id] += len(found)
            else:
                tails.add(request_id)
                assert found == list(range(whole[request_id] + 1, CONFIG.list_length + 1)), "the tail, one day later"
                assert request_id in set(read(logs, "requests", day - 1)["request_id"].to_pylist())
    assert late[0] == 0
    assert 0.002 < sum(late.values()) / (CONFIG.requests_per_day * (DAYS - 1)) < 0.025
    assert 1 <= len(tails) < 0.03 * CONFIG.requests_per_day * DAYS


def midnight_of(event: datetime) -> datetime:
    return event.replace(hour=0, minute=0, second=0, microsecond=0)


def test_nothing_is_lost_between_the_days(logs: Path) -> None:
    arrived = Counter(name.split("-")[0] for name in everything(logs, "requests")["request_id"].to_pylist())
    assert [arrived[f"d{day:05d}"] for day in range(DAYS - 1)] == [CONFIG.requests_per_day] * (DAYS - 1)
    shown = Counter(name.split("-")[0] for name in everything(logs, "impressions")["request_id"].to_pylist())
    places = CONFIG.requests_per_day * CONFIG.list_length
    assert [shown[f"d{day:05d}"] for day in range(DAYS - 1)] == [places] * (DAYS - 1)


def test_propensities_follow_from_what_is_logged(logs: Path) -> None:
    slates: dict[str, dict[int, tuple[int, float]]] = {}
    for row in everything(logs, "impressions").to_pylist():
        slates.setdefault(row["request_id"], {})[row["position"]] = (row["item_id"], row["propensity"])
    policies = set()
    for row in read(logs, "requests", 1).to_pylist():
        scores = np.array(row["candidate_scores"]) / CONFIG.temperature
        weights = np.exp(scores) if row["policy"] == "plackett_luce" else np.ones(len(scores))
        policies.add(row["policy"])
        left = dict(zip(row["candidates"], weights, strict=True))
        for position in range(1, CONFIG.list_length + 1):
            item, propensity = slates[row["request_id"]][position]
            assert propensity == pytest.approx(left[item] / sum(left.values()), rel=1e-9)
            del left[item]
    assert policies == {"plackett_luce", "uniform"}


def test_titles_and_attributes_can_be_read(logs: Path) -> None:
    titles = read(logs, "items", 0)["title"].to_pylist()
    assert len(set(titles)) > 50 and all(len(title) < 100 for title in titles)
    pairs = {pair for row in read(logs, "users", 0)["attributes"].to_pylist() for pair in row}
    assert {"age=25", "device=phone"} <= pairs


def test_a_partition_that_exists_is_left_alone_and_a_cut_short_day_is_completed(logs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    simulator.write_days(CONFIG, 0, 2, str(folder))
    marked = folder / "requests" / "dt=2026-01-01" / "part-00000.parquet"
    marked.write_bytes(b"closed")
    cut_short = folder / "impressions" / "dt=2026-01-02"
    cut_short.rename(folder / "impressions" / ".dt=2026-01-02.999")  # as a kill while writing leaves it
    simulator.write_day(CONFIG, 2, str(folder))
    assert marked.read_bytes() == b"closed"
    whole = contents(logs)
    found = contents(folder)
    assert set(found) == {name for name in whole if "dt=2026-01-04" not in name}
    assert all(found[name] == whole[name] for name in found if "requests/dt=2026-01-01" not in name)


def test_a_folder_belongs_to_one_world(logs: Path, tmp_path: Path) -> None:
    assert simulator.load_world(str(logs)) == CONFIG
    assert simulator.load_world(str(tmp_path)) is None
    with pytest.raises(UsageError, match=r"holds another world \(other seed\)"):
        simulator.write_day(replace(CONFIG, seed=8), 0, str(logs))
    (tmp_path / "requests").mkdir()
    with pytest.raises(UsageError, match="not simulated"):
        simulator.write_day(CONFIG, 0, str(tmp_path))
    (tmp_path / "world.json").write_text("{")
    with pytest.raises(DataRefused, match="world.json cannot be read"):
        simulator.load_world(str(tmp_path))


def test_days_without_newcomers_have_no_partition_for_them(tmp_path: Path) -> None:
    config = replace(CONFIG, new_items_per_day=0, new_users_per_day=0, requests_per_day=20)
    simulator.write_days(config, 0, 2, str(tmp_path / "logs"))
    days = {table: sorted(entry.name for entry in (tmp_path / "logs" / table).iterdir()) for table in LOG_TABLES}
    assert days["items"] == days["users"] == ["dt=2026-01-01"]
    assert all(days[table] == ["dt=2026-01-01", "dt=2026-01-02"] for table in DAILY_TABLES)


def test_true_reward_of_logged_lists_is_that_of_the_day_they_happened(logs: Path) -> None:
    table = read(logs, "requests", 2)  # late rows of day 1 are among them
    places: dict[str, tuple[int, int]] = {}
    for day in (1, 2):
        for row, name in enumerate(simulator.day_requests(CONFIG, day).request_id_R):
            places[str(name)] = (day, row)
    lists, expected = [], []
    for name in table["request_id"].to_pylist():
        day, row = places[name]
        requests = simulator.day_requests(CONFIG, day)
        slate_L = requests.slate_RL[row]
        lists.append((requests.item_RN[row, slate_L] + 100_001).tolist())
        facts = requests.facts[np.array([row])]
        expected.append(simulator.expected_reward(facts, slate_L[None, None])[0, 0])
    assert {places[name][0] for name in table["request_id"].to_pylist()} == {1, 2}
    reward_R = simulator.true_reward(CONFIG, table, lists)
    np.testing.assert_allclose(reward_R, expected, rtol=1e-12)

    lists_RGL = np.array(lists)[:, None, :].repeat(2, axis=1)
    lists_RGL[:, 1, 3:] = -1
    reward_RG = simulator.true_reward(CONFIG, table, lists_RGL)
    np.testing.assert_allclose(reward_RG[:, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(reward_RG[:, 1], simulator.true_reward(CONFIG, table, [row[:3] for row in lists]))

    best_RL, best_R = simulator.true_best(CONFIG, table)
    order_RL, order_R = simulator.true_single_item_order(CONFIG, table)
    np.testing.assert_allclose(simulator.true_reward(CONFIG, table, best_RL), best_R)
    np.testing.assert_allclose(simulator.true_reward(CONFIG, table, order_RL), order_R)
    assert (best_R >= order_R - 1e-12).all() and best_R.mean() > order_R.mean() > reward_R.mean()


def test_the_truth_refuses_what_is_not_of_this_world(logs: Path) -> None:
    table = read(logs, "requests", 0).slice(0, 1)
    with pytest.raises(DataRefused, match="item_id 5 is not of this world on day 0"):
        simulator.true_reward(CONFIG, table, [[5]])
    with pytest.raises(DataRefused, match="2 lists found for 1 requests"):
        simulator.true_reward(CONFIG, table, [[100_001], [100_002]])
    with pytest.raises(DataRefused, match="user_id 9999 is not of this world"):
        simulator.true_reward(CONFIG, table.set_column(1, table.schema.field("user_id"), [[9999]]), [[100_001]])
    with pytest.raises(DataRefused, match="days before this world's first day"):
        simulator.true_reward(replace(CONFIG, first_day=CONFIG.date_of(30)), table, [[100_001]])
