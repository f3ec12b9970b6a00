"""The watch's sums: the same as adding up all requests at once, whatever the order in which files come, and no more."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import registry
from components.serve_model.bodies import ISSUED_PREFIX, FeedbackBody, RankBody
from components.serve_model.holdback import RETRIEVER_POLICY
from components.serve_model.ranking import Ranked
from components.serve_model.served_log import ServedLog
from components.watch_champion import feedback, tally
from components.watch_champion.feedback import Feedback, Split
from components.watch_champion.seen_ids import SeenIds
from components.watch_champion.tally import Tally
from goalrank import schema
from goalrank.errors import DataRefused

SPLIT = Split("2", "1", 0.3)
SINCE = datetime(2026, 1, 5, 22, tzinfo=UTC)
UNTIL = SINCE + timedelta(hours=6)
POLICIES = [*SPLIT.policies, RETRIEVER_POLICY, f"{registry.RANKER}:0"]
Row = dict[str, Any]


def some_rows(random: np.random.Generator, count: int, users: int, name: str) -> dict[str, list[Row]]:
    """Requests of every kind from before SINCE to after UNTIL, many of them at the same moment."""
    batch: dict[str, list[Row]] = {"requests": [], "impressions": []}
    for number in range(count):
        request = {"request_id": f"{name}-{number}", "user_id": int(random.integers(1, users + 1))}
        request["event_time"] = SINCE + timedelta(minutes=int(random.integers(-30, 400)))
        request |= {"candidates": [1, 2], "candidate_scores": [0.0, 0.0]}
        batch["requests"].append(request | {"policy": str(random.choice(POLICIES, p=[0.5, 0.25, 0.2, 0.05]))})
        for position in range(1, int(random.integers(0, 4)) + 1):  # some have none
            row = {"request_id": request["request_id"], "position": position, "item_id": position, "propensity": None}
            watch = float(random.integers(0, 90)) if random.random() < 0.5 else None
            flags = {"click": int(random.random() < 0.4), "like": int(random.random() < 0.1), "watch_seconds": watch}
            batch["impressions"].append(row | flags)
    return batch


def write(served: Path, batch: dict[str, list[Row]], name: str, day: str = "2026-01-05") -> None:
    for table, rows in batch.items():
        folder = served / table / f"dt={day}"
        folder.mkdir(parents=True, exist_ok=True)
        filled = pa.Table.from_pylist(rows, schema=schema.LOG_TABLES[table])
        pq.write_table(filled, folder / f"served-{name}.parquet")


def plainly(batches: list[dict[str, list[Row]]], now: datetime) -> Feedback:
    """The definition, request by request, with everything in memory."""
    weights = schema.RewardWeights()
    rewards: dict[str, float] = {}
    for row in (row for batch in batches for row in batch["impressions"]):
        minutes = (row["watch_seconds"] or 0.0) / 60
        reward = weights.click * row["click"] + weights.like * row["like"] + weights.watch_minute * minutes
        rewards[row["request_id"]] = rewards.get(row["request_id"], 0.0) + reward
    requests = [row for batch in batches for row in batch["requests"] if row["request_id"] in rewards]
    requests = [row for row in requests if SINCE <= row["event_time"] < min(UNTIL, now)]
    requests.sort(key=lambda row: (row["event_time"], row["request_id"]))
    arms: dict[int, int] = {}
    firsts = []  # of the users, as they came: arm, reward
    for row in requests:
        user, policy = row["user_id"], row["policy"]
        if user not in arms and policy != POLICIES[3]:
            planned = SPLIT.arm(user)
            arms[user] = {POLICIES[0]: 1, POLICIES[1]: 0}.get(policy, planned)
            firsts.append((arms[user], rewards[row["request_id"]]))
    mine: dict[int, list[Row]] = {}
    for row in requests:
        mine.setdefault(row["user_id"], []).append(row)
    means = {user: np.mean([rewards[row["request_id"]] for row in rows]) for user, rows in mine.items()}
    counted = [row for user in arms for row in mine[user]]
    other = {user: POLICIES[arm] for user, arm in arms.items()}  # the champion's policy stands first
    variance, count = None, feedback.FIRST_USERS
    while variance is None and count <= len(firsts):
        parts = [np.array([reward for arm, reward in firsts[:count] if arm == which]) for which in (0, 1)]
        active = sum(np.count_nonzero(part) for part in parts)
        if active >= feedback.FIRST_ACTIVE:
            variance = sum(((part - part.mean()) ** 2).sum() for part in parts) / (count - 2)
        count *= 2
    return Feedback(
        champion_T=np.array([means[user] for user in sorted(arms) if arms[user] == 1]),
        predecessor_C=np.array([means[user] for user in sorted(arms) if arms[user] == 0]),
        unit_variance=variance,
        requests=len(counted),
        fallbacks=sum(row["policy"] == RETRIEVER_POLICY for row in counted),
        switched=sum(any(row["policy"] == other[user] for row in mine[user]) for user in arms),
        unassigned=len(mine) - len(arms),
        seen_until=requests[-1]["event_time"] if requests else None,
    )


def same(found: Feedback, expected: Feedback) -> None:
    for name, value in vars(expected).items():
        if name in ("champion_T", "predecessor_C", "unit_variance"):
            assert getattr(found, name) == (None if value is None else pytest.approx(value)), name
        else:
            assert getattr(found, name) == value, name


@pytest.mark.parametrize(("seed", "loose"), [(0, tally.LOOSE_USERS), (1, 0), (2, 100)])
def test_the_same_as_adding_everything_up_at_once(tmp_path, monkeypatch, seed, loose):
    """Pairs of several processes come in any order, over midnight, with times that overlap."""
    monkeypatch.setattr(tally, "LOOSE_USERS", loose)
    random = np.random.default_rng(seed)
    batches = [some_rows(random, 150, 400, f"b{number}") for number in range(12)]
    kept, written = Tally(tmp_path, SPLIT, SINCE, UNTIL), []
    for number in random.permutation(len(batches)).tolist():
        write(tmp_path, batches[number], f"b{number}", "2026-01-05" if number % 2 else "2026-01-06")
        written.append(batches[number])
        if number % 3 == 0:
            same(kept.feedback(UNTIL), plainly(written, UNTIL))
    found = kept.feedback(UNTIL)
    same(found, plainly(batches, UNTIL))
    assert found.unit_variance is not None and min(found.switched, found.unassigned, found.fallbacks) > 0
    same(Tally(tmp_path, SPLIT, SINCE, UNTIL).feedback(UNTIL), found)


def test_a_pair_is_read_once_and_only_a_row_a_user_is_kept(tmp_path, monkeypatch):
    read: list[str] = []
    plain = pq.ParquetFile
    monkeypatch.setattr(tally.pq, "ParquetFile", lambda file: read.append(file.name) or plain(file))
    random, kept = np.random.default_rng(3), Tally(tmp_path, SPLIT, SINCE, UNTIL)
    for number in range(6):
        write(tmp_path, some_rows(random, 300, 50, f"b{number}"), f"b{number}")
        kept.feedback(UNTIL)
        assert [len(part) for part in kept._parts] == [50]
    assert sorted(read) == sorted(f"served-b{number}.parquet" for number in range(6) for _ in ("requests", "shown"))


def test_requests_ahead_of_the_clock_count_once_their_time_has_come(tmp_path):
    batch = some_rows(np.random.default_rng(4), 300, 60, "b")
    write(tmp_path, batch, "b")
    kept = Tally(tmp_path, SPLIT, SINCE, UNTIL)
    for hours in (0, 1, 3, 5, 9):
        now = SINCE + timedelta(hours=hours)
        same(kept.feedback(now), plainly([batch], now))


def test_a_pair_whose_second_file_is_not_there_yet_waits(tmp_path):
    random, kept = np.random.default_rng(5), Tally(tmp_path, SPLIT, SINCE, UNTIL)
    batch = some_rows(random, 100, 20, "b")
    write(tmp_path, {"requests": batch["requests"]}, "b")
    same(kept.feedback(UNTIL), feedback.nothing_yet())
    write(tmp_path, batch, "b")
    same(kept.feedback(UNTIL), plainly([batch], UNTIL))


def test_a_request_that_two_processes_answered_counts_once(tmp_path):
    """A client tried again with the same id and reached another process; each knows only its own."""
    at = SINCE + timedelta(hours=1)
    candidates = [{"item_id": 1, "score": 0.5}, {"item_id": 2, "score": 0.25}]
    logs = [ServedLog(tmp_path, clock=lambda at=at, late=late: at.timestamp() + late) for late in (0.0, 1.0)]
    for log in logs:
        for body in ({"user_id": 7, "request_id": "again"}, {"user_id": 8}):
            ranked = Ranked([1, 2], [1.0, 1.0], POLICIES[0], registry.RANKER, "2", None, False)
            log.record(RankBody.model_validate(body | {"candidates": candidates}), ranked)
    logs[0].feedback(FeedbackBody(request_id="again", position=1, click=1))
    kept = Tally(tmp_path, SPLIT, SINCE, UNTIL)
    for log in logs:
        log.close()
        found = kept.feedback(UNTIL)
        assert found.champion_T.tolist() == [schema.RewardWeights().click, 0.0]
    assert found.requests == 3
    assert Tally(tmp_path, SPLIT, SINCE, UNTIL).feedback(UNTIL).requests == 3


def test_ids_are_remembered_for_as_long_as_a_repetition_is_refused():
    seen, days = SeenIds(), [f"2026-01-0{day}" for day in range(1, 3 + schema.LATENESS_DAYS)]
    for day in days:
        seen.add(day, pa.chunked_array([[f"{day}-{number}" for number in range(50)] + [f"{ISSUED_PREFIX}{day}"]]))
    asked = [*(f"{day}-7" for day in days), "never", f"{ISSUED_PREFIX}{days[-1]}"]
    assert seen.repeated(pa.chunked_array([asked])).tolist() == [False, *[True] * (len(days) - 1), False, False]
    seen.add(days[0], pa.chunked_array([["late"]]))
    assert not seen.repeated(pa.chunked_array([["late"]])).any(), "a day that is over adds nothing"


def test_a_file_that_somebody_rewrote_is_added_up_anew(tmp_path):
    """`goalrank erase-user` takes rows out."""
    batches = [some_rows(np.random.default_rng(seed), 100, 20, f"b{seed}") for seed in (6, 7)]
    kept = Tally(tmp_path, SPLIT, SINCE, UNTIL)
    for number, batch in enumerate(batches):
        write(tmp_path, batch, f"b{number}")
    before = kept.feedback(UNTIL)
    batches[0]["requests"] = [row for row in batches[0]["requests"] if row["user_id"] > 5]
    write(tmp_path, batches[0], "b0")
    for table in schema.DAILY_TABLES:
        os.utime(tmp_path / table / "dt=2026-01-05" / "served-b0.parquet", ns=(1, 1))
    same(kept.feedback(UNTIL), plainly(batches, UNTIL))
    assert kept.feedback(UNTIL).requests < before.requests


def test_requests_from_before_and_after_the_watch_count_for_nothing(tmp_path):
    batch = some_rows(np.random.default_rng(8), 100, 20, "b")
    batch["requests"] = [row for row in batch["requests"] if not SINCE <= row["event_time"] < UNTIL]
    write(tmp_path, batch, "b")
    same(Tally(tmp_path, SPLIT, SINCE, UNTIL).feedback(UNTIL + timedelta(days=1)), feedback.nothing_yet())


def test_files_before_the_promotion_are_not_opened(tmp_path, monkeypatch):
    write(tmp_path, some_rows(np.random.default_rng(8), 10, 5, "old"), "old", "2026-01-04")
    monkeypatch.setattr(tally.pq, "ParquetFile", lambda file: pytest.fail(f"{file} was opened"))
    assert Tally(tmp_path, SPLIT, SINCE, UNTIL).feedback(UNTIL).requests == 0


def test_a_damaged_pair_stops_no_other_for_ever(tmp_path):
    """What was added up before it stays; once it is mended, it is added too, and nothing twice."""
    batches = [some_rows(np.random.default_rng(seed), 100, 20, f"b{seed}") for seed in (9, 10, 11)]
    for number, batch in enumerate(batches):
        write(tmp_path, batch, f"b{number}")
    file = tmp_path / "impressions" / "dt=2026-01-05" / "served-b1.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    kept = Tally(tmp_path, SPLIT, SINCE, UNTIL)
    for _ in range(2):
        with pytest.raises(DataRefused, match="served-b1.parquet"):
            kept.feedback(UNTIL)
    file.write_bytes(whole)
    same(kept.feedback(UNTIL), plainly(batches, UNTIL))


def test_feedback_that_is_not_finite_is_refused_by_name(tmp_path):
    batch = some_rows(np.random.default_rng(12), 100, 20, "b")
    asked = next(row for row in batch["requests"] if SINCE <= row["event_time"] < UNTIL)
    shown = {"request_id": asked["request_id"], "position": 9, "item_id": 9, "propensity": None}
    batch["impressions"].append(shown | {"click": 0, "like": 0, "watch_seconds": float("nan")})
    write(tmp_path, batch, "b")
    with pytest.raises(DataRefused, match="served-b.parquet: the feedback on 1 of .* is not finite"):
        Tally(tmp_path, SPLIT, SINCE, UNTIL).feedback(UNTIL)
