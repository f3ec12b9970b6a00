"""A schedule is checked before anybody is asked for anything: the server counts who connects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from goalrank.errors import TryAgain, UsageError
from pipelines.schedule import FIELDS, NAME, Schedule, submit
from tests.faults.conftest import Seen


class Pipelines(ThreadingHTTPServer):
    """As much of Kubeflow Pipelines' API as a recurring run needs, in memory; counts its connections."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.connections = self.made = 0
        self.experiments: list[dict[str, Any]] = []
        self.runs: dict[str, dict[str, Any]] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def enabled(self) -> list[dict[str, Any]]:
        return [run for run in self.runs.values() if run["mode"] == "ENABLE"]


class Answers(BaseHTTPRequestHandler):
    """One request to :class:`Pipelines`."""

    server: Pipelines

    def _answer(self, document: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rsplit("/", 1)[-1]
        server = self.server
        if path == "healthz":
            self._answer({"multi_user": False})
        elif path == "experiments":
            self._answer({"experiments": server.experiments, "total_size": len(server.experiments)})
        else:
            self._answer({"recurringRuns": list(server.runs.values()), "total_size": len(server.runs)})

    def do_POST(self) -> None:
        server, path = self.server, self.path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path.endswith(":disable"):
            server.runs[path.rsplit("/", 1)[-1].removesuffix(":disable")]["mode"] = "DISABLE"
            self._answer({})
        elif path.endswith("experiments"):
            server.experiments.append(json.loads(body) | {"experiment_id": "1"})
            self._answer(server.experiments[-1])
        else:
            server.made += 1
            number = str(server.made)
            server.runs[number] = json.loads(body) | {"recurring_run_id": number}
            self._answer(server.runs[number])

    def do_DELETE(self) -> None:
        del self.server.runs[self.path.rsplit("/", 1)[-1]]
        self._answer({})

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def pipelines() -> Iterator[Pipelines]:
    with Pipelines() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


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
def test_refused_before_anything_is_submitted(pipelines: Pipelines, cron: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        submit(Schedule.parse(cron, "UTC"), pipelines.host, {})
    assert pipelines.connections == 0


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../../etc/passwd"])
def test_a_time_zone_that_is_none(pipelines: Pipelines, zone: str) -> None:
    with pytest.raises(UsageError, match="expected a name such as Europe/Berlin"):
        submit(Schedule.parse("0 0 3 * * *", zone), pipelines.host, {})
    assert pipelines.connections == 0


def test_six_fields_are_submitted_once(pipelines: Pipelines, seen: Seen) -> None:
    """The same server is reached by a schedule that is right, and has one enabled run however often it is told."""
    for wrong, _ in REFUSED:
        with pytest.raises(UsageError):
            submit(Schedule.parse(wrong, "Europe/Berlin"), pipelines.host, {})
    assert pipelines.connections == 0
    for cron in ("0 0 3 * * *", "0 30 2 ? * *", "0 30 2 ? * *"):
        submit(Schedule.parse(cron, "Europe/Berlin"), pipelines.host, {"date": ""})
        assert [run["trigger"]["cron_schedule"]["cron"] for run in pipelines.enabled] == [cron]
    assert pipelines.connections > 0
    (run,) = pipelines.runs.values()
    assert (run["display_name"], run["max_concurrency"], run["no_catchup"]) == (NAME, 1, True)
    seen(
        f"`0 3 * * *` and {len(REFUSED) - 1} other wrong schedules for a server that counts its connections",
        "0 connections, the mended expression named; three right ones reach it, and one enabled run remains",
    )


def test_a_server_that_is_away_is_try_again() -> None:
    with pytest.raises(TryAgain, match="does not answer"):
        submit(Schedule.parse("0 0 3 * * *"), "http://127.0.0.1:9", {})


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
