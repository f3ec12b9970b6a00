"""The columns the suites judge, derived from tonight's rows of a snapshot: narrow pandas frames, no lists in them.

A list column stands here by its length, and what is in it by counts of wrong entries (lists.py). Such a count is null
where the list is: the not-null checks name those rows, and no other check does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from components.check_features import lists
from components.check_features.drift import Column
from components.extract_features.snapshots import Snapshot
from components.trailing_volume import FEWEST_TRAILING_DAYS, against_usual, trailing
from goalrank import schema

DAILY = ("examples", schema.USER_STATS.name, schema.USER_HISTORY.name, schema.ITEM_STATS.name)
"""Tables with rows on every day that had traffic."""

_DAY = np.timedelta64(1, "D")
_HOUR = np.timedelta64(1, "h")


def view_rows(snapshot: Snapshot, view: schema.FeatureView, days: list[str]) -> pd.DataFrame:
    """Rows of a feature view of `days`: a scalar column as it is, a list column by its length, and `dt`.

    Also derived: rows_of_key (rows with that key and time) and hours_off_midnight, from the midnight after dt.
    """
    parts = []
    for dt in days:
        table = snapshot.read_view(view.name, [dt])
        frame = pd.DataFrame({"dt": dt, view.entity: _numbers(table[view.entity])}, index=range(table.num_rows))
        for name in ("event_timestamp", "created_timestamp"):
            frame[name] = table[name].to_pandas()
        for field in view.features:
            column = table[field.name]
            frame[field.name] = pc.list_value_length(column) if pa.types.is_list(field.type) else column.to_pandas()
        times = table["event_timestamp"].cast(pa.timestamp("us")).to_numpy()
        frame["hours_off_midnight"] = (times - (np.datetime64(dt) + _DAY)) / _HOUR
        parts.append(frame)
    # A skipped day has no rows, and empty columns of another type would change those of the others.
    rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    rows["rows_of_key"] = rows.groupby([view.entity, "event_timestamp"])[view.entity].transform("size")
    return rows


def user_stats_ranges(rows: pd.DataFrame, snapshot: Snapshot, days: list[str]) -> pd.DataFrame:
    """Add what is left of impressions when clicks and likes are taken off, and how many topic counts are below 0."""
    topics = snapshot.read_view(schema.USER_STATS.name, days)["topic_clicks"]
    rows["not_clicked"] = rows.impressions - rows.clicks
    rows["not_liked"] = rows.impressions - rows.likes
    rows["topic_clicks_negative"] = lists.wrong(topics, lambda count: count >= 0)
    return rows


def user_history_ranges(rows: pd.DataFrame, snapshot: Snapshot, days: list[str]) -> pd.DataFrame:
    """Add how many more items than topic masks a history has, and how many of either are none."""
    histories = snapshot.read_view(schema.USER_HISTORY.name, days)
    rows["items_without_topics"] = rows.history_items - rows.history_topics
    rows["history_items_outside"] = lists.wrong(histories["history_items"], _is_id)
    rows["history_topics_outside"] = lists.wrong(histories["history_topics"], _is_topic_mask)
    return rows


def item_content_ranges(rows: pd.DataFrame, snapshot: Snapshot, days: list[str]) -> pd.DataFrame:
    """Add whether a duration is known and no duration (1 or 0): NaN is a value, though pandas takes it for null."""
    durations = snapshot.read_view(schema.ITEM_CONTENT.name, days)["duration_seconds"]
    seconds = _floats(durations)
    known = durations.is_valid().to_numpy()
    rows["duration_outside"] = (known & ~((seconds >= 0) & np.isfinite(seconds))).astype(int)
    return rows


def item_stats_ranges(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the differences that cannot be negative: shown less clicked, all-time less last week."""
    for span in ("7d", "total"):
        rows[f"not_clicked_{span}"] = rows[f"impressions_{span}"] - rows[f"clicks_{span}"]
        rows[f"not_liked_{span}"] = rows[f"impressions_{span}"] - rows[f"likes_{span}"]
    for name in ("impressions", "clicks", "likes"):
        rows[f"{name}_before_7d"] = rows[f"{name}_total"] - rows[f"{name}_7d"]
    return rows


def example_rows(snapshot: Snapshot, days: list[str]) -> pd.DataFrame:
    """Tonight's examples: a scalar column as it is, a list column by its length; totals of the feedback, mean score."""
    table = snapshot.read_examples(days)
    frame = pd.DataFrame(index=range(table.num_rows))
    for field in schema.EXAMPLES:
        column = table[field.name]
        if pa.types.is_list(field.type):
            frame[field.name] = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        else:
            frame[field.name] = column.to_pandas()
    for name in ("clicks", "likes", "watch_seconds"):
        frame[f"total_{name}"] = lists.reduced(table[name], "sum")
    frame["mean_score"] = lists.reduced(table["candidate_scores"], "mean")
    return frame


def example_ranges(rows: pd.DataFrame, snapshot: Snapshot, days: list[str]) -> pd.DataFrame:
    """Add the lists' lengths against each other, and how many of their entries are wrong."""
    table = snapshot.read_examples(days)
    rows["scores_surplus"] = rows.candidate_scores - rows.candidates
    for name in ("propensities", "clicks", "likes", "watch_seconds"):
        rows[f"{name}_surplus"] = rows[name] - rows.slate
    rows["candidates_outside"] = lists.wrong(table["candidates"], _is_id)
    rows["candidates_repeated"] = lists.repeated(table["candidates"])
    rows["scores_not_finite"] = lists.wrong(table["candidate_scores"], np.isfinite)
    rows["slate_outside"] = lists.outside(table["slate"], among=table["candidates"])
    rows["slate_repeated"] = lists.repeated(table["slate"])
    for name in ("clicks", "likes"):
        rows[f"{name}_outside"] = lists.wrong(table[name], lambda value: (value == 0) | (value == 1))
    rows["propensities_outside"] = lists.wrong(
        table["propensities"], lambda share: (share > 0) & (share <= 1), nullable=True
    )
    rows["watch_seconds_outside"] = lists.wrong(
        table["watch_seconds"], lambda seconds: (seconds >= 0) & np.isfinite(seconds), nullable=True
    )
    return rows


def counted(examples: pd.DataFrame, snapshot: Snapshot) -> pd.DataFrame:
    """Add rows_of_key: how often each request_id is among the examples of all the snapshot's days (null for null)."""
    kept = ds.dataset(snapshot.examples_paths(), format="parquet").to_table(columns=["request_id"])["request_id"]
    counts = pc.value_counts(kept)
    times = pd.Series(counts.field("counts").to_numpy(), index=counts.field("values").to_pandas())
    return examples.assign(rows_of_key=examples.request_id.map(times))


def volumes(snapshot: Snapshot, refusable: bool) -> pd.DataFrame:
    """The newest day's rows of each daily table against the days before it: table, dt, rows, usual_rows, times_usual.

    times_usual_tonight is the same, null unless the day is `refusable`. Both are null where too few days are known.
    """
    rows = []
    for table in DAILY:
        counts = {day["dt"]: int(day["rows"][table]) for day in snapshot.manifest["days"] if _has_rows(day)}
        volume = against_usual(counts, snapshot.date)
        rows.append(
            {
                "table": table,
                "dt": snapshot.date,
                "rows": volume.rows,
                "usual_rows": volume.usual,
                "times_usual": volume.either_way,
                "times_usual_tonight": volume.either_way if refusable else None,
            }
        )
    floats = dict.fromkeys(["usual_rows", "times_usual", "times_usual_tonight"], float)
    return pd.DataFrame(rows).astype(floats)


def _has_rows(day: dict[str, Any]) -> bool:
    """A skipped day has none."""
    return any(day["rows"].get(table) for table in DAILY)


def propensities(snapshot: Snapshot) -> pd.DataFrame:
    """The newest day's lists that a ranker chose and how many have propensities, against the days before it; one row.

    Columns: dt, lists, share (of them with the propensities of all their items: the off-policy comparison uses no
    other), usual_share (median of the trailing days that had such lists), times_fewer (usual_share / share; 1 where
    there usually are none). Shares are null where there is no list, times_fewer also where too few days are known.
    """
    shares = {day: _propensity_share(snapshot, day) for day in trailing(snapshot.days, snapshot.date)}
    known = [share for lists_of_day, share in shares.values() if lists_of_day]
    usual = float(np.median(known)) if len(known) >= FEWEST_TRAILING_DAYS else np.nan
    count, share = _propensity_share(snapshot, snapshot.date)
    if np.isnan(usual) or np.isnan(share):
        fewer = np.nan
    elif usual == 0:
        fewer = 1.0
    else:
        fewer = usual / share if share else np.inf
    row = {"dt": snapshot.date, "lists": count, "share": share, "usual_share": usual, "times_fewer": fewer}
    return pd.DataFrame([row])


def _propensity_share(snapshot: Snapshot, day: str) -> tuple[int, float]:
    """How many lists of a day a ranker chose, and the share of them with a propensity for every item (NaN of none)."""
    columns = ["policy", "slate", "propensities"]
    files = snapshot.examples_paths([day])
    table = ds.dataset(files, schema=schema.EXAMPLES, format="parquet").to_table(columns=columns) if files else None
    if table is None:
        return 0, np.nan
    table = table.filter(pc.not_equal(table["policy"], schema.SELF_SELECTED))
    if not table.num_rows:
        return 0, np.nan
    unknown = lists.wrong(table["propensities"], lambda share: ~np.isnan(share))
    lengths = [pc.list_value_length(table[name]).to_numpy(zero_copy_only=False) for name in columns[1:]]
    return table.num_rows, float(np.mean((unknown == 0) & (lengths[0] == lengths[1])))


def references(snapshot: Snapshot, refusable: bool) -> pd.DataFrame:
    """Who is known, one row a kind of reference of the newest day's examples.

    Columns: reference, distinct, unknown (ids never announced up to tonight), for_example (three of them, each with the
    name of its column, by which an erased user's is found in texts), and the share of unknown ones as unknown_items or
    unknown_users; unknown_items_tonight is null unless `refusable`.
    """
    examples = snapshot.read_examples(snapshot.days[-1:])
    known_items = snapshot.read_view(schema.ITEM_CONTENT.name)["item_id"].combine_chunks()
    known_users = snapshot.read_view(schema.USER_PROFILE.name)["user_id"].combine_chunks()
    rows = []
    for reference, key, ids, known, column in (
        ("shown items", "item_id", pc.list_flatten(examples["slate"]), known_items, "unknown_items"),
        ("candidates", "item_id", pc.list_flatten(examples["candidates"]), known_items, "unknown_items"),
        ("users", "user_id", examples["user_id"], known_users, "unknown_users"),
    ):
        distinct = pc.unique(ids.drop_null())
        unknown = distinct.filter(pc.invert(pc.is_in(distinct, value_set=known)))
        rows.append(
            {
                "reference": reference,
                "distinct": len(distinct),
                "unknown": len(unknown),
                "for_example": ", ".join(f"{key} {one}" for one in unknown[:3].to_pylist()) or None,
                column: len(unknown) / len(distinct) if len(distinct) else None,
            }
        )
    frame = pd.DataFrame(rows).astype({"unknown_items": float, "unknown_users": float, "for_example": object})
    return frame.assign(unknown_items_tonight=frame.unknown_items if refusable else np.nan)


def drift_columns(snapshot: Snapshot, arrived: list[str] | None = None) -> dict[str, Column]:
    """Name -> values of the columns held against the last good snapshot, of its newest day.

    Rates and per-request figures say what the data mean and stand still when nothing is wrong; the one count is there
    to be told of. Durations come with new items only: those of the days `arrived`, or of all known items.
    """
    last = snapshot.days[-1:]
    examples = example_rows(snapshot, last)
    users = snapshot.read_view(schema.USER_STATS.name, last)
    items = snapshot.read_view(schema.ITEM_STATS.name, last)
    contents = snapshot.read_view(schema.ITEM_CONTENT.name, arrived)
    return {
        "examples.candidates": _column(examples.candidates),
        "examples.shown": _column(examples.slate),
        "examples.mean_score": _column(examples.mean_score),
        "examples.total_clicks": _column(examples.total_clicks),
        "examples.total_likes": _column(examples.total_likes),
        "examples.total_watch_seconds": _column(examples.total_watch_seconds),
        "user_stats.clicks / impressions": _rate(users["clicks"], users["impressions"]),
        "user_stats.watch_ms / impressions": _rate(users["watch_ms"], users["impressions"]),
        "user_stats.watch_ms / clicks": _rate(users["watch_ms"], users["clicks"]),
        "item_stats.clicks_7d / impressions_7d": _rate(items["clicks_7d"], items["impressions_7d"]),
        "item_stats.impressions_7d": Column(_floats(items["impressions_7d"]), volume=True),
        "item_content.duration_seconds": Column(_floats(contents["duration_seconds"].drop_null())),
    }


def _is_id(values: lists.Values) -> np.ndarray:
    return values >= schema.SMALLEST_ID


def _is_topic_mask(values: lists.Values) -> np.ndarray:
    return (values >= 0) & (values < 2.0**schema.TOPIC_BUCKETS)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy()


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(_numbers(column), dtype=float)


def _column(values: pd.Series) -> Column:
    return Column(values.to_numpy(dtype=float))


def _rate(part: pa.ChunkedArray, whole: pa.ChunkedArray) -> Column:
    """part / whole where there is a whole; rows without are left out, they say nothing of the rate."""
    parts, wholes = _floats(part), _floats(whole)
    some = wholes > 0
    pooled = float(parts[some].sum() / wholes[some].sum()) if some.any() else None
    return Column(parts[some] / wholes[some], pooled=pooled)
