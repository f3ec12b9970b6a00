"""Every point has exactly one file of tests, or says why it has none yet."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults.points import OPEN, POINTS

FOLDER = Path(__file__).parents[1] / "faults"


def test_every_point_is_tested_or_open() -> None:
    numbers = sorted(int(re.match(r"test_(\d\d)_", path.name)[1]) for path in FOLDER.glob("test_*.py"))  # type: ignore[index]
    assert sorted(numbers + list(OPEN)) == sorted(POINTS)
