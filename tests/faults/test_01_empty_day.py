"""1. An empty day (map expectations pass on empty data) -> refused, exit 3, by every gate and every suite."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.check_features import suites as feature_suites
from components.check_logs import suites as log_suites
from components.data_gate import Gate
from components.generate_groups import suites as group_suites
from components.step import Step
from goalrank import schema
from goalrank.errors import EXIT_DATA_REFUSED, DataRefused
from tests.components.test_check_features import DAYS as FEATURE_DAYS
from tests.components.test_check_features import check, second_night
from tests.components.test_check_logs import DAYS, clean_logs, write
from tests.faults.conftest import Seen

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("table", schema.DAILY_TABLES)
def test_check_logs_refuses_an_empty_day(tmp_path: Path, seen: Seen, table: str) -> None:
    clean_logs(tmp_path / "logs", DAYS[:3])
    write(tmp_path / "logs", table, DAYS[2], [])
    flags = {"logs-uri": "logs", "snapshots-uri": "snapshots", "data-docs": "docs", "run-uri": "run"}
    words = [word for name, folder in flags.items() for word in (f"--{name}", str(tmp_path / folder))]
    command = [sys.executable, "-m", "components.check_logs.main", *words, "--date", DAYS[2], "--full-rebuild", "no"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == EXIT_DATA_REFUSED, done.stderr
    assert f"table={table} dt={DAYS[2]}" in done.stderr and "no partition to be empty" in done.stderr
    outcome = json.loads((tmp_path / "run/outcomes/check_logs.json").read_text())
    assert (outcome["exit_code"], outcome["kind"]) == (EXIT_DATA_REFUSED, "data_refused")
    seen(f"check_logs on a day whose {table} have no row", f"exit {done.returncode}, partition named")


@pytest.mark.parametrize("table", ["examples", "user_stats", "item_stats"])
def test_check_features_refuses_a_day_without_rows(tmp_path: Path, table: str) -> None:
    snapshot = second_night(tmp_path, lambda tables: tables[table].clear())
    with pytest.raises(
        DataRefused, match=f"features of {FEATURE_DAYS[2]} .*{table}: expected at least one row, found 0"
    ):
        check(tmp_path, snapshot)


SUITES: dict[str, list[Any]] = {
    **{f"logs: {name}": getattr(log_suites, name)() for name in ("partitions", "columns", "days", *schema.LOG_TABLES)},
    **{f"features: {view.name}": feature_suites.of_view(view) for view in schema.FEATURE_VIEWS.values()},
    **{f"features: {name}": getattr(feature_suites, name)() for name in ("examples", "references", "volume", "drift")},
    **{f"groups: {name}": getattr(group_suites, name)() for name in ("groups", "whole")},
}


def columns_of(suite: list[Any]) -> list[str]:
    named = [getattr(one, name, None) for one in suite for name in ("column", "column_A", "column_B")]
    return sorted({name for name in named if name})


def test_no_suite_takes_an_empty_table(tmp_path: Path, seen: Seen) -> None:
    """Great Expectations alone says yes to each of them: every check on columns passes where there is no row."""
    with Step("gate", str(tmp_path / "run")) as step:
        with Gate("gate", str(tmp_path / "docs")) as gate:
            for name, suite in SUITES.items():
                frame = pd.DataFrame({column: pd.Series(dtype=float) for column in columns_of(suite)})
                gate.check(name.replace(": ", "-"), frame, suite, [])
        with pytest.raises(DataRefused, match="expected at least one row, found 0"):
            gate.decide(step, "the empty tables")
    refused = [failure.table for failure in gate.refused]
    assert refused == [name.replace(": ", "-") for name in SUITES], "one refusal a suite: the row count, nothing else"
    seen(f"all {len(SUITES)} suites on empty tables", f"{len(refused)} refusals, each by its row count alone")
