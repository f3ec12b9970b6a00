"""The pages, typed: the quickstart and the README's commands as they stand, then retention's on the same workspace."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.documents import REPOSITORY, Block, shell_blocks, typed_in_turn, write_commands

QUICKSTART = REPOSITORY / "docs" / "quickstart.md"
README = REPOSITORY / "README.md"
RETENTION = REPOSITORY / "docs" / "retention.md"


pytestmark = pytest.mark.timeout(3600)  # all nights are run by whichever test comes first


@dataclass(frozen=True)
class Terminal:
    """A folder in which commands are typed, and what the quickstart's blocks printed, in order."""

    folder: Path
    environment: dict[str, str]
    said: list[str]


def commands(block: Block) -> list[list[str]]:
    """The words of each of its lines, without comments."""
    return [shlex.split(line, comments=True) for line in block.text.splitlines()]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """The quickstart from its second step on: the set-up is what these tests run in."""
    folder = tmp_path_factory.mktemp("quickstart")
    environment = write_commands(folder / "bin")
    typed = [block for block in shell_blocks(QUICKSTART) if block.needs is None]
    (readme,) = [block for block in shell_blocks(README) if block.needs is None]
    # A night takes minutes: the README's block has the quickstart's last commands in it and is typed in their place.
    last = commands(typed[-1])
    assert [line for line in commands(readme) if line in last] == last
    typed[-1] = readme
    assert [block.needs for block in shell_blocks(QUICKSTART) if block.needs] == ["setup"]
    said = typed_in_turn(typed, environment, folder)
    return Terminal(
        folder, environment | {"GOALRANK_WORKSPACE": "quick", "GOALRANK_PRESET": "tiny"}, list(said.values())
    )


def test_the_first_night_promotes(quickstart: Terminal) -> None:
    assert "Promoted. version 1 promoted: first champion" in " ".join(quickstart.said[1].split())


def test_a_request_is_ranked_and_served(quickstart: Terminal) -> None:
    answer = json.loads(quickstart.said[2])
    assert len(set(answer["items"])) == len(answer["items"]) == 6
    lines = [json.loads(line) for line in quickstart.said[3].replace("}{", "}\n{").splitlines() if line.startswith("{")]
    served = next(line for line in lines if line.get("request_id") == "mine" and "items" in line)
    assert sorted(served["items"]) == [100003, 100009, 100012]
    assert served["fallback"] in (None, "store_away"), (
        "away on a machine that is busy; anything else is the page's fault"
    )


def test_the_second_night_ends_well_and_is_in_the_history(quickstart: Terminal) -> None:
    nights = sorted((quickstart.folder / "quick" / "nights").glob("*/*/night.json"))
    verdicts = [json.loads(night.read_text())["verdict"] for night in nights]
    assert verdicts[0] == "promoted" and verdicts[1] in ("promoted", "kept"), verdicts
    assert all(night.parent.parent.name in quickstart.said[4] for night in nights)


def test_the_readmes_commands(quickstart: Terminal) -> None:
    assert '"items"' in quickstart.said[4] and "retriever" in quickstart.said[4]


def test_retention_as_written(quickstart: Terminal) -> None:
    those = [block for block in shell_blocks(RETENTION) if block.needs is None]
    said = list(typed_in_turn(those, quickstart.environment, quickstart.folder).values())
    assert len(said) == 2 and all(said)
