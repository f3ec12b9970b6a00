"""Prints one numbered line for each point of points.py: what was done, and what was seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.faults.points import OPEN, POINTS

Seen = Callable[[str, str], None]

_lines: dict[int, list[str]] = {}
_outcomes: dict[int, list[str]] = {}


def _point(path: str) -> int | None:
    found = re.search(r"test_(\d\d)_", path.rsplit("/", 1)[-1])
    return int(found[1]) if found else None


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """Call seen(what was done, what was seen) once the test has asserted it; it becomes part of the point's line."""
    told: list[str] = []
    yield lambda done, saw: told.append(f"{done} -> {saw}")
    point = _point(str(request.path))
    if point is not None:
        _lines.setdefault(point, []).extend(told)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    point = _point(report.nodeid.split("::")[0])
    if point is not None and (report.when == "call" or report.outcome != "passed"):
        _outcomes.setdefault(point, []).append(report.outcome)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _outcomes:
        return
    terminalreporter.section("faults")
    for point, title in POINTS.items():
        outcomes = _outcomes.get(point, [])
        if not outcomes:
            word = f"open: {OPEN[point]}" if point in OPEN else "not run"
        elif "failed" in outcomes:
            word = "FAILED"
        elif "passed" not in outcomes:
            word = "skipped"
        else:
            word = "survived"
        told = "; ".join(_lines.get(point, []))
        terminalreporter.write_line(f"{point:2d}. {title}: {word}{'. ' + told if told else ''}")
    states = [_outcomes.get(point, []) for point in POINTS]
    survived = sum("passed" in state and "failed" not in state for state in states)
    terminalreporter.write_line(f"{survived} of {len(POINTS)} survived, {sum(point in OPEN for point in POINTS)} open")
