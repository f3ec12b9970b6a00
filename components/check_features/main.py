"""Hold tonight's rows of a snapshot against ranges, and against the last good snapshot."""

from __future__ import annotations

from types import ModuleType

import pandas as pd
import pyarrow.parquet as pq

from components.check_features import drift, passed, prepare
from components.data_gate import Gate
from components.extract_features import day_decisions, locations
from components.extract_features.snapshots import Snapshot
from components.step import Step, run_alone
from components.trailing_volume import FEWEST_TRAILING_DAYS
from goalrank import schema

ALWAYS = ("user_stats", "item_stats")
"""Views with rows on every day that had an impression."""

SOMEWHERE = ("user_profile", "item_content")
"""Views that a snapshot must have rows of, in whatever day: nobody is known otherwise. A day may bring nothing new."""


def run(snapshot: str, snapshots_uri: str, data_docs: str, run_uri: str) -> None:
    """Check the days that the last good snapshot has not: keys, times, ranges, nulls; then drift since that one.

    Good is a snapshot that passed here. Days of one that was refused are checked again, until they are mended.

    Args:
        snapshot: the snapshot artifact (JSON).
        snapshots_uri: root of the snapshots, where the last good one is found.
        data_docs: folder for Great Expectations' static site; written when the features are refused, too.
        run_uri: the run's folder.

    Raises:
        DataRefused: a critical check failed; names each one, what was found and how to mend it.
    """
    with Step("check_features", run_uri) as step:
        with step.tool("great_expectations"):
            gate = Gate("check_features", data_docs)
            from components.check_features import suites
        tonight = Snapshot.load(snapshot)
        root = locations.folder(snapshots_uri)
        earlier = passed.newest_before(root, tonight.date)
        days = _new_days(tonight, earlier)
        accepted = tonight.date in day_decisions.read(root).accepted
        step.figures["days"] = [days[0], days[-1]]
        with gate:
            examples = prepare.example_ranges(prepare.example_rows(tonight, days), tonight, days)
            gate.check("examples", prepare.counted(examples, tonight), suites.examples(), ["dt", "request_id"])
            for done, view in enumerate(schema.FEATURE_VIEWS.values()):
                step.progress(done, len(schema.FEATURE_VIEWS), view.name)
                rows = _rows(tonight, view, days)
                if len(rows) or view.name in ALWAYS or (view.name in SOMEWHERE and not _known(tonight, view)):
                    gate.check(view.name, rows, suites.of_view(view), ["dt", view.entity])
            known = prepare.references(tonight, refusable=not accepted)
            gate.check("references", known, suites.references(), ["reference", "distinct", "unknown", "for_example"])
            _check_propensities(gate, suites, tonight)
            _check_volume(gate, suites, tonight, refusable=not accepted)
            if earlier is None:
                gate.leave_unjudged("drift (no earlier snapshot has passed)")
            # Shifts of rows that are wrong already say nothing more.
            elif not gate.refused:
                before, now = prepare.drift_columns(earlier), prepare.drift_columns(tonight, days)
                for column in drift.without_values(before, now):
                    gate.leave_unjudged(f"the drift of {column}")
                shifts = drift.compare(before, now, accepted)
                step.figures["drift"] = {row.column: round(row.psi, 4) for row in shifts.itertuples()}
                step.figures["drift_columns"] = drift.as_rows(shifts)
                told = ["column", "rows_before", "rows_tonight", "median_before", "median_tonight", "moved_by"]
                gate.check("drift", shifts, suites.drift(), told, examples=len(shifts))
        gate.decide(step, f"the features of {tonight.date}", day_decisions.way_out([tonight.date]))
        passed.mark(root, tonight)


def _check_propensities(gate: Gate, suites: ModuleType, tonight: Snapshot) -> None:
    shares = prepare.propensities(tonight)
    gate.check("propensities", shares, suites.propensities(), ["dt", "lists", "share", "usual_share"])
    (found,) = shares.itertuples()
    if not found.lists:
        gate.leave_unjudged(f"the propensities of {tonight.date} (no ranker chose a list)")
    elif shares.times_fewer.isna().all():
        gate.leave_unjudged(f"the propensities of {tonight.date} (fewer than {FEWEST_TRAILING_DAYS} days before it)")


def _check_volume(gate: Gate, suites: ModuleType, tonight: Snapshot, refusable: bool) -> None:
    volumes = prepare.volumes(tonight, refusable)
    gate.check("volume", volumes, suites.volume(), ["table", "dt", "rows", "usual_rows"])
    if volumes.times_usual.isna().all():
        gate.leave_unjudged(f"the volume of {tonight.date} (fewer than {FEWEST_TRAILING_DAYS} days before it)")


def _new_days(tonight: Snapshot, earlier: Snapshot | None) -> list[str]:
    """Days whose files have not passed this gate yet; never none."""
    known = {day["path"] for day in earlier.manifest["days"]} if earlier is not None else set()
    return [day["dt"] for day in tonight.manifest["days"] if day["path"] not in known] or [tonight.days[-1]]


def _known(snapshot: Snapshot, view: schema.FeatureView) -> bool:
    """Whether the snapshot has any row of a view."""
    return any(pq.read_metadata(file).num_rows for file in snapshot.view_paths(view.name))


def _rows(snapshot: Snapshot, view: schema.FeatureView, days: list[str]) -> pd.DataFrame:
    """Rows of a view with the columns that its own suite judges."""
    rows = prepare.view_rows(snapshot, view, days)
    if view is schema.USER_STATS:
        return prepare.user_stats_ranges(rows, snapshot, days)
    if view is schema.USER_HISTORY:
        return prepare.user_history_ranges(rows, snapshot, days)
    if view is schema.ITEM_CONTENT:
        return prepare.item_content_ranges(rows, snapshot, days)
    if view is schema.ITEM_STATS:
        return prepare.item_stats_ranges(rows)
    return rows


if __name__ == "__main__":
    run_alone(run)
