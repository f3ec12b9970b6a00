"""What was served arrives in the logs a night reads: once, on a day that is over and unread, and the gates take it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from components.serve_model.bodies import FeedbackBody, parse_rank
from components.serve_model.ranking import RETRIEVER_POLICY, Ranked
from components.serve_model.served_log import ServedLog
from console import collecting
from console.collecting import collect
from console.workspace import Workspace
from goalrank.errors import UsageError
from goalrank.schema import LATENESS_DAYS
from tests.components.serving import read_logs
from tests.components.test_check_logs import clean_logs, night

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]
SERVED_ON = "2026-01-04"


def moment(day: str, hour: int = 12) -> datetime:
    return datetime.fromisoformat(day).replace(hour=hour, tzinfo=UTC)


def serve(workspace: Workspace, day: str, count: int = 8, first: int = 0, fallback: bool = False) -> None:
    """The service's own log of a day: lists of three out of six, some of them clicked."""
    now = moment(day)
    log = ServedLog(workspace.folder / "served", clock=now.timestamp)
    for number in range(first, first + count):
        candidates = [{"item_id": item, "score": 1.0 / item} for item in range(11, 17)]
        request = parse_rank({"user_id": 1, "candidates": candidates, "request_id": f"live-{number}"})
        items = [11, 12, 13] if number % 2 else [16, 14, 11]
        propensities, policy = ([0.5, 0.4, 1.0], "goalrank-ranker:7")
        if fallback:
            propensities, policy = None, RETRIEVER_POLICY
        log.record(request, Ranked(items, propensities, policy, "goalrank-ranker", "7", None, False))
        log.feedback(FeedbackBody(request_id=f"live-{number}", position=1, click=1, watch_seconds=3.5))
    log.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    clean_logs(tmp_path / "logs", DAYS)
    return Workspace(tmp_path / "workspace")


def logs_of(workspace: Workspace) -> Path:
    return workspace.folder.parent / "logs"


def test_a_night_takes_what_was_served(workspace, tmp_path):
    """Alone or beside the rows of another writer, the real gate lets it through, and nothing arrives twice."""
    serve(workspace, SERVED_ON)
    serve(workspace, SERVED_ON, count=3, first=8, fallback=True)
    done = collect(workspace, logs_of(workspace), moment("2026-01-05"))
    # Another writer's newest day is the 3rd: its 4th is still to come, and the served one waits for it.
    assert done["collected"] == {} and "has not arrived" in done["waiting"][SERVED_ON]
    clean_logs(tmp_path / "logs", [*DAYS, SERVED_ON])
    done = collect(workspace, logs_of(workspace), moment("2026-01-05"))
    assert done == {
        "collected": {SERVED_ON: SERVED_ON},
        "rows": {"requests": 11, "impressions": 33},
        "left_out": {"requests": 0, "impressions": 0},
        "waiting": {},
    }
    assert collect(workspace, logs_of(workspace), moment("2026-01-06"))["collected"] == {}
    outcome = night(tmp_path, SERVED_ON)
    assert outcome["kind"] == "done"
    arrived = read_logs(logs_of(workspace), "requests").to_pylist()
    assert len(arrived) == 11 and {row["policy"] for row in arrived} == {"goalrank-ranker:7", RETRIEVER_POLICY}
    shown = read_logs(logs_of(workspace), "impressions").to_pylist()
    assert sum(row["click"] for row in shown) == 11
    assert {row["propensity"] for row in shown} == {0.5, 0.4, 1.0, None}


def test_a_day_that_a_night_has_read_stays_as_it_was(workspace, tmp_path):
    clean_logs(tmp_path / "logs", [*DAYS, SERVED_ON, "2026-01-05"])
    serve(workspace, SERVED_ON)
    workspace.new_night(SERVED_ON, {})
    before = sorted(path.name for path in (logs_of(workspace) / "requests" / f"dt={SERVED_ON}").iterdir())
    done = collect(workspace, logs_of(workspace), moment("2026-01-05", hour=1))
    assert done["collected"] == {} and "which is not over" in done["waiting"][SERVED_ON]
    assert collect(workspace, logs_of(workspace), moment("2026-01-06"))["collected"] == {SERVED_ON: "2026-01-05"}
    assert sorted(path.name for path in (logs_of(workspace) / "requests" / f"dt={SERVED_ON}").iterdir()) == before
    assert night(tmp_path, "2026-01-05")["kind"] == "done"


def test_a_day_that_is_still_served_waits(workspace, tmp_path):
    clean_logs(tmp_path / "logs", [*DAYS, SERVED_ON])
    serve(workspace, SERVED_ON)
    for now in (moment(SERVED_ON, hour=23), moment("2026-01-05", hour=0)):
        assert collect(workspace, logs_of(workspace), now)["waiting"] == {SERVED_ON: "the service still writes to it"}


def test_logs_that_only_the_service_writes(tmp_path):
    """Days, one by one, with nobody else to wait for."""
    workspace, logs = Workspace(tmp_path / "workspace"), tmp_path / "logs"
    for number, day in enumerate(DAYS):
        serve(workspace, day, first=number * 8)
    done = collect(workspace, logs, moment(SERVED_ON))
    assert done["collected"] == {day: day for day in DAYS} and done["rows"]["requests"] == 24


@pytest.mark.parametrize("table", ["requests", "impressions"])
def test_a_collection_that_was_interrupted_is_finished_by_the_next(workspace, tmp_path, monkeypatch, table):
    clean_logs(tmp_path / "logs", [*DAYS, SERVED_ON, "2026-01-05"])
    serve(workspace, SERVED_ON)
    serve(workspace, SERVED_ON, count=4, first=8)
    move_in = collecting._move_in
    dies_at = {"requests": 1, "impressions": 3}[table]
    moved: list[Path] = []

    def dies(file: Path, *rest: object) -> tuple[int, int]:
        if len(moved) == dies_at:
            raise OSError(28, "no space left")
        moved.append(file)
        return move_in(file, *rest)

    monkeypatch.setattr(collecting, "_move_in", dies)
    with pytest.raises(OSError):
        collect(workspace, logs_of(workspace), moment("2026-01-06"))
    monkeypatch.setattr(collecting, "_move_in", move_in)
    collect(workspace, logs_of(workspace), moment("2026-01-06"))
    served = workspace.folder / "served"
    for name in ("requests", "impressions"):
        files = sorted(path.name for path in (served / name).glob("dt=*/*.parquet"))
        there = sorted(path.name for path in (logs_of(workspace) / name).glob("dt=*/served-*.parquet"))
        assert there == files and len(files) == 2
    rows = read_logs(logs_of(workspace), "requests")["request_id"].to_pylist()
    assert sorted(rows) == sorted(f"live-{number}" for number in range(12))


# ---------------------------------------------------------------------------------------------------- the same id again


FIRST, SECOND = [11, 12, 13], [16, 14, 11]
"""Lists."""


def answer(log: ServedLog, name: str | None, items: list[int]) -> str:
    candidates = [{"item_id": item, "score": 1.0 / item} for item in range(11, 17)]
    request = parse_rank({"user_id": 1, "candidates": candidates} | ({"request_id": name} if name else {}))
    return log.record(request, Ranked(items, [0.5, 0.4, 1.0], "goalrank-ranker:7", "goalrank-ranker", "7", None, False))


def processes(workspace: Workspace, *told: tuple[str, list[str | None], list[int]]) -> None:
    """Each answers on a day with an empty memory, as processes that run side by side have never heard of each other."""
    served = workspace.folder / "served"
    times = [moment(day).timestamp() + late for late, (day, _, _) in enumerate(told)]
    logs = [ServedLog(served, clock=partial(float, now)) for now in times]
    for log, (_, names, items) in zip(logs, told, strict=True):
        for name in names:
            answer(log, name, items)
    for log in logs:
        log.close()


def test_a_request_that_two_processes_answered_arrives_once_and_the_gate_takes_it(workspace, tmp_path):
    """A client that tried again with its id, on the same day and on the next: the first answer counts."""
    clean_logs(tmp_path / "logs", [*DAYS, SERVED_ON, "2026-01-05"])
    processes(
        workspace,
        (SERVED_ON, ["one", "again", None], FIRST),
        (SERVED_ON, ["again", "two", None], SECOND),
        ("2026-01-05", ["again", "three", "2026-01-01-a"], SECOND),  # the last is the other writer's
    )
    done = collect(workspace, logs_of(workspace), moment("2026-01-06"))
    assert done["rows"] == {"requests": 6, "impressions": 18}
    assert done["left_out"] == {"requests": 3, "impressions": 9}
    said = collecting.said_of_repeats(done)
    assert "3 requests" in said and "9 of their impressions" in said
    shown = read_logs(logs_of(workspace), "impressions").to_pylist()
    assert [row["item_id"] for row in shown if row["request_id"] == "again"] == FIRST
    assert collect(workspace, logs_of(workspace), moment("2026-01-07"))["collected"] == {}
    assert night(tmp_path, "2026-01-05")["kind"] == "done"


def test_an_id_may_come_again_once_no_gate_sees_both(workspace):
    """The service takes it again after LATENESS_DAYS days, and so does the night, if those between have been read."""
    again = date.fromisoformat(SERVED_ON) + timedelta(days=LATENESS_DAYS + 1)
    for read_all in (False, True):
        place = Workspace(workspace.folder / str(read_all))
        logs = place.folder / "logs"
        for day in (SERVED_ON, again.isoformat()):
            processes(place, (day, ["again"], FIRST))
        if read_all:
            collect(place, logs, moment(again.isoformat()))
            place.new_night((again - timedelta(days=1)).isoformat(), {}).write(verdict="kept")
        done = collect(place, logs, moment((again + timedelta(days=1)).isoformat()))
        assert done["left_out"]["requests"] == (0 if read_all else 1)


@pytest.mark.parametrize("table", ["requests", "impressions"])
def test_what_was_left_out_stays_out_if_the_collection_was_interrupted(workspace, tmp_path, monkeypatch, table):
    clean_logs(tmp_path / "logs", [*DAYS, SERVED_ON])
    processes(workspace, (SERVED_ON, ["one", "again"], FIRST), (SERVED_ON, ["again", "two"], SECOND))
    move_in = collecting._move_in
    left = {"requests": 1, "impressions": 3}[table]

    def dies(*given: object) -> tuple[int, int]:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "no space left")
        return move_in(*given)

    monkeypatch.setattr(collecting, "_move_in", dies)
    with pytest.raises(OSError):
        collect(workspace, logs_of(workspace), moment("2026-01-05"))
    monkeypatch.setattr(collecting, "_move_in", move_in)
    collect(workspace, logs_of(workspace), moment("2026-01-05"))
    assert sorted(read_logs(logs_of(workspace), "requests")["request_id"].to_pylist()) == ["again", "one", "two"]
    shown = read_logs(logs_of(workspace), "impressions").to_pylist()
    assert [row["item_id"] for row in shown if row["request_id"] == "again"] == FIRST and len(shown) == 9


def test_a_simulated_world_is_refused(workspace):
    (logs_of(workspace) / "world.json").write_text("{}")
    with pytest.raises(UsageError, match="simulated world"):
        collect(workspace, logs_of(workspace))
