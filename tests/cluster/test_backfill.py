"""Nights by date: in order, one at a time, gone on with after a cut; what ended well is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components import the_night
from goalrank.errors import EXIT_BUG, EXIT_TRY_AGAIN, EXIT_USAGE, UsageError
from pipelines.backfill import require_closed
from tests.cluster.kfp_server import Fault, KubeflowPipelines, serving
from tests.cluster.typed import OTHER_IMAGE, TOKEN, Terminal

DAYS = ["2026-01-05", "2026-01-06", "2026-01-07"]
BACKFILL = ("backfill", "--from", DAYS[0], "--to", DAYS[-1], "--poll-seconds", "0.01")


@pytest.fixture
def server() -> Iterator[KubeflowPipelines]:
    with serving(token=TOKEN, largest_page=2) as answering:
        yield answering


def nights(server: KubeflowPipelines) -> list[tuple[str, str]]:
    """Date as given, and state, of every run, in the order in which they began."""
    return [(run["runtime_config"]["parameters"]["date"], run["state"]) for run in server.runs.values()]


def test_one_night_now(server: KubeflowPipelines, terminal: Terminal) -> None:
    done = terminal.json("submit", "--date", DAYS[0])
    (run,) = server.runs.values()
    given = run["runtime_config"]["parameters"]
    assert (done["run"], run["display_name"]) == (run["run_id"], f"goalrank-nightly {DAYS[0]}")
    assert (given["date"], given["logs_uri"], given["snapshots_uri"]) == (
        DAYS[0],
        "/workspace/logs",
        "/workspace/snapshots",
    )
    assert given["run_uri"] == done["run_uri"] and f"/{DAYS[0]}/" in done["run_uri"]
    busy = terminal.json("submit", "--date", DAYS[1])
    assert (busy["exit_code"], "is pending" in busy["reason"]) == (EXIT_TRY_AGAIN, True)
    run["state"] = "FAILED"
    assert terminal.json("submit", "--date", DAYS[0])["run_uri"] == done["run_uri"], "it goes on in its folder"
    list(server.runs.values())[-1]["state"] = "FAILED"
    rebuilt = terminal.json("submit", "--date", DAYS[0], "--full-rebuild")
    assert rebuilt["run_uri"] != done["run_uri"], "another night"
    assert list(server.runs.values())[-1]["runtime_config"]["parameters"]["full_rebuild"] is True
    list(server.runs.values())[-1]["state"] = "FAILED"
    other = terminal.json("submit", "--date", DAYS[0], GOALRANK_TRAIN_IMAGE=OTHER_IMAGE)
    assert other["run_uri"] != done["run_uri"], "another night begins anew"


def test_in_order_and_one_at_a_time(server: KubeflowPipelines, terminal: Terminal) -> None:
    said = terminal.type(*BACKFILL, "--json")
    assert (said.code, said.document["done"], said.document["skipped"]) == (0, DAYS, [])
    assert nights(server) == [(day, "SUCCEEDED") for day in DAYS]
    assert server.overlaps == 0
    assert f"2/3 {DAYS[1]}: ended well" in said.err
    again = terminal.json(*BACKFILL)
    assert (again["done"], again["skipped"], len(server.runs)) == ([], DAYS, 3)


def test_a_night_that_fails_ends_it_and_the_next_goes_on(server: KubeflowPipelines, terminal: Terminal) -> None:
    server.ends = {DAYS[1]: ["FAILED"]}
    failed = terminal.json(*BACKFILL)
    assert (failed["exit_code"], failed["kind"]) == (EXIT_BUG, "failed")
    assert f"the night of {DAYS[1]} ended failed" in failed["reason"]
    assert nights(server) == [(DAYS[0], "SUCCEEDED"), (DAYS[1], "FAILED")]
    done = terminal.json(*BACKFILL)
    assert (done["skipped"], done["done"]) == (DAYS[:1], DAYS[1:])
    assert nights(server)[2:] == [(day, "SUCCEEDED") for day in DAYS[1:]]


def test_interrupted_it_goes_on_with_the_night_under_way(
    server: KubeflowPipelines, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        if len(server.runs) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.backfill.time.sleep", interrupt)
        cut = terminal.json(*BACKFILL)
    assert (cut["exit_code"], cut["kind"]) == (EXIT_TRY_AGAIN, "interrupted")
    assert nights(server)[1] == (DAYS[1], "RUNNING"), "it goes on without us"
    said = terminal.type(*BACKFILL, "--json")
    assert (said.document["skipped"], said.document["done"]) == (DAYS[:1], DAYS[1:])
    assert f"waiting for the night of {DAYS[1]}, which runs" in said.err
    assert [day for day, _ in nights(server)] == DAYS, "no date was started twice"
    assert server.overlaps == 0


def test_a_token_may_be_replaced_meanwhile(
    server: KubeflowPipelines, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Tokens of service accounts last an hour: the server takes another one from the second night on."""
    file = tmp_path / "token"
    file.write_text(TOKEN)

    def replaced(_: float) -> None:
        if len(server.runs) == 1:
            file.write_text("")  # as `kubectl create token >token` leaves it for a moment
        elif server.token == TOKEN:
            server.token = "another-token"
            file.write_text(server.token)

    monkeypatch.setattr("pipelines.backfill.time.sleep", replaced)
    given = {"GOALRANK_KFP_TOKEN": "", "GOALRANK_KFP_TOKEN_FILE": str(file)}
    assert terminal.json(*BACKFILL, **given)["done"] == DAYS
    assert server.token == "another-token"


def test_an_answer_that_was_lost_starts_no_second_night(server: KubeflowPipelines, terminal: Terminal) -> None:
    server.faults = [Fault("POST /runs$", 502, after=True)]
    assert terminal.json(*BACKFILL)["exit_code"] == EXIT_TRY_AGAIN
    assert terminal.json(*BACKFILL)["done"] == DAYS
    assert [day for day, _ in nights(server)] == DAYS


def test_the_server_may_be_away_while_it_waits(
    server: KubeflowPipelines, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults = [Fault("GET /runs/", 503, times=10)]
    assert terminal.json(*BACKFILL)["done"] == DAYS
    monkeypatch.setattr("pipelines.backfill.AWAY_SECONDS", 0.0)
    server.runs.clear()
    server.faults = [Fault("GET /runs/", 503, times=99)]
    assert "503: injected" in terminal.json(*BACKFILL)["reason"]


def test_scheduled_nights_count_too(server: KubeflowPipelines, terminal: Terminal) -> None:
    terminal.json("schedule", "apply")
    (recurring,) = server.recurring.values()
    for day, state in ((6, "SUCCEEDED"), (7, "FAILED"), (8, "RUNNING")):
        server.tick(recurring, datetime(2026, 1, day, 2, 30, tzinfo=UTC), state)
    done = terminal.json(*BACKFILL)
    assert (done["skipped"], done["done"]) == ([DAYS[0], DAYS[2]], [DAYS[1]])
    assert [day for day, _ in nights(server)] == ["auto"] * 3 + [DAYS[1]], "the scheduled one was waited for"
    assert server.overlaps == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("submit", "--date", "tomorrow"), "expected a day such as"),
        (("submit", "--date", "before 2026-01-06"), "expected a day such as"),
        (("backfill", "--from", "2026-01-06", "--to", "2026-01-05"), "1 to 366 days in order"),
        (("backfill", "--from", "2024-01-01", "--to", "2026-01-05"), "1 to 366 days in order"),
        (("backfill", "--from", "2026-1-6", "--to", "2026-01-07"), "--from"),
        (("submit", "--date", "2999-01-01"), "--date 2999-01-01 found, expected a day that is over"),
        (
            ("backfill", "--from", "2999-01-01", "--to", "2999-01-02"),
            "--to 2999-01-02 found, expected a day that is over",
        ),
        (("backfill", "--from", "2999-01-02", "--to", "2999-01-01"), "1 to 366 days in order"),
    ],
)
def test_dates_are_looked_at_first(
    server: KubeflowPipelines, terminal: Terminal, words: tuple[str, ...], said: str
) -> None:
    document: dict[str, Any] = terminal.json(*words)
    assert (document["exit_code"], said in document["reason"]) == (EXIT_USAGE, True), document
    assert server.connections == 0


@pytest.mark.parametrize(("hour", "fits"), [(0, False), (23, False), (24, True)])
def test_a_day_is_over_at_midnight_in_utc(monkeypatch: pytest.MonkeyPatch, hour: int, fits: bool) -> None:
    """As `auto` means it (components/the_night.py)."""
    monkeypatch.setattr(the_night, "_now", lambda: datetime(2026, 1, 5, tzinfo=UTC) + timedelta(hours=hour))
    assert require_closed("--date", "2026-01-04") == "2026-01-04"
    with (
        nullcontext() if fits else pytest.raises(UsageError, match="expected a day that is over: 2026-01-04 is the new")
    ):
        require_closed("--date", "2026-01-05")
