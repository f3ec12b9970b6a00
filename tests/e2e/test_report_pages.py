"""The pages of nights in a real browser: four reports, two nights side by side, all nights.

In light and in dark, on a desktop and on the narrowest screen: no error, no request, nothing axe objects to, no page
that scrolls sideways. Item titles are hostile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.publish_report.report import PAGE
from components.publish_report.sections import SECTIONS
from console.main import app
from tests.components.reported_nights import HOSTILE, ReportedNights, shared_nights
from tests.e2e.looking import DESKTOP, NARROWEST, Looker

PAGES = ("promoted", "kept", "refused", "failed", "index", "comparison")
VERDICTS = PAGES[:4]


@pytest.fixture(scope="session")
def nights(looker: Looker) -> ReportedNights:
    """Made only where there is a browser to look with; every report written again once all nights are there."""
    made = shared_nights()
    for number in range(1, 5):
        goalrank(made, "--run", f"{made.date}/{number}")
    goalrank(made, "--compare", f"{made.date}/1", f"{made.date}/2")
    return made


@pytest.fixture(scope="session")
def pages(nights: ReportedNights) -> dict[str, Path]:
    comparison = nights.workspace / "comparisons" / f"{nights.date}-1_{nights.date}-2.html"
    reports = {verdict: getattr(nights, verdict) / PAGE for verdict in VERDICTS}
    return {**reports, "index": nights.workspace / "nights" / "index.html", "comparison": comparison}


def goalrank(nights: ReportedNights, *flags: str) -> None:
    result = CliRunner().invoke(app, ["report", "--workspace", str(nights.workspace), *flags])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_no_error_no_request_and_accessible(look: Looker, pages: dict[str, Path], name: str, dark: bool) -> None:
    seen = look(pages[name], f"{name}-{'dark' if dark else 'light'}", dark=dark)
    assert (seen.errors, seen.outside) == ([], [])
    assert seen.violations() == []
    # What is folded away is looked at too.
    seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert seen.violations() == []


@pytest.mark.parametrize("name", PAGES)
def test_narrow_screens_scroll_tables_and_not_the_page(look: Looker, pages: dict[str, Path], name: str) -> None:
    seen = look(pages[name], f"{name}-narrow", width=NARROWEST, height=640)
    seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert seen.overflow() == 0
    assert (seen.errors, seen.violations()) == ([], [])


@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict_is_what_one_sees_first(look: Looker, pages: dict[str, Path], name: str) -> None:
    page = look(pages[name], f"{name}-top").page
    verdict = page.locator(".verdict")
    assert verdict.inner_text().startswith(f"{name.capitalize()}. ")
    box = verdict.bounding_box()
    assert box is not None and box["y"] + box["height"] < 900, "it stands above the fold"


def test_hostile_titles_are_shown_and_run_nothing(look: Looker, pages: dict[str, Path]) -> None:
    seen = look(pages["promoted"], "promoted-titles")
    page = seen.page
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.title().startswith("GoalRank night")
    shown = page.locator("#examples").inner_text()
    for title in HOSTILE:
        assert " ".join(title.split()) in " ".join(shown.split()), title
    assert page.locator("#examples script, #examples img, #examples bdi svg").count() == 0
    # A right-to-left title turns round alone: nothing else stands inside what isolates it.
    assert page.locator("#examples li").count() == page.locator("#examples li bdi").count()
    assert page.locator("#examples bdi *").count() == 0
    assert (seen.errors, seen.outside) == ([], [])


def test_everything_can_be_reached_by_keyboard(look: Looker, pages: dict[str, Path]) -> None:
    page = look(pages["promoted"], "promoted-keyboard", width=NARROWEST).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        label = page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.tagName")
        reached.add(label)
        if label == "BODY":
            break
    scrolled = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility({contentVisibilityAuto: true}))"
        ".map(e => e.getAttribute('aria-label'))"
    )
    assert scrolled and set(scrolled) <= reached
    assert {"SUMMARY", "A"} <= reached


def test_a_link_leads_to_every_section(look: Looker, pages: dict[str, Path]) -> None:
    page = look(pages["kept"], "kept-links").page
    links = page.locator(".contents a").evaluate_all("all => all.map(one => one.getAttribute('href').slice(1))")
    assert links == [section.key for section in SECTIONS if section.key != "experiment"]
    assert page.locator("main section[id]").evaluate_all("all => all.map(one => one.id)") == links


def test_plots_take_the_pages_colours(look: Looker, pages: dict[str, Path]) -> None:
    colour = "getComputedStyle(document.querySelector('figure svg text')).fill"
    light = look(pages["kept"], "kept-plots-light").page.evaluate(colour)
    dark = look(pages["kept"], "kept-plots-dark", dark=True).page.evaluate(colour)
    assert light != dark
    text = pages["kept"].read_text(encoding="utf-8")
    styles = re.findall(r'<(?:path|use|text|g)[^>]*style="([^"]*)"', text)
    assert "var(--challenger)" in " ".join(styles)
    assert not re.findall(r"#[0-9a-f]{6}", " ".join(styles)), "every colour of a plot is one of the page's variables"
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)) and {
        one or other for one, other in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    } <= set(ids)


@pytest.fixture
def framed(tmp_path: Path, pages: dict[str, Path]) -> Iterator[Path]:
    """The report in a frame that may do nothing: no scripts, no origin."""
    from html import escape

    content = escape(pages["promoted"].read_text(encoding="utf-8"), quote=True)
    page = tmp_path / "framed.html"
    frame = f'<iframe title="report" sandbox style="width: 100%; height: 95vh" srcdoc="{content}"></iframe>'
    page.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><title>frame</title>{frame}', "utf-8")
    yield page


def test_it_works_in_a_sandboxed_frame(look: Looker, framed: Path) -> None:
    seen = look(framed, "promoted-framed")
    frame = seen.page.frame_locator("iframe")
    assert frame.locator(".verdict").inner_text().startswith("Promoted. ")
    frame.locator("details:not([open]) summary").first.click()
    assert frame.locator("figure svg").first.is_visible()
    assert (seen.errors, seen.outside) == ([], [])


def test_on_paper_nothing_is_cut_or_folded(look: Looker, pages: dict[str, Path]) -> None:
    seen = look(pages["promoted"], "promoted-paper", width=700)  # A4 within its margins
    seen.page.emulate_media(media="print", color_scheme="dark")
    assert seen.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert seen.overflow() == 0
    last = seen.page.locator("#examples li").last
    box = last.bounding_box()
    assert box is not None and box["height"] > 0, "folded examples are printed too"
    assert seen.page.pdf(format="A4").startswith(b"%PDF")
    seen.shoot("promoted-print")


def test_a_report_leads_to_all_nights_and_back(look: Looker, pages: dict[str, Path], nights: ReportedNights) -> None:
    page = look(pages["promoted"], "promoted-links", width=DESKTOP).page
    page.get_by_role("link", name="All nights").click()
    assert page.url == pages["index"].resolve().as_uri()
    page.get_by_role("link", name=f"{nights.date}/2", exact=True).click()
    assert page.url == pages["kept"].resolve().as_uri()
