"""The documents as a site: it builds strictly, holds every page, and its pages load nothing from another host."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.documents import PAGES, REPOSITORY

LOADS = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
}
"""Elements that make a browser ask for something, and the attribute that says what."""

NOT_LOADED = {"canonical", "next", "prev", "alternate"}
"""Kinds of <link> that a browser does not ask for."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` builds it."""
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Asked(HTMLParser):
    """Addresses that a browser asks for by itself, and those it shows as links."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        said = dict(attributes)
        if tag in LOADS and not (tag == "link" and set((said.get("rel") or "").split()) & NOT_LOADED):
            self.loads.append(said.get(LOADS[tag]) or "")
        if tag == "a":
            self.links.append(said.get("href") or "")
        self.loads += re.findall(r"url\(([^)]+)\)", said.get("style") or "")


def asked(page: Path) -> Asked:
    parser = Asked()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def test_every_page_is_in_it(site: Path) -> None:
    expected = {f"{page.stem}.html" for page in PAGES if page.name != "README.md"} | {"index.html"}
    assert expected <= {file.name for file in site.glob("*.html")}
    navigation = asked(site / "index.html").links
    assert {name for name in expected if name not in navigation} <= {"index.html"}


def test_pages_load_nothing_from_another_host(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        for address in asked(page).loads:
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{page.name} loads {address}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(
            r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", sheet.read_text(encoding="utf-8")
        ):
            assert not re.match(r"(?:https?:)?//", address[0] or address[1]), f"{sheet.name} loads {address}"


def test_files_of_the_repository_that_pages_link_to_are_there(site: Path) -> None:
    checked = 0
    for page in site.glob("*.html"):
        found = asked(page)
        for address in (*found.links, *found.loads):
            if address and not re.match(r"[a-z]+:|//|#|/", address) and page.name != "404.html":
                target = site / address.partition("#")[0].partition("?")[0]
                assert target.exists(), f"{page.name}: {address}"
                checked += "repository/" in address
    assert checked > 10


def test_the_comments_of_blocks_are_not_shown(site: Path) -> None:
    for page in (site / "quickstart.html", site / "runbook.html", site / "deploy.html"):
        shown = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "needs:" not in shown, page.name
