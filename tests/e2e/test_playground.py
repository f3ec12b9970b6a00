"""Front page and playground in a real browser: quiet, accessible, hostile titles as text, rewards that are true."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.looking import Looker, Seen
from tests.ui_workspace import HOSTILE, make_workspace, pages, wait_until_loaded

SCRIPT = Path(__file__).resolve().parents[2] / "console" / "ui" / "static" / "playground.js"
LARGEST_SCRIPT = 15_000
CHAMPION = 2
"""Column of the champion's list in the table of lists, after the positions'."""


@pytest.fixture(scope="module")
def address(looker: Looker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the pages of a small workspace; made only where there is a browser."""
    with pages(make_workspace(tmp_path_factory.mktemp("playground")).folder) as found:
        wait_until_loaded(found)
        yield found


def opened(look: Looker, address: str, name: str, **how: Any) -> Seen:
    """The playground with its first request on it."""
    seen = look(f"{address}/playground", name, **how)
    seen.page.wait_for_selector("#list li", timeout=120_000)
    return seen


def faults(seen: Seen) -> list[str]:
    return [*seen.errors, *seen.outside, *seen.violations()]


def order(seen: Seen) -> list[str]:
    """Item ids of the list that is being changed."""
    return seen.page.eval_on_selector_all("#list li", "rows => rows.map(row => row.dataset.item)")


def reward(seen: Seen) -> tuple[float, float]:
    """What the page says: the list's predicted reward and the champion's."""
    words = seen.page.inner_text("#reward").split()
    return float(words[2].rstrip(",")), float(words[words.index("champion's") + 1].rstrip("."))


def asked(address: str, seen: Seen) -> float:
    """What the reward model says of that list when asked directly."""
    body = {"request_id": seen.page.input_value("#request"), "items": order(seen)}
    request = urllib.request.Request(
        f"{address}/api/opinion", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return float(json.load(answer)["reward"])


def told(seen: Seen, words: str) -> None:
    """Wait until a screen reader has been told so, which is after the reward has come."""
    seen.page.wait_for_function("words => document.getElementById('live').textContent.includes(words)", arg=words)


def test_the_script_is_small() -> None:
    assert SCRIPT.stat().st_size < LARGEST_SCRIPT
    text = SCRIPT.read_text(encoding="utf-8")
    ways = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
    assert not [way for way in ways if way in text], "what comes from logs is set as text only"


@pytest.mark.parametrize(("name", "how"), [("wide", {}), ("narrow-dark", {"width": 360, "dark": True})])
def test_the_front_page_is_quiet_and_accessible(look: Looker, address: str, name: str, how: dict[str, Any]) -> None:
    seen = look(f"{address}/", f"ui-nights-{name}", **how)
    assert faults(seen) == [] and seen.overflow() == 0
    seen.page.click("text=Report")
    assert seen.page.inner_text("h1") == "Kept" and seen.errors == []
    seen.page.go_back()
    seen.page.click("text=Data: check logs")
    assert seen.page.inner_text("h1") == "Data Docs" and seen.errors == []


@pytest.mark.parametrize(
    ("name", "how"), [("wide", {}), ("dark", {"dark": True}), ("narrow", {"width": 360}), ("narrowest", {"width": 320})]
)
def test_the_playground_is_quiet_and_accessible(look: Looker, address: str, name: str, how: dict[str, Any]) -> None:
    seen = opened(look, address, f"ui-playground-{name}", **how)
    seen.shoot()
    assert faults(seen) == [] and seen.overflow() == 0


def test_hostile_titles_are_text(look: Looker, address: str) -> None:
    seen = opened(look, address, "ui-playground-hostile")
    assert HOSTILE in seen.page.inner_text("#candidates")
    assert seen.page.query_selector_all("main img, main script") == []
    assert seen.page.title() == "Playground – GoalRank" and seen.errors == []


def test_buttons_move_an_item_and_the_reward_is_the_models(look: Looker, address: str) -> None:
    seen = opened(look, address, "ui-playground-moved")
    before = order(seen)
    mine, champions = reward(seen)
    assert mine == champions == pytest.approx(asked(address, seen), abs=6e-4)
    seen.page.focus('#list li:nth-child(1) [data-do="down"]')
    for place in (2, 3):
        seen.page.keyboard.press("Enter")
        told(seen, f"is at position {place}.")
        assert seen.page.evaluate("document.activeElement.closest('li').dataset.item") == before[0]
        assert order(seen).index(before[0]) == place - 1
        mine, still = reward(seen)
        assert mine == pytest.approx(asked(address, seen), abs=6e-4) and still == champions
    assert f"Predicted reward {mine:.3f}" in seen.page.inner_text("#live")
    seen.shoot()
    assert faults(seen) == []


def test_at_the_end_the_focus_stays_with_the_item(look: Looker, address: str) -> None:
    seen = opened(look, address, "ui-playground-end")
    item, last = order(seen)[-2], len(order(seen))
    seen.page.focus(f'#list li:nth-child({last - 1}) [data-do="down"]')
    seen.page.keyboard.press("Enter")
    told(seen, f"is at position {last}.")
    assert seen.page.evaluate("document.activeElement.dataset.do") == "up"
    assert seen.page.evaluate("document.activeElement.closest('li').dataset.item") == item


def test_another_candidate_is_put_in_and_the_champions_list_comes_back(look: Looker, address: str) -> None:
    seen = opened(look, address, "ui-playground-replaced")
    before = order(seen)
    other = seen.page.eval_on_selector("#list li:nth-child(2) select", "select => select.options[1].value")
    seen.page.select_option("#list li:nth-child(2) select", other)
    told(seen, "at position 2.")
    assert order(seen) == [before[0], other, *before[2:]]
    assert reward(seen)[0] == pytest.approx(asked(address, seen), abs=6e-4)
    seen.page.click("text=Begin with: Champion")
    told(seen, "Your list is now: Champion.")
    assert order(seen) == before and reward(seen)[0] == reward(seen)[1]


def test_dragging_within_the_list_and_from_the_candidates(look: Looker, address: str) -> None:
    seen = opened(look, address, "ui-playground-dragged")
    before = order(seen)
    seen.page.drag_and_drop("#list li:nth-child(1) .number", "#list li:nth-child(3) .number")
    told(seen, "is at position 3.")
    assert order(seen) == [before[1], before[2], before[0], *before[3:]]
    title = seen.page.eval_on_selector("#list li:nth-child(1) select", "select => select.options[1].textContent")
    item = seen.page.eval_on_selector("#list li:nth-child(1) select", "select => select.options[1].value")
    seen.page.locator("#candidates tr", has_text=title).last.drag_to(seen.page.locator("#list li").first)
    told(seen, "at position 1.")
    assert order(seen)[0] == item
    assert reward(seen)[0] == pytest.approx(asked(address, seen), abs=6e-4)


def test_lists_stand_side_by_side_with_what_each_position_is_worth(look: Looker, address: str) -> None:
    seen = opened(look, address, "ui-playground-lists")
    heads = seen.page.eval_on_selector_all("#lists thead th", "cells => cells.map(cell => cell.textContent)")
    assert heads[1].startswith("Champion (version 2)reward ") and heads[2].startswith("Challenger (version 3)reward ")
    column = f"#lists tbody tr td:nth-child({CHAMPION}) .figures"
    figures = seen.page.eval_on_selector_all(column, "cells => cells.map(cell => cell.textContent)")
    worth = [float(text.rpartition("→ ")[2]) for text in figures]
    assert sum(worth) == pytest.approx(reward(seen)[1], abs=0.01)
    assert all(text.startswith("click ") and ", like " in text and " min → " in text for text in figures)


def test_a_user_is_found_by_the_id_and_one_that_is_not_there_is_said(look: Looker, address: str) -> None:
    seen = opened(look, address, "ui-playground-user")
    seen.page.fill("#user", "9")
    seen.page.press("#user", "Enter")
    seen.page.wait_for_function("() => document.querySelector('#suggested button')?.textContent.startsWith('9 (')")
    seen.page.click("#suggested button")
    seen.page.wait_for_function("() => document.querySelectorAll('#request option').length > 0")
    seen.page.fill("#user", "777")
    seen.page.wait_for_function("() => document.getElementById('suggested').textContent.includes('No user whose id')")
    seen.page.fill("#user", "x")
    seen.page.wait_for_function("() => document.getElementById('problem').textContent.includes('found, expected')")
    assert [error for error in seen.errors if "422" not in error] == []


def test_without_a_champion_the_page_says_what_to_type(look: Looker, tmp_path: Path) -> None:
    with pages(tmp_path / "w") as address:
        wait_until_loaded(address)
        seen = look(f"{address}/playground", "ui-playground-unavailable")
        seen.page.wait_for_function(
            "() => document.getElementById('problem').textContent.includes('goalrank nightly')", timeout=120_000
        )
        assert faults(seen) == []
