"""Real reports, comparisons, Data Docs, all nights as `goalrank ui` serves them: its policy lets them be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from console.main import app
from tests.components.reported_nights import ReportedNights, shared_nights
from tests.e2e.looking import Looker
from tests.ui_workspace import pages

STAND_IN = "/docs/"
"""Where reported_nights.py lets gates write that kfp has write to .../data_docs."""
VERDICTS = ("promoted", "kept", "refused", "failed")


@pytest.fixture(scope="module")
def nights(looker: Looker) -> ReportedNights:
    """Made only where there is a browser; two of them compared, which writes the page of all nights too."""
    made = shared_nights()
    flags = ["--workspace", str(made.workspace), "--compare", f"{made.date}/1", f"{made.date}/2"]
    assert CliRunner().invoke(app, ["report", *flags]).exit_code == 0
    return made


@pytest.fixture(scope="module")
def address(nights: ReportedNights) -> Iterator[str]:
    with pages(nights.workspace) as found:
        yield found


def comparison(nights: ReportedNights, address: str) -> str:
    return f"{address}/comparisons/{nights.date}-1_{nights.date}-2.html"


def test_two_nights_side_by_side_are_served_as_they_are_on_disk(
    look: Looker, nights: ReportedNights, address: str
) -> None:
    served = look(comparison(nights, address), "ui-comparison")
    on_disk = look(nights.workspace / "comparisons" / f"{nights.date}-1_{nights.date}-2.html", "ui-comparison-on-disk")
    assert (served.errors, served.outside, served.violations()) == ([], [], [])
    assert served.page.inner_text("main") == on_disk.page.inner_text("main")
    served.page.get_by_role("link", name="All nights").click()
    assert served.page.url == f"{address}/nights/index.html"
    served.page.get_by_role("link", name=f"{nights.date}/1 against {nights.date}/2").click()
    assert served.page.url == comparison(nights, address)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_report_is_as_it_is_on_disk(look: Looker, nights: ReportedNights, address: str, verdict: str) -> None:
    folder: Path = getattr(nights, verdict)
    served = look(f"{address}/nights/{folder.relative_to(nights.workspace / 'nights')}/report.html", f"ui-{verdict}")
    on_disk = look(folder / "report.html", f"ui-{verdict}-on-disk")
    assert (served.errors, served.outside, served.violations()) == ([], [], [])
    assert served.page.inner_text("main") == on_disk.page.inner_text("main")
    assert served.page.evaluate("() => getComputedStyle(document.body).fontFamily") == on_disk.page.evaluate(
        "() => getComputedStyle(document.body).fontFamily"
    )


def test_every_link_of_the_front_page_leads_somewhere(look: Looker, nights: ReportedNights, address: str) -> None:
    seen = look(f"{address}/", "ui-nights-real")
    assert (seen.errors, seen.outside, seen.violations(), seen.overflow()) == ([], [], [], 0)
    found = seen.page.eval_on_selector_all("main a", "links => links.map(link => link.href)")
    inside = [link for link in found if link.startswith(address)]
    assert f"{address}/nights/index.html" in inside
    assert sum("report.html" in link for link in inside) == len(VERDICTS)
    assert any("/data_docs/" in link for link in inside)
    assert comparison(nights, address) in inside
    for link in inside:
        page = look(link, "ui-linked")
        assert (page.errors, page.outside) == ([], []), link


def test_every_link_of_a_report_of_a_comparison_and_of_the_page_of_all_nights_does_too(
    look: Looker, nights: ReportedNights, address: str
) -> None:
    run = nights.promoted.relative_to(nights.workspace / "nights")
    for page in (f"{address}/nights/{run}/report.html", f"{address}/nights/index.html", comparison(nights, address)):
        seen = look(page, "ui-links")
        links = seen.page.eval_on_selector_all("a", "links => links.map(link => link.href.split('#')[0])")
        inside = {link for link in links if link.startswith(address) and STAND_IN not in link}
        assert len(inside) > 1
        for link in sorted(inside):
            answer = seen.page.request.get(link)
            assert answer.status == 200, (page, link)
