"""The features' gate on real Great Expectations: ranges, keys, times, and drift since the last good snapshot."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.check_features import passed, prepare
from components.check_features.drift import NOISE_QUANTILE, Column, compare, moved, population_stability, without_values
from components.check_features.main import run
from components.extract_features import day_decisions
from components.extract_features.snapshots import Snapshot, manifest_path
from components.gate_limits import PSI, UNKNOWN_ITEMS, VOLUME
from goalrank import schema
from goalrank.errors import DataRefused

NAN = float("nan")
USERS, ITEMS, REQUESTS, SHOWN = 150, 150, 150, 3
Tables = dict[str, list[dict[str, Any]]]


def midnight(dt: str, plus: int = 0) -> datetime:
    return datetime.fromisoformat(dt).replace(tzinfo=UTC) + timedelta(days=plus)


def a_day(dt: str, first: bool) -> Tables:
    """Every table of one day, consistent and drawn from the same distributions each day."""
    rng = np.random.default_rng(int(dt[-2:]))
    when = {"event_timestamp": midnight(dt, 1), "created_timestamp": midnight(dt, 1)}
    tables: Tables = {name: [] for name in [*schema.FEATURE_VIEWS, "examples"]}
    for user in range(1, USERS + 1):
        impressions = int(rng.integers(30, 60))
        clicks = int(rng.binomial(impressions, 0.3))
        topics = np.bincount(rng.integers(0, schema.TOPIC_BUCKETS, clicks), minlength=schema.TOPIC_BUCKETS)
        tables["user_stats"].append(
            {
                "user_id": user,
                "impressions": impressions,
                "clicks": clicks,
                "likes": clicks // 3,
                "watch_ms": int(rng.normal(9000, 1000)) * clicks,
                "active_days": 2,
                "topic_clicks": topics.tolist(),
                **when,
            }
        )
        history = rng.integers(1, ITEMS, clicks).tolist()
        tables["user_history"].append({"user_id": user, "history_items": history, "history_topics": history, **when})
        if first:
            tables["user_profile"].append({"user_id": user, "attributes": ["age=25"], **when})
    for item in range(1, ITEMS + 1):
        week = int(rng.integers(20, 80))
        clicks = int(rng.binomial(week, 0.3))
        seven = {"impressions_7d": week, "clicks_7d": clicks, "likes_7d": clicks // 3}
        total = {"impressions_total": 2 * week, "clicks_total": 2 * clicks, "likes_total": clicks}
        tables["item_stats"].append(
            {"item_id": item, **seven, **total, "watch_ms_total": 9000 * clicks, "age_days": 3, **when}
        )
        if first:
            content = {"topic_mask": 5, "duration_seconds": 30.0, "title": f"item {item}"}
            tables["item_content"].append({"item_id": item, **content, **when})
    for number in range(REQUESTS):
        offered = rng.choice(ITEMS, 12, replace=False) + 1
        clicks = rng.binomial(1, 0.3, SHOWN)
        tables["examples"].append(
            {
                "request_id": f"{dt}-{number}",
                "user_id": 1 + number,
                "event_time": midnight(dt),
                "dt": dt,
                "candidates": offered.tolist(),
                "candidate_scores": rng.normal(size=12).tolist(),
                "policy": "retriever",
                "slate": offered[:SHOWN].tolist(),
                "propensities": [0.5] * SHOWN,
                "clicks": clicks.tolist(),
                "likes": [0] * SHOWN,
                "watch_seconds": (clicks * rng.normal(9, 1, SHOWN)).tolist(),
            }
        )
    return tables


def nothing(tables: Tables) -> None:
    """The change that is none."""


def write_snapshot(root: Path, days: list[str], *changes: Callable[[Tables], None]) -> str:
    """A snapshot of `days` (`changes` alter the newest ones, the last the newest), committed; its artifact's path."""
    entries = []
    altering = [nothing] * (len(days) - len(changes)) + list(changes)
    for number, (dt, change) in enumerate(zip(days, altering, strict=True)):
        tables = a_day(dt, first=number == 0)
        change(tables)
        for name, rows in tables.items():
            columns = schema.FEATURE_VIEWS[name].schema if name in schema.FEATURE_VIEWS else schema.EXAMPLES
            columns = pa.schema([field.with_nullable(True) for field in columns])
            path = root / "data" / dt / name / "part-0.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, schema=columns), path)
        entries.append({"dt": dt, "path": f"data/{dt}", "rows": {name: len(rows) for name, rows in tables.items()}})
    manifest = {
        "format": 1,
        "date": days[-1],
        "snapshot_id": days[-1],
        "code_version": "c",
        "config": {},
        "mode": "full",
        "previous": None,
        "chain": {},
        "base": None,
        "state": "state",
        "state_rows": {},
        "days": entries,
    }
    committed = root / "manifests" / f"{days[-1]}.json"
    committed.parent.mkdir(parents=True, exist_ok=True)
    committed.write_text(json.dumps(manifest))
    artifact = root / f"snapshot-{days[-1]}.json"
    artifact.write_text(json.dumps({"root": str(root), "manifest": manifest}))
    return str(artifact)


def check(folder: Path, snapshot: str) -> dict[str, Any]:
    """Run the step; its outcome. DataRefused goes through."""
    run(
        snapshot=snapshot,
        snapshots_uri=str(folder),
        data_docs=str(folder / "docs"),
        run_uri=str(folder / "run"),
    )
    return outcome_of(folder)


def outcome_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "outcomes" / "check_features.json").read_text())


DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]


def second_night(root: Path, change: Callable[[Tables], None] = nothing) -> str:
    """Two days have passed; the third is tonight's."""
    passed.mark(root, Snapshot.load(write_snapshot(root, DAYS[:2])))
    return write_snapshot(root, DAYS, change)


def test_good_features_pass_the_first_night_and_the_next(tmp_path: Path) -> None:
    first = check(tmp_path, write_snapshot(tmp_path, DAYS[:2]))
    assert first["kind"] == "done" and first["figures"]["days"] == DAYS[:2]
    assert first["figures"]["rows"]["item_stats"] == 2 * ITEMS
    assert "drift" not in first["figures"]
    second = check(tmp_path, write_snapshot(tmp_path, DAYS))
    assert second["kind"] == "done" and second["figures"]["days"] == [DAYS[2], DAYS[2]]
    assert second["figures"]["rows"]["item_stats"] == ITEMS
    assert second["figures"]["warnings"] == []
    assert len(second["figures"]["drift"]) == 11
    told = {row["column"]: row for row in second["figures"]["drift_columns"]}
    assert {name: round(row["psi"], 4) for name, row in told.items()} == second["figures"]["drift"]
    assert told["item_stats.impressions_7d"]["critical_limit"] is None, "volume is told, never refused"
    assert all(row["warning_limit"] >= PSI.warning for row in told.values())
    assert sum(row["checks"] for row in second["figures"]["tables"].values()) == second["figures"]["checks"]
    no_new_item = "the drift of item_content.duration_seconds (no value tonight)"
    assert no_new_item in second["figures"]["not_judged"] and no_new_item in second["reason"]
    assert max(second["figures"]["drift"].values()) < PSI.warning
    assert (tmp_path / "docs" / "index.html").is_file()


def set_values(table: str, row: int, **values: Any) -> Callable[[Tables], None]:
    return lambda tables: tables[table][row].update(values)


def new_item(**values: Any) -> Callable[[Tables], None]:
    """An item that is announced that day, with one value otherwise than it should be."""

    def change(tables: Tables) -> None:
        when = {name: tables["item_stats"][0][name] for name in ("event_timestamp", "created_timestamp")}
        content: dict[str, Any] = {"topic_mask": 5, "duration_seconds": None, "title": "new"} | values
        tables["item_content"].append({"item_id": 9000 + len(tables["item_content"]), **content, **when})

    return change


DEFECTS = [
    ("user_stats: expected user_id never null", "dt=2026-01-03", set_values("user_stats", 0, user_id=None)),
    ("user_stats: expected one row for each", "user_id=2", set_values("user_stats", 2, user_id=2)),
    ("user_stats: expected clicks never null", "user_id=4", set_values("user_stats", 3, clicks=None)),
    ("user_stats: expected watch_ms of at least 0", "user_id=5", set_values("user_stats", 4, watch_ms=-1)),
    ("user_stats: expected no more clicks than", "user_id=6", set_values("user_stats", 5, clicks=1000)),
    ("user_stats: expected no more likes than", "user_id=7", set_values("user_stats", 6, likes=1000)),
    ("user_stats: expected 32 topic_clicks", "topic_clicks=2", set_values("user_stats", 7, topic_clicks=[1, 2])),
    ("user_stats: expected no topic_clicks below 0", "user_id=9", set_values("user_stats", 8, topic_clicks=[-1] * 32)),
    (
        "user_stats: expected event_timestamp at the midnight",
        "hours_off_midnight=-24",
        set_values("user_stats", 9, event_timestamp=midnight(DAYS[2])),
    ),
    (
        "user_history: expected histories of at most 50",
        "history_items=51",
        set_values("user_history", 0, history_items=[1] * 51, history_topics=[1] * 51),
    ),
    ("user_history: expected one topic mask", "user_id=2", set_values("user_history", 1, history_topics=[1])),
    ("user_history: expected history_items never null", "user_id=3", set_values("user_history", 2, history_items=None)),
    ("item_stats: expected impressions_7d of at least 0", "item_id=1", set_values("item_stats", 0, impressions_7d=-1)),
    ("item_stats: expected no more clicks_7d than impr", "item_id=2", set_values("item_stats", 1, impressions_7d=0)),
    ("item_stats: expected no more likes_7d than likes", "item_id=3", set_values("item_stats", 2, likes_total=0)),
    ("item_stats: expected age_days of at least 0", "item_id=4", set_values("item_stats", 3, age_days=-1)),
    ("examples: expected one example for each", "2026-01-03-1", set_values("examples", 0, request_id="2026-01-03-1")),
    ("examples: expected at least one item shown", "2026-01-03-2", set_values("examples", 2, slate=[])),
    ("examples: expected one score for each candidate", "2026-01-03-3", set_values("examples", 3, candidates=[1])),
    ("examples: expected one entry of clicks", "2026-01-03-4", set_values("examples", 4, clicks=[1])),
    *(
        (f"examples: expected {name} never null", f"2026-01-03-{row}", set_values("examples", row, **{name: None}))
        for row, name in enumerate(("slate", "candidates", "candidate_scores", "clicks", "likes", "policy"), start=10)
    ),
    ("examples: expected user_id of 1 and above", "2026-01-03-20", set_values("examples", 20, user_id=0)),
    (
        "examples: expected candidates to be item ids",
        "request_id=2026-01-03-21 candidates_outside=12",
        set_values("examples", 21, candidates=[None] * 12),
    ),
    (
        "examples: expected distinct candidates",
        "request_id=2026-01-03-22 candidates_repeated=10",
        set_values("examples", 22, candidates=[7, 8] * 6, slate=[7, 8, 7]),
    ),
    (
        "examples: expected distinct items in a slate",
        "request_id=2026-01-03-22 slate_repeated=1",
        lambda tables: None,
    ),
    *(
        (
            "examples: expected finite candidate_scores",
            f"request_id=2026-01-03-{row} scores_not_finite=1",
            set_values("examples", row, candidate_scores=[score, *[0.5] * 11]),
        )
        for row, score in enumerate((NAN, None, float("inf")), start=23)
    ),
    (
        "examples: expected every item shown among the candidates",
        "request_id=2026-01-03-26 slate_outside=2",
        set_values("examples", 26, candidates=list(range(1, 13)), slate=[13, 1, None]),
    ),
    *(
        (
            f"examples: expected {name} 0 or 1",
            f"request_id=2026-01-03-{row} {name}_outside=1",
            set_values("examples", row, **{name: [0, 1, value]}),
        )
        for row, (name, value) in enumerate((("clicks", 7), ("clicks", None), ("likes", -1), ("likes", 2)), start=27)
    ),
    *(
        (
            "examples: expected propensities null or in (0, 1]",
            f"request_id=2026-01-03-{row} propensities_outside={len(shares)}",
            set_values("examples", row, propensities=[*shares, *[None] * (SHOWN - len(shares))]),
        )
        for row, shares in enumerate(([2.0, 0.0], [NAN], [-0.5, 1.5, NAN]), start=31)
    ),
    *(
        (
            "examples: expected watch_seconds null or finite",
            f"request_id=2026-01-03-{row} watch_seconds_outside=1",
            set_values("examples", row, watch_seconds=[None, seconds, 0.0]),
        )
        for row, seconds in enumerate((NAN, -1.0, float("inf")), start=34)
    ),
    (
        "user_history: expected histories of item ids",
        "history_items_outside=2",
        set_values("user_history", 30, history_items=[-5, None, 3], history_topics=[1, 1, 1]),
    ),
    (
        "user_history: expected topic masks of 32 bits",
        "history_topics_outside=2",
        set_values("user_history", 31, history_items=[1, 2, 3], history_topics=[-1, 2**32, 0]),
    ),
    (
        "user_stats: expected no topic_clicks below 0",
        "topic_clicks_negative=1",
        set_values("user_stats", 32, topic_clicks=[None, *[1] * 31]),
    ),
    ("user_stats: expected user_id of 1 and above", "user_id=0", set_values("user_stats", 33, user_id=0)),
    ("item_content: expected a topic_mask of 32 bits", "topic_mask=-1", new_item(topic_mask=-1)),
    ("item_content: expected duration_seconds null or a", "item_id=9001", new_item(duration_seconds=NAN)),
]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """One night with every defect at once: the refusal and the folder."""
    folder = tmp_path_factory.mktemp("faulty")

    def everything(tables: Tables) -> None:
        for _, _, change in DEFECTS:
            change(tables)

    with pytest.raises(DataRefused) as refused:
        check(folder, second_night(folder, everything))
    return str(refused.value), folder


@pytest.mark.parametrize(("expected", "row"), [(expected, row) for expected, row, _ in DEFECTS])
def test_a_defect_is_named_with_its_row_and_how_to_mend_it(faulty: tuple[str, Path], expected: str, row: str) -> None:
    message, folder = faulty
    named = [line for line in outcome_of(folder)["figures"]["refused"] if line.startswith(expected)]
    assert len(named) == 1
    assert row in named[0] and "To mend:" in named[0]
    assert named[0] in message


def test_a_refusal_is_data_refused_and_keeps_its_data_docs(faulty: tuple[str, Path]) -> None:
    message, folder = faulty
    assert message.startswith(f"the features of {DAYS[2]} break the data contract: examples: expected")
    assert (outcome_of(folder)["kind"], outcome_of(folder)["exit_code"]) == ("data_refused", 3)
    assert "drift" not in outcome_of(folder)["figures"]
    assert (folder / "docs" / "index.html").is_file()


@pytest.mark.parametrize("table", ["examples", "user_stats", "item_stats"])
def test_a_day_without_rows_is_refused(tmp_path: Path, table: str) -> None:
    snapshot = second_night(tmp_path, lambda tables: tables[table].clear())
    with pytest.raises(DataRefused, match=f"{table}: expected at least one row, found 0"):
        check(tmp_path, snapshot)


def test_items_that_nobody_ever_described_are_refused(tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path, DAYS[:1], lambda tables: tables["item_content"].clear())
    with pytest.raises(DataRefused, match="item_content: expected at least one row"):
        check(tmp_path, snapshot)


def scale_scores(shift: float) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        for row in tables["examples"]:
            row["candidate_scores"] = [score + shift for score in row["candidate_scores"]]

    return change


def watch_in_seconds(tables: Tables) -> None:
    for row in tables["user_stats"]:
        row["watch_ms"] //= 1000


def test_a_changed_unit_is_refused_as_drift(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"drift: expected .* up to critical_limit") as refused:
        check(tmp_path, second_night(tmp_path, watch_in_seconds))
    assert "column=user_stats.watch_ms / impressions" in str(refused.value)
    assert outcome_of(tmp_path)["figures"]["drift"]["user_stats.watch_ms / impressions"] > PSI.critical


def durations(factor: float) -> Callable[[Tables], None]:
    """New items, their durations drawn as ever and written in a unit of 1 / factor seconds."""

    def change(tables: Tables) -> None:
        rng = np.random.default_rng(1)
        when = {name: tables["item_stats"][0][name] for name in ("event_timestamp", "created_timestamp")}
        drawn = factor * rng.lognormal(3, 0.7, ITEMS)
        tables["item_content"] = [
            {"item_id": item, "topic_mask": 5, "duration_seconds": float(seconds), "title": "new", **when}
            for item, seconds in enumerate(drawn, start=1)
        ]

    return change


@pytest.mark.parametrize(("factor", "fine"), [(1.0, True), (1000.0, False)])
def test_durations_in_another_unit_are_refused_as_drift(tmp_path: Path, factor: float, fine: bool) -> None:
    passed.mark(tmp_path, Snapshot.load(write_snapshot(tmp_path, DAYS[:1], durations(1.0))))
    snapshot = write_snapshot(tmp_path, DAYS[:2], durations(1.0), durations(factor))
    if fine:
        assert "item_content.duration_seconds" in check(tmp_path, snapshot)["figures"]["drift"]
        return
    with pytest.raises(DataRefused, match="drift: expected .* up to critical_limit") as refused:
        check(tmp_path, snapshot)
    assert "column=item_content.duration_seconds" in str(refused.value)


def week_of(mean_impressions: float) -> Callable[[Tables], None]:
    """Item counters of a week with that many impressions an item; every item keeps its own click rate of about 0.3."""

    def change(tables: Tables) -> None:
        rng = np.random.default_rng(int(mean_impressions))
        for row in tables["item_stats"]:
            week = int(rng.poisson(mean_impressions))
            clicks = int(rng.binomial(week, 0.3))
            row.update(impressions_7d=week, clicks_7d=clicks, likes_7d=clicks // 3)
            row.update(impressions_total=2000, clicks_total=800, likes_total=800)

    return change


def test_a_big_day_that_leaves_the_week_is_a_warning(tmp_path: Path) -> None:
    """A backfill of 35 times a usual day: counts fall, and the rates of the few impressions left scatter widely."""
    passed.mark(tmp_path, Snapshot.load(write_snapshot(tmp_path, DAYS[:1], week_of(600))))
    outcome = check(tmp_path, write_snapshot(tmp_path, DAYS[:2], week_of(600), week_of(15)))
    assert outcome["kind"] == "done"
    drift = outcome["figures"]["drift"]
    assert drift["item_stats.impressions_7d"] > PSI.critical
    assert drift["item_stats.clicks_7d / impressions_7d"] > PSI.critical
    (warning,) = outcome["figures"]["warnings"]
    assert "2 of 11 rows otherwise" in warning and "column=item_stats.impressions_7d" in warning


def test_a_refused_day_is_looked_at_again_until_it_is_mended(tmp_path: Path) -> None:
    check(tmp_path, write_snapshot(tmp_path, DAYS[:1]))
    spoilt = set_values("user_stats", 4, watch_ms=-1)
    with pytest.raises(DataRefused, match="watch_ms of at least 0"):
        check(tmp_path, write_snapshot(tmp_path, DAYS[:2], spoilt))
    with pytest.raises(DataRefused, match=f"watch_ms of at least 0.*dt={DAYS[1]} user_id=5"):
        check(tmp_path, write_snapshot(tmp_path, DAYS, spoilt, nothing))
    assert outcome_of(tmp_path)["figures"]["days"] == [DAYS[1], DAYS[2]]
    mended = check(tmp_path, write_snapshot(tmp_path, DAYS))
    assert (mended["kind"], mended["figures"]["days"]) == ("done", [DAYS[1], DAYS[2]])


def test_tonight_is_held_against_the_last_that_passed(tmp_path: Path) -> None:
    """The day that was refused as drift is no yardstick: the next with the same fault is refused, too."""
    with pytest.raises(DataRefused, match="drift"):
        check(tmp_path, second_night(tmp_path, watch_in_seconds))
    four = [*DAYS, "2026-01-04"]
    with pytest.raises(DataRefused, match=r"column=user_stats\.watch_ms / impressions"):
        check(tmp_path, write_snapshot(tmp_path, four, watch_in_seconds, watch_in_seconds))


@pytest.mark.parametrize("damaged", ["manifest", "mark", "rows"])
def test_a_snapshot_that_cannot_be_read_is_no_yardstick(tmp_path: Path, damaged: str) -> None:
    snapshot = second_night(tmp_path)
    before = Snapshot.read(tmp_path, DAYS[1])
    if damaged == "manifest":
        manifest_path(tmp_path, DAYS[1]).write_text('{"format": 0}')
    elif damaged == "mark":
        (tmp_path / "passed" / f"{before.snapshot_id}.json").write_text("{")
    else:
        before.manifest["days"][0]["rows"]["examples"] += 1
        manifest_path(tmp_path, DAYS[1]).write_text(json.dumps(before.manifest))
    outcome = check(tmp_path, snapshot)
    assert outcome["figures"]["days"] == [DAYS[0], DAYS[2]]
    assert "drift" not in outcome["figures"]


def test_a_rebuild_in_other_folders_has_not_passed_yet(tmp_path: Path) -> None:
    snapshot = Snapshot.load(write_snapshot(tmp_path, DAYS[:1]))
    passed.mark(tmp_path, snapshot)
    rebuilt = {**snapshot.manifest, "days": [{**snapshot.manifest["days"][0], "path": "data/other"}]}
    assert passed.is_marked(tmp_path, snapshot)
    assert not passed.is_marked(tmp_path, Snapshot(tmp_path, rebuilt))


def test_a_request_id_that_comes_back_days_later_is_refused(tmp_path: Path) -> None:
    again = set_values("examples", 5, request_id=f"{DAYS[0]}-5")
    with pytest.raises(DataRefused, match="examples: expected one example for each request_id in all days") as refused:
        check(tmp_path, second_night(tmp_path, again))
    assert f"dt={DAYS[2]} request_id={DAYS[0]}-5" in str(refused.value)


def test_a_moderate_shift_is_a_warning(tmp_path: Path) -> None:
    """Mean scores have a standard deviation of 12 ** -0.5; a shift of 0.75 of it is a PSI of about 0.56."""
    outcome = check(tmp_path, second_night(tmp_path, scale_scores(0.75 * 12**-0.5)))
    assert outcome["kind"] == "done"
    (warning,) = outcome["figures"]["warnings"]
    assert "column=examples.mean_score" in warning and "warning_limit" in warning


@pytest.mark.parametrize("shift", [0.25, 0.5, 1.0])
def test_psi_of_shifted_normals_is_the_squared_shift(shift: float) -> None:
    """The identity the thresholds lean on: Jeffreys' divergence of N(0, 1) and N(d, 1) is d squared."""
    rng = np.random.default_rng(0)
    found = population_stability(rng.normal(size=200_000), rng.normal(shift, 1, 200_000))
    assert found.psi == pytest.approx(shift**2, rel=0.12)  # ten bins lose a little


def test_psi_is_the_sum_over_the_bins() -> None:
    """Restated by hand on a column with two values and nulls."""
    earlier = np.array([0.0] * 60 + [1.0] * 30 + [NAN] * 10)
    tonight = np.array([0.0] * 30 + [1.0] * 50 + [NAN] * 20)
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.3, 0.5, 0.2])
    assert population_stability(earlier, tonight).psi == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert population_stability(np.full(50, 50.0), np.full(50, 49.0)).psi > PSI.critical
    with pytest.raises(ValueError, match="0 earlier"):
        population_stability(np.array([]), tonight)


def test_small_samples_of_one_distribution_stay_below_the_limits() -> None:
    rng = np.random.default_rng(1)
    beyond = 0
    for _ in range(300):
        (row,) = compare({"x": Column(rng.normal(size=40))}, {"x": Column(rng.normal(size=40))}).itertuples()
        assert row.warning_limit > PSI.warning  # forty rows are too few for the usual limit
        beyond += row.psi > row.warning_limit
    assert beyond <= 300 * 10 * (1 - NOISE_QUANTILE)


def test_a_column_without_values_is_named_and_not_passed_over() -> None:
    """A rate whose wholes are all null or 0 has no value left, and is no column that stood still."""
    some, none = Column(np.ones(5)), Column(np.empty(0))
    earlier = {"both": none, "gone": some, "new": none, "there": some}
    tonight = {"both": none, "gone": none, "new": some, "there": some}
    assert compare(earlier, tonight).column.tolist() == ["there"]
    assert without_values(earlier, tonight) == [
        "both (no value before and tonight)",
        "gone (no value tonight)",
        "new (no value before)",
    ]


def test_a_rate_that_lost_its_wholes_is_told(tmp_path: Path) -> None:
    def nobody_clicks(tables: Tables) -> None:
        for row in tables["user_stats"]:
            row.update(clicks=0, likes=0, watch_ms=0)

    before = prepare.drift_columns(Snapshot.load(write_snapshot(tmp_path, DAYS[:2])), DAYS[:1])
    now = prepare.drift_columns(Snapshot.load(write_snapshot(tmp_path, DAYS, nobody_clicks)), DAYS[:1])
    assert without_values(before, now) == ["user_stats.watch_ms / clicks (no value tonight)"]
    assert "user_stats.watch_ms / clicks" not in compare(before, now).column.tolist()


# ------------------------------------------------------------------------------------- volume, references, acceptance


def test_a_drift_that_is_real_can_be_accepted_and_is_the_next_yardstick(tmp_path: Path) -> None:
    day_decisions.record(tmp_path, DAYS[2], day_decisions.ACCEPT, "watch time is logged in seconds from now on")
    outcome = check(tmp_path, second_night(tmp_path, watch_in_seconds))
    assert outcome["kind"] == "done" and outcome["figures"]["warnings"]
    four = write_snapshot(tmp_path, [*DAYS, "2026-01-04"], watch_in_seconds, watch_in_seconds)
    assert check(tmp_path, four)["figures"]["warnings"] == []


def test_a_refusal_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataRefused) as refused:
        check(tmp_path, second_night(tmp_path, watch_in_seconds))
    assert "`goalrank day accept DATE --reason TEXT`" in str(refused.value)
    assert f"`goalrank day skip {DAYS[2]} --reason TEXT`" in str(refused.value).splitlines()[-1]


def test_how_far_a_column_moved_is_told_in_standard_deviations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    assert moved(rng.normal(size=100_000), rng.normal(2, 1, 100_000)) == pytest.approx(2, rel=0.02)
    assert moved(np.ones(5), np.ones(9)) == 0 and moved(np.ones(5), np.zeros(5)) == np.inf
    assert moved(np.array([NAN]), np.ones(3)) == 0
    with pytest.raises(DataRefused, match=r"column=user_stats\.watch_ms / impressions .*moved_by=\d"):
        check(tmp_path, second_night(tmp_path, watch_in_seconds))


def fewer(share: float) -> Callable[[Tables], None]:
    """Only so many of the day's examples."""

    def change(tables: Tables) -> None:
        del tables["examples"][int(share * REQUESTS) :]

    return change


@pytest.mark.parametrize(("share", "said"), [(0.06, "refused"), (0.4, "warning"), (0.8, "")])
def test_rows_against_the_trailing_days(tmp_path: Path, share: float, said: str) -> None:
    days = [f"2026-01-0{number}" for number in range(1, 5)]
    snapshot = write_snapshot(tmp_path, days, fewer(share))
    if said == "refused":
        with pytest.raises(DataRefused, match=f"volume: expected at most {VOLUME.critical:g} times") as refused:
            check(tmp_path, snapshot)
        assert "table=examples dt=2026-01-04 rows=9 usual_rows=150.0" in str(refused.value)
        return
    figures = check(tmp_path, snapshot)["figures"]
    assert [text.startswith(f"volume: expected at most {VOLUME.warning:g}") for text in figures["warnings"]] == [
        True
    ] * bool(said)
    assert figures["not_judged"] == ["drift (no earlier snapshot has passed)"]


def test_too_few_days_are_not_judged_and_that_is_said(tmp_path: Path) -> None:
    outcome = check(tmp_path, write_snapshot(tmp_path, DAYS[:2]))
    assert len(outcome["figures"]["not_judged"]) == 3
    assert "not judged: the propensities of 2026-01-02 (fewer than 3 days before it); the volume" in outcome["reason"]
    assert "the volume of 2026-01-02 (fewer than 3 days before it); drift" in outcome["reason"]


def propensities_on(share: float, missing: list[float | None] | None = None) -> Callable[[Tables], None]:
    """Propensities on so many of the day's lists, `missing` on the others."""

    def change(tables: Tables) -> None:
        for row in tables["examples"][int(share * REQUESTS) :]:
            row["propensities"] = missing

    return change


def test_a_producer_that_stops_writing_propensities_is_a_warning(tmp_path: Path) -> None:
    days = [f"2026-01-0{number}" for number in range(1, 5)]
    outcome = check(tmp_path, write_snapshot(tmp_path, days, propensities_on(0)))
    assert outcome["kind"] == "done"
    (warning,) = outcome["figures"]["warnings"]
    assert warning.startswith("propensities: expected propensities on the usual share of the rankers' lists")
    assert f"dt=2026-01-04 lists={REQUESTS} share=0.0 usual_share=1.0 times_fewer=inf" in warning


A_WEEK = [f"2026-01-0{number}" for number in range(1, 8)]


@pytest.mark.parametrize(
    ("changes", "fewer"),
    [
        ([nothing], 1.0),
        ([propensities_on(0.4)], 2.5),
        ([propensities_on(0.4, [0.5] * (SHOWN - 1) + [None])], 2.5),  # a list counts if every item has one
        ([propensities_on(0.0)] * 3, np.inf),  # the days before still remember
        ([propensities_on(0.0)] * 7, 1.0),  # there never were any
        ([propensities_on(0.0)] * 6 + [nothing], 1.0),
        ([propensities_on(0.1)] * 6 + [propensities_on(0.0)], np.inf),
    ],
)
def test_lists_with_propensities_against_the_trailing_days(tmp_path: Path, changes: list[Any], fewer: float) -> None:
    (found,) = prepare.propensities(Snapshot.load(write_snapshot(tmp_path, A_WEEK, *changes))).itertuples()
    assert found.times_fewer == pytest.approx(fewer) and found.lists == REQUESTS


def test_propensities_that_nobody_can_judge(tmp_path: Path) -> None:
    (few,) = prepare.propensities(Snapshot.load(write_snapshot(tmp_path / "few", A_WEEK[:3]))).itertuples()
    assert few.lists == REQUESTS and np.isnan(few.times_fewer)

    def users_chose(tables: Tables) -> None:
        for row in tables["examples"]:
            row.update(policy=schema.SELF_SELECTED, propensities=None)

    (none,) = prepare.propensities(Snapshot.load(write_snapshot(tmp_path, A_WEEK, users_chose))).itertuples()
    assert none.lists == 0 and np.isnan(none.share) and np.isnan(none.times_fewer)


def renumbered(share: float) -> Callable[[Tables], None]:
    """So many of the items under ids that nobody announced."""

    def change(tables: Tables) -> None:
        moved_up = {item: item + (10_000 if item <= share * ITEMS else 0) for item in range(1, ITEMS + 1)}
        for row in tables["examples"]:
            row["candidates"] = [moved_up[item] for item in row["candidates"]]
            row["slate"] = [moved_up[item] for item in row["slate"]]

    return change


@pytest.mark.parametrize(("share", "said"), [(0.8, "refused"), (0.2, "warning"), (0.0, "")])
def test_items_that_nobody_announced(tmp_path: Path, share: float, said: str) -> None:
    snapshot = write_snapshot(tmp_path, DAYS[:2], renumbered(share))
    if said == "refused":
        with pytest.raises(DataRefused, match=f"at most {UNKNOWN_ITEMS.critical:.0%} of the items unknown") as refused:
            check(tmp_path, snapshot)
        assert "reference=candidates" in str(refused.value) and "for_example=item_id 10" in str(refused.value)
        return
    warnings = check(tmp_path, snapshot)["figures"]["warnings"]
    assert len(warnings) == bool(said)
    if said:
        assert f"at most {UNKNOWN_ITEMS.warning:.0%} of the items unknown, found 2 of 3" in warnings[0]


def test_unknown_users_are_quoted_as_users(tmp_path: Path) -> None:
    """By the name of their column, so that an erased one is found in the texts that quote them."""

    def strangers(tables: Tables) -> None:
        for number, row in enumerate(tables["examples"]):
            row["user_id"] = 4711 + number

    snapshot = Snapshot.load(write_snapshot(tmp_path, DAYS[:1], strangers))
    users = prepare.references(snapshot, refusable=True).set_index("reference").loc["users"]
    assert (users.unknown, users.for_example) == (REQUESTS, "user_id 4711, user_id 4712, user_id 4713")


def test_an_item_that_was_never_announced_has_no_age_and_is_no_fault(tmp_path: Path) -> None:
    outcome = check(tmp_path, write_snapshot(tmp_path, DAYS[:1], set_values("item_stats", 3, age_days=None)))
    assert outcome["kind"] == "done"
