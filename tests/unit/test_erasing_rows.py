"""Erasing a user's rows from logs that were imported: the table of original ids holds the user too."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from console.erasure import rows
from goalrank.impressions import import_impressions


def imported(folder: Path) -> tuple[Path, int]:
    """Logs of two users with ids of their own, and the number of the first."""
    (folder / "shown.csv").write_text(
        "request,user,time,position,item,click\na,ann,2026-03-02 12:00:00,0,x,1\nb,bob,2026-03-02 12:00:00,0,x,0\n"
    )
    import_impressions(str(folder / "shown.csv"), str(folder / "logs"))
    (user,) = (
        row["id"] for row in pq.read_table(folder / "logs" / "user_ids.parquet").to_pylist() if row["original"] == "ann"
    )
    return folder / "logs", user


def test_the_original_id_is_named(tmp_path: Path) -> None:
    logs, user = imported(tmp_path)
    found = {
        Path(entry["file"]).relative_to(logs).parts[0]: entry["rows"]
        for entry in rows.holding(user, rows.requests_of(user, [logs]), [logs])
    }
    assert found == {"requests": 1, "impressions": 1, "users": 1, "user_ids.parquet": 1}


def test_the_original_id_goes(tmp_path: Path) -> None:
    logs, user = imported(tmp_path)
    requests = rows.requests_of(user, [logs])
    assert rows.erase(user, requests, [logs], dry_run=False)["original ids"] == 1
    assert rows.holding(user, requests, [logs]) == []
    assert [row["original"] for row in pq.read_table(logs / "user_ids.parquet").to_pylist()] == ["bob"]
    assert pq.read_table(logs / "item_ids.parquet").num_rows == 1
