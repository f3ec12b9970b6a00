"""Whether the arrival days are fresh: their newest event against the end of the day, and the share of late rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

COLUMNS = ["table", "dt", "rows", "newest_event", "silent_hours", "late_rows", "late_share"]


def of_days(figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> pd.DataFrame:
    """One row a table and arrival day, in COLUMNS.

    silent_hours: hours from the newest event to the end of the day; of requests, null for impressions, which carry no
    time of their own. late_share: rows whose event (requests) or request (impressions) belongs to an earlier day.

    Args:
        figures: table -> dt -> prepare.day_figures; times are UTC, with or without saying so.
    """
    rows = []
    for table, days in figures.items():
        for dt, day in sorted(days.items()):
            newest: datetime | None = day.get("newest_event")
            end = datetime.fromisoformat(dt) + timedelta(days=1)
            silent = (end - newest.replace(tzinfo=None)).total_seconds() / 3600 if newest is not None else None
            rows.append(
                {
                    "table": table,
                    "dt": dt,
                    "rows": day["rows"],
                    "newest_event": newest.isoformat(sep=" ", timespec="seconds") if newest is not None else None,
                    "silent_hours": round(silent, 2) if silent is not None else None,
                    "late_rows": day["late_rows"],
                    "late_share": day["late_rows"] / day["rows"],
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS).astype({"silent_hours": float, "late_share": float})


def tonight_only(frame: pd.DataFrame, columns: Collection[str], days: Collection[str]) -> pd.DataFrame:
    """Add `<column>_tonight`: the figure on the given days, null on others.

    Only a new day can be refused for what the whole of it looks like: of the history that a rebuild reads again,
    nothing can be mended any more, and accepted days are real.
    """
    tonight = frame.dt.isin(list(days))
    return frame.assign(**{f"{column}_tonight": frame[column].where(tonight) for column in columns})
