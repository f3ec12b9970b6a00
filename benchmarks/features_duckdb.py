"""The full job of components/extract_features in DuckDB: the rival of benchmarks/features_scale.py.

`python -m benchmarks.features_duckdb LOGS OUT FIRST LAST THREADS MEMORY` reads the arrival days FIRST to LAST and
writes OUT/days/<day>/<table>/part-00000.parquet, the rows that extraction writes (a test holds them equal). It does
less than the Spark job: no digest of what was read, no state for the next night, no order within a file.

One database on disk, so that what does not fit in memory spills; what every day needs is made once, by whole-table
statements, then each day's tables are written. Topics are counted over the clicked rows only, and a user's clicks are
sorted once, not once a day.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from components.extract_features.item_features import STATS_DAYS
from goalrank.schema import HISTORY_LENGTH, LATENESS_DAYS, TOPIC_BUCKETS

if TYPE_CHECKING:
    import duckdb

_COUNTS = ("impressions", "clicks", "likes")
_TOTALS = (*_COUNTS, "watch_ms")


def rebuild(logs: Path, out: Path, first: str, last: str, threads: int, memory: str) -> dict[str, float]:
    """Write every day's tables; the "impressions" read, and seconds, "start" being import and connection.

    Raises:
        ValueError: an impression belongs to no request within reach, or to two.
    """
    begun = time.perf_counter()
    import duckdb

    seconds = {}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        db = duckdb.connect(f"{folder}/database")
        db.execute(f"SET threads = {threads}; SET memory_limit = '{memory}'; SET temp_directory = '{folder}/spilled'")
        db.execute("SET preserve_insertion_order = false")
        seconds["start"] = time.perf_counter() - begun
        for part, statements in (
            ("attribute", _attributed(logs, first, last)),
            ("items", [_content(), _item_days(first, last)]),
            ("users", _users()),
        ):
            begun = time.perf_counter()
            for statement in statements:
                db.execute(statement)
            if part == "attribute":
                seconds["impressions"] = _checked(db, first)
            seconds[part] = time.perf_counter() - begun
        begun = time.perf_counter()
        days = db.execute(
            f"SELECT range::DATE FROM range(DATE '{first}', DATE '{last}' + 1, INTERVAL 1 DAY)"
        ).fetchall()
        for (day,) in days:
            for table, query in _day_tables(str(day)).items():
                file = out / "days" / str(day) / table / "part-00000.parquet"
                file.parent.mkdir(parents=True)
                db.execute(f"COPY ({query}) TO '{file}' (FORMAT parquet)")
        seconds["write"] = time.perf_counter() - begun
        db.close()
    return seconds


def _attributed(logs: Path, first: str, last: str) -> list[str]:
    """Views of the log tables, and `seen`: impressions with what is known of their request."""
    views = []
    for table in ("requests", "impressions", "items", "users"):
        source = f"read_parquet('{logs}/{table}/dt=*/*.parquet', hive_partitioning = true, hive_types = {{dt: DATE}})"
        inside = f"dt <= DATE '{last}'" + (f" AND dt >= DATE '{first}'" if table in ("requests", "impressions") else "")
        views.append(
            f"CREATE VIEW {table} AS SELECT * EXCLUDE dt, dt AS arrived, greatest(dt, DATE '{first}') AS day "
            f"FROM {source} WHERE {inside}"
        )
    seen = f"""
        CREATE TABLE seen AS
        SELECT i.*, r.user_id, r.event_time, r.day AS request_day,
               coalesce(round_even(i.watch_seconds * 1000, 0)::BIGINT, 0) AS watch_ms
        FROM impressions i LEFT JOIN requests r
          ON i.request_id = r.request_id AND r.day <= i.day AND r.day >= i.day - {LATENESS_DAYS}"""
    return [*views, seen]


def _checked(db: duckdb.DuckDBPyConnection, first: str) -> int:
    """Impressions read; orphans (but for the first days') and requests that came twice are refused, then orphans go."""
    orphans, rows = db.execute(
        f"SELECT count(*) FILTER (user_id IS NULL AND day >= DATE '{first}' + {LATENESS_DAYS}), count(*) FROM seen"
    ).fetchall()[0]
    (arrived,) = db.execute("SELECT count(*) FROM impressions").fetchall()[0]
    if orphans or rows != arrived:
        raise ValueError(f"{orphans} impressions without a request, {rows - arrived} with two; expected none")
    db.execute("DELETE FROM seen WHERE user_id IS NULL")
    return int(arrived)


def _content() -> str:
    mask = f"coalesce(list_bit_or(list_transform(topics, lambda topic: 1::BIGINT << (topic % {TOPIC_BUCKETS}))), 0)"
    order = "arrived DESC, created_at DESC, duration_seconds DESC NULLS LAST, title DESC, topic_mask DESC"
    return f"""
        CREATE TABLE versions AS
        SELECT item_id, day, created_at, topic_mask, duration_seconds, title
        FROM (SELECT *, {mask}::BIGINT AS topic_mask FROM items)
        QUALIFY row_number() OVER (PARTITION BY item_id, day ORDER BY {order}) = 1"""


def _item_days(first: str, last: str) -> str:
    until = "PARTITION BY item_id ORDER BY day"
    week = f"({until} RANGE BETWEEN INTERVAL {STATS_DAYS - 1} DAYS PRECEDING AND CURRENT ROW)"
    totals = ", ".join(f"coalesce(sum({name}) OVER ({until}), 0)::BIGINT AS {name}_total" for name in _TOTALS)
    recent = ", ".join(f"coalesce(sum({name}) OVER {week}, 0)::BIGINT AS {name}_7d" for name in _COUNTS)
    return f"""
        CREATE TABLE item_days AS
        WITH counts AS (
            SELECT item_id, day, count(*) AS impressions, sum(click)::BIGINT AS clicks, sum("like")::BIGINT AS likes,
                   sum(watch_ms)::BIGINT AS watch_ms
            FROM seen GROUP BY item_id, day),
        grid AS (
            SELECT item_id, range::DATE AS day
            FROM (SELECT item_id FROM versions UNION SELECT item_id FROM counts),
                 range(DATE '{first}', DATE '{last}' + 1, INTERVAL 1 DAY))
        SELECT item_id, day, last_value(created_at IGNORE NULLS) OVER ({until}) AS created_at,
               last_value(topic_mask IGNORE NULLS) OVER ({until}) AS topic_mask, {totals}, {recent}
        FROM grid LEFT JOIN versions USING (item_id, day) LEFT JOIN counts USING (item_id, day)
        QUALIFY last_value(created_at IGNORE NULLS) OVER ({until}) IS NOT NULL
             OR count(impressions) OVER ({until}) > 0"""


def _users() -> list[str]:
    """Users' days, summed up to each, and each user's clicks, newest first."""
    until = "(PARTITION BY user_id ORDER BY day)"
    topics = [f"topic_{bucket}" for bucket in range(TOPIC_BUCKETS)]
    bits = ", ".join(f"sum((topic_mask >> {bucket}) & 1)::BIGINT AS {name}" for bucket, name in enumerate(topics))
    newest = "event_time DESC, request_id DESC, position DESC, item_id DESC"
    return [
        """CREATE TABLE clicked AS
           SELECT user_id, s.day, s.event_time, s.request_id, s.position, s.item_id,
                  coalesce(m.topic_mask, 0) AS topic_mask
           FROM seen s LEFT JOIN item_days m USING (item_id, day) WHERE s.click > 0""",
        f"""CREATE TABLE user_days AS
            WITH shown AS (
                SELECT user_id, day, count(*) AS impressions, sum(click) AS clicks, sum("like") AS likes,
                       sum(watch_ms) AS watch_ms
                FROM seen GROUP BY user_id, day),
            topics AS (SELECT user_id, day, {bits} FROM clicked GROUP BY user_id, day)
            SELECT user_id, day,
                   {", ".join(f"(sum({name}) OVER {until})::BIGINT AS {name}" for name in _TOTALS)},
                   count(*) OVER {until} AS active_days,
                   [{", ".join(f"coalesce(sum({name}) OVER {until}, 0)::BIGINT" for name in topics)}] AS topic_clicks
            FROM shown LEFT JOIN topics USING (user_id, day)""",
        f"""CREATE TABLE user_clicks AS
            SELECT user_id, list({{'item_id': item_id, 'day': day}} ORDER BY {newest}) AS clicks
            FROM clicked GROUP BY user_id""",
    ]


def _day_tables(day: str) -> dict[str, str]:
    """The query of each table of one day."""
    this = f"day = DATE '{day}'"
    midnight = f"(TIMESTAMPTZ '{day} 00:00:00+00' + INTERVAL 1 DAY)"
    stamps = f"{midnight} AS event_timestamp, {midnight} AS created_timestamp"
    columns = "impressions_7d, clicks_7d, likes_7d, impressions_total, clicks_total, likes_total, watch_ms_total"
    known_before = f"list_filter(user_clicks.clicks, lambda click: click.day <= DATE '{day}')[1:{HISTORY_LENGTH}]"
    return {
        "user_profile": f"""
            SELECT user_id, {stamps}, attributes FROM users WHERE {this}
            QUALIFY row_number() OVER (
                PARTITION BY user_id ORDER BY arrived DESC, created_at DESC, attributes DESC) = 1""",
        "user_stats": f"""
            SELECT user_id, {stamps}, impressions, clicks, likes, watch_ms, active_days, topic_clicks
            FROM user_days WHERE {this}""",
        "user_history": f"""
            WITH histories AS (
                SELECT user_id, coalesce(list_reverse({known_before}), []) AS history
                FROM user_days LEFT JOIN user_clicks USING (user_id) WHERE {this}),
            entries AS (
                SELECT user_id, generate_subscripts(history, 1) AS place, unnest(history).item_id AS item_id
                FROM histories),
            lists AS (
                SELECT user_id, list(item_id ORDER BY place) AS history_items,
                       list(coalesce(topic_mask, 0) ORDER BY place) AS history_topics
                FROM entries LEFT JOIN (SELECT item_id, topic_mask FROM item_days WHERE {this}) USING (item_id)
                GROUP BY user_id)
            SELECT user_id, {stamps}, coalesce(history_items, []) AS history_items,
                   coalesce(history_topics, []) AS history_topics
            FROM histories LEFT JOIN lists USING (user_id)""",
        "item_content": f"SELECT item_id, {stamps}, topic_mask, duration_seconds, title FROM versions WHERE {this}",
        "item_stats": f"""
            SELECT item_id, {stamps}, {columns},
                   DATE '{day}' + 1 - DATE '1970-01-01' - (epoch_us(created_at) // 86400000000) AS age_days
            FROM item_days WHERE {this}""",
        "examples": f"""
            WITH lists AS (
                SELECT request_id, list(item_id ORDER BY position) AS slate, count(propensity) AS propensities_known,
                       list(propensity ORDER BY position) AS propensities, list(click ORDER BY position) AS clicks,
                       list("like" ORDER BY position) AS likes, count(watch_seconds) AS watch_known,
                       list(watch_seconds ORDER BY position) AS watch
                FROM seen WHERE {this} AND request_day = day GROUP BY request_id)
            SELECT request_id, user_id, event_time, candidates, candidate_scores, policy, '{day}' AS dt, slate,
                   CASE WHEN propensities_known > 0 THEN propensities END AS propensities, clicks, likes,
                   CASE WHEN watch_known > 0 THEN watch END AS watch_seconds
            FROM requests JOIN lists USING (request_id) WHERE {this}""",
    }


if __name__ == "__main__":
    logs_argument, out_argument, *rest = sys.argv[1:]
    first_day, last_day, cores, limit = rest
    print(json.dumps(rebuild(Path(logs_argument), Path(out_argument), first_day, last_day, int(cores), limit)))
