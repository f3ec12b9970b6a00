"""docs/tutorial-movielens.md, typed as it stands at preset tiny, on made-up ratings: the real ones may not lie here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.documents import REPOSITORY, shell_blocks, typed_in_turn, write_commands
from tests.movies import write_movies

PAGE = REPOSITORY / "docs" / "tutorial-movielens.md"

pytestmark = pytest.mark.timeout(3600)  # both nights are run by whichever test comes first


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which the page was typed, and what its blocks printed, in order; `serve` is the quickstart's."""
    folder = tmp_path_factory.mktemp("tutorial")
    write_movies(folder / "ml-1m")
    environment = write_commands(folder / "bin") | {"GOALRANK_PRESET": "tiny"}
    typed = [block for block in shell_blocks(PAGE) if block.needs is None]
    assert [block.needs for block in shell_blocks(PAGE) if block.needs] == ["data", "long"]
    return folder, list(typed_in_turn(typed, environment, folder).values())


def test_the_import_says_how_good_the_retriever_is(tutorial: tuple[Path, list[str]]) -> None:
    assert "retriever descending" in tutorial[1][0]


def test_two_nights_end_as_the_page_says(tutorial: tuple[Path, list[str]]) -> None:
    folder, said = tutorial
    cards = {
        card.parent.parent.name: json.loads(card.read_text()) for card in (folder / "ml").glob("nights/*/1/night.json")
    }
    assert {day: card["verdict"] for day, card in cards.items()}["2003-03-30"] == "promoted"
    assert cards["2003-03-31"]["verdict"] in ("promoted", "kept")
    assert "Promoted. version 1 promoted: first champion" in " ".join(said[1].split())
    assert all(day in said[3] for day in cards)


def test_there_is_no_true_reward_and_no_off_policy_estimate(tutorial: tuple[Path, list[str]]) -> None:
    report = json.loads((tutorial[0] / "ml" / "nights" / "2003-03-31" / "1" / "report.json").read_text())
    assert "true_reward" not in report["metrics"]["challenger"]
    assert report["off_policy"]["status"] == "not_applicable"
    assert report["retriever_differences"].keys() == report["metrics"]["challenger"].keys()


def test_the_example_is_a_logged_request(tutorial: tuple[Path, list[str]]) -> None:
    answer = json.loads(tutorial[1][2])
    assert answer["request_id"].startswith("u") and len(set(answer["items"])) == 6


def test_both_nights_stand_side_by_side(tutorial: tuple[Path, list[str]]) -> None:
    folder, said = tutorial
    (page,) = (folder / "ml" / "comparisons").iterdir()
    assert str(page) in said[4].replace("\n", "") and "2003-03-30/1" in page.read_text(encoding="utf-8")
