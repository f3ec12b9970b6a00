"""The arrival day that a scheduler means; traps in names are tests/faults/test_23_names_and_uris.py's."""

from __future__ import annotations

import pytest

from goalrank.errors import ModelRefused, UsageError
from goalrank.naming import arrival_day


@pytest.mark.parametrize(
    ("text", "day"),
    [("2026-01-05", "2026-01-05"), ("before 2026-01-05", "2026-01-04"), ("before 2024-03-01", "2024-02-29")],
)
def test_a_day_or_the_one_before(text: str, day: str) -> None:
    assert arrival_day("date", text) == day


@pytest.mark.parametrize("text", ["before", "before ", "before 2026-02-30", "before  2026-01-05", "Before 2026-01-05"])
def test_a_day_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected a day such as"):
        arrival_day("date", text)


def test_a_macro_that_a_cluster_did_not_fill_in_is_refused() -> None:
    with pytest.raises(ModelRefused, match="ScheduledTime"):
        arrival_day("date", "before [[ScheduledTime.2006-01-02]]", ModelRefused)
