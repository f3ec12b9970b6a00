"""The browser the pages are looked at with: the machine's own Chromium. Where there is none, everything here skips."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from tests import lacking
from tests.e2e.looking import ARTIFACTS, Looker, chromium, open_browser

KEPT = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def looker() -> Iterator[Looker]:
    """One browser for the session."""
    missing = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name) is None]
    if missing:
        lacking.skip(f"{' and '.join(missing)} not installed; the extra `dev` brings it")
    path = chromium()
    if path is None:
        lacking.skip("no Chromium found: apt-get install chromium, or name one in CHROMIUM")
    with open_browser(path) as browser:
        yield Looker(browser)


@pytest.fixture
def look(looker: Looker, pytestconfig: pytest.Config) -> Iterator[Looker]:
    """look(path or address, name of the screenshot, dark=, width=) -> Seen; its pages close when the test ends."""
    yield looker
    looker.close()
    pytestconfig.stash[KEPT] = len(set(looker.kept))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Where the screenshots are."""
    if kept := config.stash.get(KEPT, 0):
        terminalreporter.write_line(f"{kept} screenshots in {ARTIFACTS}")
