"""Where tonight's rows go: days inside the window to their folders, older rows folded into the base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.extract_features import advance, locations
from components.extract_features.snapshots import EXAMPLES_TABLE, TABLES
from components.extract_features.store import SnapshotWriter
from goalrank import schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class Split:
    """`tables` to write; `new` and `kept` days of the window; whether a new base is among the tables."""

    tables: dict[str, tuple[DataFrame, list[str]]]
    new: list[str]
    kept: list[dict[str, Any]]
    rebased: bool


def split(
    spark: SparkSession,
    root: Path,
    before: dict[str, Any] | None,
    days: list[str],
    made: dict[str, DataFrame],
    window_days: int,
) -> Split:
    """Where rows go. `before` is the manifest gone on from, `days` tonight's new ones, `made` their tables."""
    from pyspark.sql import functions as F  # noqa: N812

    old = before["days"] if before else []
    begin = sorted([entry["dt"] for entry in old] + days)[-window_days:][0]
    new = [day for day in days if day >= begin]
    dropped = [entry for entry in old if entry["dt"] < begin]
    first = F.lit(locations.day(begin))
    tables = {}
    for name, frame in made.items():
        keys = ["event_time", "request_id"] if name == EXAMPLES_TABLE else [schema.FEATURE_VIEWS[name].entity]
        inside = frame if new == days else frame.where(F.col("day") >= first)
        tables[f"days/{{day}}/{name}"] = (inside, keys)
    rebased = bool(dropped) or new != days
    if rebased:
        folders = [entry["path"] for entry in dropped]
        if before and before["base"]:
            folders.append(before["base"]["path"])
        for name, view in schema.FEATURE_VIEWS.items():
            rows = made[name].where(F.col("day") < first).drop("day")
            if folders:
                paths = [locations.for_spark(root / folder / name) for folder in folders]
                rows = rows.unionByName(spark.read.schema(rows.schema).parquet(*paths))
            newest = rows.groupBy(view.entity).agg(F.max_by(F.struct(*rows.columns), "event_timestamp").alias("row"))
            tables[f"base/{name}"] = (newest.select("row.*"), [view.entity])
    return Split(tables, new, [entry for entry in old if entry["dt"] >= begin], rebased)


def entries(
    writer: SnapshotWriter,
    split: Split,
    before: dict[str, Any] | None,
    days: list[str],
    contents: dict[str, tuple[str, dict[str, int]]],
    figures: dict[str, Any],
) -> dict[str, Any]:
    """The manifest's entries about what was written: days, base, state and their rows."""
    window = list(split.kept)
    for day in split.new:
        folder = f"days/{day}"
        content, logs = contents[day]
        rows = writer.fill(folder, TABLES)
        window.append({"dt": day, "path": f"{writer.path}/{folder}", "content": content, "rows": rows, "logs": logs})
    base = before["base"] if before else None
    if split.rebased:
        views = {name: view.schema for name, view in schema.FEATURE_VIEWS.items()}
        base = {"path": f"{writer.path}/base", "rows": writer.fill("base", views)}
    state_rows = writer.rows("state", list(advance.STATE))
    asked = {entry["dt"]: entry["logs"]["requests"] for entry in window}
    figures["requests_without_impressions"] = sum(
        asked[entry["dt"]] - entry["rows"][EXAMPLES_TABLE] for entry in window if entry["dt"] in split.new
    )
    figures["state_rows"] = state_rows
    return {
        "days": window,
        "base": base,
        "state": f"{writer.path}/state",
        "state_rows": state_rows,
        "rows": {name: sum(entry["rows"][name] for entry in window) for name in TABLES},
    }
