"""Every point has exactly one file of tests, or says why it has none yet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.points import IN_PART, OPEN, POINTS, SURVIVED, standing

FOLDER = Path(__file__).parents[1] / "faults"


def test_every_point_is_tested_or_open() -> None:
    numbers = sorted(int(re.match(r"test_(\d\d)_", path.name)[1]) for path in FOLDER.glob("test_*.py"))  # type: ignore[index]
    assert sorted(numbers + list(OPEN)) == sorted(POINTS)


@pytest.mark.parametrize(
    ("outcomes", "untried", "said"),
    [
        ([], [], "not run"),
        (["passed", "passed"], [], SURVIVED),
        (["passed"], ["a full disk (no mounts)"], f"{IN_PART}, NOT TRIED: a full disk (no mounts)"),
        (["passed", "skipped"], ["test_x (no unshare)"], f"{IN_PART}, NOT TRIED: test_x (no unshare)"),
        (["skipped"], ["test_x (no unshare)"], "skipped: test_x (no unshare)"),
        (["passed", "failed"], ["a full disk (no mounts)"], "FAILED"),
    ],
)
def test_what_was_not_tried_is_not_survived(outcomes: list[str], untried: list[str], said: str) -> None:
    assert standing(13, outcomes, untried) == said


def test_an_open_point_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPEN, 26, "comes with the manifests")
    assert standing(26, []) == "open: comes with the manifests"
    assert standing(25, []) == "not run"
