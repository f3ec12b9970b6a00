"""A schedule is checked before anybody is asked for anything: the server counts who connects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from goalrank.errors import EXIT_TRY_AGAIN, EXIT_USAGE, UsageError
from pipelines.recurring import NAME
from pipelines.schedule import FIELDS, Schedule
from tests.cluster.kfp_server import KubeflowPipelines, serving
from tests.cluster.typed import Terminal, terminal_for
from tests.faults.conftest import Seen


@pytest.fixture
def pipelines() -> Iterator[KubeflowPipelines]:
    with serving() as server:
        yield server


@pytest.fixture
def terminal(pipelines: KubeflowPipelines, tmp_path: Path) -> Iterator[Terminal]:
    with terminal_for(pipelines, tmp_path) as typed:
        yield typed


REFUSED = [
    ("0 3 * * *", "has 5 fields, expected six.* did you mean '0 0 3 \\* \\* \\*'"),
    ("", "has 0 fields"),
    ("@daily", "has 1 field, expected six"),
    ("0 0 3 * * * 2026", "has 7 fields"),
    ("0 60 3 * * *", "minute '60' found, expected 0 to 59"),
    ("0 0 24 * * *", "hour '24' found, expected 0 to 23"),
    ("0 0 3 0 * *", "day of month '0' found, expected 1 to 31"),
    ("0 0 3 * 13 *", "month '13' found, expected 1 to 12, or JAN to DEC"),
    ("0 0 3 * * 7", "day of week '7' found, expected 0 to 6, or SUN to SAT"),
    ("0 0 3 * * MON-", "day of week 'MON-' found"),
    ("0 0 5-3 * * *", "a range that goes up"),
    ("0 0 */0 * * *", "a step of at least 1"),
    ("0 0 -1 * * *", "hour '-1' found"),
    ("0 0 ٣ * * *", "hour '٣' found"),
    ("* 0 3 * * *", "has 60 seconds"),
    ("0 */5 * * * *", "has 12 minutes"),
    ("0 0 3 31 2,4 *", "never comes"),
]


@pytest.mark.parametrize(("cron", "said"), REFUSED)
def test_refused_before_anything_is_submitted(
    pipelines: KubeflowPipelines, terminal: Terminal, cron: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Schedule.parse(cron, "UTC")
    refused = terminal.json("schedule", "apply", GOALRANK_CRON=cron)
    assert (refused["exit_code"], pipelines.connections) == (EXIT_USAGE, 0)


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../../etc/passwd"])
def test_a_time_zone_that_is_none(pipelines: KubeflowPipelines, terminal: Terminal, zone: str) -> None:
    refused = terminal.json("schedule", "apply", GOALRANK_TIME_ZONE=zone)
    assert "expected a name such as Europe/Berlin" in refused["reason"]
    assert pipelines.connections == 0


def test_six_fields_are_submitted_once(pipelines: KubeflowPipelines, terminal: Terminal, seen: Seen) -> None:
    """The same server is reached by a schedule that is right, and has one enabled run however often it is told."""
    for cron in ("0 0 3 * * *", "0 30 2 ? * *", "0 30 2 ? * *"):
        assert terminal.json("schedule", "apply", "--cron", cron, "--time-zone", "Europe/Berlin")["exit_code"] == 0
        assert [run["trigger"]["cron_schedule"]["cron"] for run in pipelines.enabled] == [cron]
    assert pipelines.connections > 0
    (run,) = pipelines.recurring.values()
    assert (run["display_name"], run["max_concurrency"], run["no_catchup"]) == (NAME, "1", True)
    seen(
        f"`0 3 * * *` and {len(REFUSED) - 1} other wrong schedules for a server that counts its connections",
        "0 connections, the mended expression named; three right ones reach it, and one enabled run remains",
    )


def test_a_server_that_is_away_is_try_again(terminal: Terminal) -> None:
    away = terminal.json("schedule", "apply", GOALRANK_KFP_ENDPOINT="http://127.0.0.1:9")
    assert (away["exit_code"], "does not answer" in away["reason"]) == (EXIT_TRY_AGAIN, True)


@pytest.mark.parametrize(
    ("cron", "nights"),
    [
        ("0 30 2 * * *", ["2026-03-28 02:30", "2026-03-29 02:30"]),
        ("15 0 3 ? * MON-FRI", ["2026-03-30 03:00", "2026-03-31 03:00"]),
        ("0 0 3 1,15 * *", ["2026-04-01 03:00", "2026-04-15 03:00"]),
        ("0 0 3 13 * FRI", ["2026-04-03 03:00", "2026-04-10 03:00"]),  # either, where both are given
        ("0 0 */12 * feb *", ["2027-02-01 00:00", "2027-02-01 12:00"]),
        ("0 0 22/1 29 2 ?", ["2028-02-29 22:00", "2028-02-29 23:00"]),
    ],
)
def test_when_the_next_nights_are(cron: str, nights: list[str]) -> None:
    schedule, at = Schedule.parse(cron), datetime(2026, 3, 27, 12, tzinfo=UTC)
    for expected in nights:
        found = schedule.next_after(at)
        assert found is not None and found.strftime("%Y-%m-%d %H:%M") == expected
        at = found
    assert len(schedule.values) == len(FIELDS)
