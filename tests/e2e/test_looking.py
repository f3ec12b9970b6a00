"""What the other tests here rely on: a page's faults are seen. A check that can find nothing proves nothing."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.looking import NARROWEST, Looker

SOUND = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title></head>
<body><main><h1>A page</h1>{}</main></body></html>"""


def written(folder: Path, inside: str) -> Path:
    page = folder / "page.html"
    page.write_text(SOUND.format(inside), encoding="utf-8")
    return page


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """An address on loopback that counts as outside, and answers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_sound_page_has_no_faults(look: Looker, tmp_path: Path) -> None:
    seen = look(written(tmp_path, "<p>Text.</p>"), "looking-sound")
    assert (seen.errors, seen.outside, seen.violations()) == ([], [], [])
    assert seen.overflow() == 0
    assert seen.screenshot.stat().st_size > 0


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("<script>console.error('broken')</script>", "broken"),
        ("<script>console.warn('odd')</script>", "odd"),
        ("<script>null.x</script>", "exception"),
        ("<img alt='' src='missing.png'>", "missing.png"),
    ],
)
def test_errors_are_seen(look: Looker, tmp_path: Path, inside: str, said: str) -> None:
    assert said in " ".join(look(written(tmp_path, inside), "looking-errors").errors)


def test_requests_outside_are_seen(look: Looker, tmp_path: Path, elsewhere: str) -> None:
    (tmp_path / "beside.css").write_text("p { color: #000 }")
    page = written(tmp_path, f"<link rel=stylesheet href=beside.css><img alt='' src='{elsewhere}/x.png'>")
    assert [address.rsplit("/", 1)[1] for address in look(page, "looking-outside").outside] == ["beside.css", "x.png"]


def test_inaccessible_and_overflowing_pages_are_seen(look: Looker, tmp_path: Path) -> None:
    inside = "<p style='color: #ccc; background: #fff'>Pale.</p><img src='data:,'><div style='width: 500px'>Wide</div>"
    seen = look(written(tmp_path, inside), "looking-inaccessible", width=NARROWEST)
    found = " ".join(seen.violations())
    assert "color-contrast" in found
    assert "image-alt" in found
    assert seen.overflow() >= 500 - NARROWEST


def test_dark_is_what_the_page_is_told(look: Looker, tmp_path: Path) -> None:
    style = "<style>@media (prefers-color-scheme: dark) { h1 { color: rgb(1, 2, 3) } }</style>"
    colour = "getComputedStyle(document.querySelector('h1')).color"
    page = written(tmp_path, style)
    assert look(page, "looking-dark", dark=True).page.evaluate(colour) == "rgb(1, 2, 3)"
    assert look(page, "looking-light").page.evaluate(colour) != "rgb(1, 2, 3)"
