"""Every item of the world has a title of HTML and script; a column of a refused day is named in HTML. The reports of
both nights show them as text, and load nothing from anywhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from tests.faults.conftest import Seen
from tests.faults.nights import HOSTILE_COLUMN, HOSTILE_TITLE, Nights, run_night

LOADING = (
    "src",
    "href",
    "xlink:href",
    "srcset",
    "action",
    "formaction",
    "data",
    "poster",
    "background",
    "ping",
    "cite",
)
OUTSIDE = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//|^\s*(?:javascript|vbscript|data:text)", re.IGNORECASE)


class Page(HTMLParser):
    """What a browser would make of a page: tags, attributes that load or run something, text, styles, policy."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.styles: list[str] = []
        self.policy = ""
        self.words: list[str] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._within = tag
        given = {name: value or "" for name, value in attrs}
        self.handlers += [name for name in given if name.startswith("on")]
        self.references += [value for name, value in given.items() if name in LOADING]
        self.styles.append(given.get("style", ""))
        if tag == "meta" and given.get("http-equiv", "").lower() == "content-security-policy":
            self.policy = given["content"]
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.references.append(given["content"])

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        (self.styles if self._within == "style" else self.words).append(data)


def assert_harmless(page: Page) -> None:
    assert not page.tags & {"script", "img", "iframe", "object", "embed", "link", "base", "form", "video", "audio"}
    assert not page.handlers
    assert not [reference for reference in page.references if OUTSIDE.search(reference)]
    for style in page.styles:
        assert "@import" not in style
        for target in re.findall(r"url\(\s*['\"]?([^)'\"]+)", style):
            assert target.startswith("#"), f"a style loads {target}"
    assert re.search(r"default-src 'none'", page.policy)
    assert "script-src" not in page.policy


def test_titles_are_text(nights: Nights, seen: Seen) -> None:
    text = Path(nights.first["report"]).read_text()
    page = Page(text)
    assert_harmless(page)
    shown = [word for word in page.words if HOSTILE_TITLE.partition("{")[0] in word]
    assert shown, "the report shows example lists with titles"
    assert "<script" not in text
    seen(
        f"every item called {HOSTILE_TITLE.format(item=1)[:34]}..., a promoted night",
        f"{len(shown)} titles shown as text; no script, image or handler in the page, no address outside",
    )


def test_names_in_refused_data_are_text(nights: Nights, seen: Seen) -> None:
    nights.break_next_day()
    refused = run_night(nights.workspace)
    text = Path(refused["report"]).read_text()
    page = Page(text)
    assert_harmless(page)
    assert any(HOSTILE_COLUMN in word for word in page.words), "the refusal names the column"
    seen(f"a refused day whose column is called {HOSTILE_COLUMN}", "named in the report, as text")
