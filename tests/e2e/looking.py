"""A page as a headless Chromium shows it: what it complains of, what it asks for outside itself, what axe finds.

    seen = look(path_or_url, "report-kept", dark=True, width=360)
    assert not seen.errors and not seen.outside and not seen.violations()

Chromium is the machine's own (CHROMIUM names another); Playwright brings none here. Playwright's synchronous interface
keeps an event loop in the thread it is used from: `asyncio.run` in the same thread does not work while it is open.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from goalrank_platform import root

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ARTIFACTS = root() / "build" / "browser"
"""Where screenshots are kept; git ignores it."""

ANSWER_MS = 15_000
DESKTOP, NARROW, NARROWEST = 1280, 360, 320
"""Widths in CSS pixels; nothing narrower than the last has to work (WCAG 1.4.10)."""


def chromium() -> str | None:
    """Path of the Chromium to look with; None where there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for path in map(shutil.which, CHROMIUM) if path), None)


@dataclass
class Seen:
    """A page that was opened; it stays open to the end of the test, for clicks and keys."""

    page: Page
    screenshot: Path
    errors: list[str] = field(default_factory=list)
    """Errors and warnings of the console, exceptions of the page's scripts, requests that came to nothing."""
    outside: list[str] = field(default_factory=list)
    """Addresses asked for outside the page's own origin; of a file, everything but itself."""

    def violations(self) -> list[str]:
        """What axe objects to, one line an element, empty where nothing."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
        return [
            f"{rule['id']} ({rule['impact']}): {node['target']}: {_first(node)}"
            for rule in found
            for node in rule["nodes"]
        ]

    def overflow(self) -> int:
        """CSS pixels by which the whole page can be scrolled sideways; what scrolls inside a box does not count."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def shoot(self, name: str | None = None) -> Path:
        """Keep a picture of the page as it is now."""
        path = self.screenshot if name is None else self.screenshot.with_name(f"{name}.png")
        self.page.screenshot(path=path, full_page=True)
        return path


def _first(node: dict[str, Any]) -> str:
    checks = [*node["any"], *node["all"], *node["none"]]
    return str(checks[0]["message"]) if checks else ""


class Looker:
    """Opens pages in one browser; call it."""

    def __init__(self, browser: Browser, artifacts: Path = ARTIFACTS) -> None:
        self._browser, self._artifacts = browser, artifacts
        self.kept: list[Path] = []

    def __call__(
        self,
        address: str | Path,
        name: str,
        *,
        dark: bool = False,
        width: int = DESKTOP,
        height: int = 900,
        javascript: bool = True,
    ) -> Seen:
        """Open a page, wait until it is quiet, keep a picture of the whole of it.

        Args:
            address: a file, or an http address on loopback.
            name: of the screenshot, without its ending.
            dark: what the person prefers.
            width, height: of the window, CSS pixels.
            javascript: False, as where scripts are forbidden; axe cannot look then.
        """
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            java_script_enabled=javascript,
        )
        context.set_default_timeout(ANSWER_MS)
        page = context.new_page()
        url = address if isinstance(address, str) else address.resolve().as_uri()
        self._artifacts.mkdir(parents=True, exist_ok=True)
        seen = Seen(page, self._artifacts / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}.png")
        page.on("console", lambda said: _note(seen, said.type, said.text))
        page.on("pageerror", lambda error: seen.errors.append(f"exception: {error}"))
        page.on("requestfailed", lambda request: seen.errors.append(f"{request.url}: {request.failure}"))
        page.on("request", lambda request: _ask(seen, url, request))
        page.goto(url, wait_until="networkidle")
        seen.shoot()
        self.kept.append(seen.screenshot)
        return seen

    def close(self) -> None:
        """Close every page that is open."""
        for context in self._browser.contexts:
            context.close()


def _note(seen: Seen, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        seen.errors.append(f"{kind}: {text}")


def _ask(seen: Seen, url: str, request: Request) -> None:
    asked, own = urlsplit(request.url), urlsplit(url)
    inside = asked.scheme in ("data", "blob", "about") or (
        asked._replace(fragment="") == own._replace(fragment="")
        if own.scheme == "file"
        else (asked.scheme, asked.netloc) == (own.scheme, own.netloc)
    )
    if not inside:
        seen.outside.append(request.url)


@contextmanager
def open_browser(path: str) -> Iterator[Browser]:
    """That Chromium, headless, until left."""
    from playwright.sync_api import sync_playwright

    # Chromium refuses to be root's in its sandbox, which is what a container runs as; what it opens here is ours.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*arguments, "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()
