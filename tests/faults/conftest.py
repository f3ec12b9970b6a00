"""Prints one numbered line for each point of points.py: what was done, and what was seen."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.faults.nights import Nights, begin
from tests.faults.points import IN_PART, OPEN, POINTS, SURVIVED, standing

Seen = Callable[[str, str], None]
Untried = Callable[[str, str], None]

NIGHTS_TIMEOUT = 3600
"""Seconds for a test with whole nights; minutes on two idle cores."""

SEEN, UNTRIED = "seen", "untried"
"""Properties of a test, by the fixtures of these names."""

_lines: dict[int, list[str]] = {}
_untried: dict[int, list[str]] = {}
_outcomes: dict[int, list[str]] = {}
_seconds: dict[int, float] = {}


def _point(path: str) -> int | None:
    found = re.search(r"test_(\d\d)_", path.rsplit("/", 1)[-1])
    return int(found[1]) if found else None


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Seen:
    """Call seen(what was done, what was seen) once the test has asserted it; it becomes part of the point's line."""
    told = request.node.user_properties  # these go with the report, also from another process (pytest-xdist)
    return lambda done, saw: told.append((SEEN, f"{done} -> {saw}"))


@pytest.fixture
def untried(request: pytest.FixtureRequest) -> Untried:
    """Call untried(what, why) where this machine does not let a part of the test be tried: the point's line says so."""
    told = request.node.user_properties
    return lambda what, why: told.append((UNTRIED, f"{what} ({why})"))


@pytest.fixture(scope="session")
def _one_night(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return begin(tmp_path_factory.mktemp("nights"))


@pytest.fixture
def nights(_one_night: Nights) -> Nights:
    """A workspace with one promoted tiny night, as it was right after that (tests/faults/nights.py). The night is run
    once for all faults of a process; a test that looks only pays nothing for the copy that is put back."""
    _one_night.restore()
    return _one_night


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever comes first waits for the night that all share, on a busy machine too."""
    for item in items:
        if "nights" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(NIGHTS_TIMEOUT), append=False)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    point = _point(report.nodeid.split("::")[0])
    if point is None:
        return
    _seconds[point] = _seconds.get(point, 0.0) + report.duration
    if report.when == "call" or report.outcome != "passed":
        _outcomes.setdefault(point, []).append(report.outcome)
    if report.skipped and isinstance(report.longrepr, tuple):
        name, reason = report.nodeid.rpartition("::")[2], report.longrepr[2].removeprefix("Skipped: ")
        _untried.setdefault(point, []).append(f"{name} ({reason})")
    if report.when == "teardown":  # each report of a test has the properties so far; this one has them all
        for told, name in ((_lines, SEEN), (_untried, UNTRIED)):
            told.setdefault(point, []).extend(str(said) for key, said in report.user_properties if key == name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _outcomes:
        return
    terminalreporter.section("faults")
    for point, title in POINTS.items():
        outcomes = _outcomes.get(point, [])
        word = standing(point, outcomes, _untried.get(point, []))
        told = "; ".join(_lines.get(point, []))
        took = f" ({_seconds[point]:.0f} s)" if outcomes else ""
        terminalreporter.write_line(f"{point:2d}. {title}: {word}{took}{'. ' + told if told else ''}")
    states = [standing(point, _outcomes.get(point, []), _untried.get(point, [])) for point in POINTS]
    survived, in_part = states.count(SURVIVED), sum(state.startswith(IN_PART) for state in states)
    minutes, still_open = sum(_seconds.values()) / 60, sum(point in OPEN for point in POINTS)
    partly = f", {in_part} in part" if in_part else ""
    terminalreporter.write_line(
        f"{survived} of {len(POINTS)} survived{partly}, {still_open} open, {minutes:.1f} minutes of tests"
    )
