"""docs/bring-your-own-logs.md, done as it says: a stranger's CSV, every block typed in order, a model promoted."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.documents import REPOSITORY, Block, blocks, shell_blocks, typed, write_commands
from tests.foreign_log import HEADER, write_foreign_log

PAGE = REPOSITORY / "docs" / "bring-your-own-logs.md"


pytestmark = pytest.mark.timeout(3600)  # all nights are run by whichever test comes first

EXPORTED = re.compile(r"^export (\w+)=(\S+)$", re.MULTILINE)

TO_THE_CHAMPION = 4
"""Blocks until a model is promoted and asked: look, import, night, rank. What is left is the next day."""


@dataclass
class Followed:
    """What was typed and what it printed, block by block."""

    folder: Path
    environment: dict[str, str]
    said: list[str] = field(default_factory=list)

    def type(self, those: list[Block]) -> None:
        """Type blocks, each of which must end well."""
        for block in those:
            assert block.needs is None, f"{block.place}: every block of this page is run"
            result = typed(block.text, self.environment, self.folder)
            assert result.returncode == 0, f"{block.place}\n{block.text}{result.stdout[-3000:]}{result.stderr[-3000:]}"
            self.said.append(result.stdout)
            self.environment |= dict(EXPORTED.findall(block.text))  # the next block is typed in the same terminal

    @property
    def verdicts(self) -> list[str]:
        """Of the nights, oldest first."""
        nights = sorted((self.folder / "own" / "nights").glob("*/*/night.json"))
        return [json.loads(night.read_text())["verdict"] for night in nights]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """The page up to the champion, in a folder that holds the two files it speaks of, and the next day's."""
    folder = tmp_path_factory.mktemp("stranger")
    write_foreign_log(folder)
    done = Followed(folder, write_commands(folder / "bin"))
    done.environment.pop("GOALRANK_PRESET", None)  # the page says which
    done.type(shell_blocks(PAGE)[:TO_THE_CHAMPION])
    return done


def test_the_files_example_is_the_file(followed: Followed) -> None:
    example = blocks(PAGE, "")[0].text.splitlines()
    assert example[0] == ",".join(HEADER) == (followed.folder / "impressions.csv").read_text().splitlines()[0]


def test_the_look_prints_what_the_page_shows(followed: Followed) -> None:
    assert followed.said[0] == blocks(PAGE, "")[1].text


def test_the_page_says_which_preset_its_minutes_are_of(followed: Followed) -> None:
    assert followed.environment["GOALRANK_PRESET"] == "tiny"


def test_a_model_is_promoted(followed: Followed) -> None:
    assert followed.verdicts[0] == "promoted"
    assert "Promoted. version 1 promoted: first champion" in " ".join(followed.said[2].split())


def test_a_logged_request_is_ranked(followed: Followed) -> None:
    answer = json.loads(followed.said[3])
    assert len(set(answer["items"])) == len(answer["items"]) > 0
    assert answer["fallback"] is None


def test_the_next_day_is_added_and_has_its_night(followed: Followed) -> None:
    followed.type(shell_blocks(PAGE)[TO_THE_CHAMPION:])
    document = json.loads((followed.folder / "logs" / "import.json").read_text())
    assert (document["days"]["count"], document["days"]["last"]) == (6, "2026-03-07")
    assert len(followed.verdicts) == 2 and followed.verdicts[1] in ("promoted", "kept")
