"""What both data gates share: Great Expectations runs a suite, its Data Docs are kept, its result decides.

Fails closed. Great Expectations does not raise when a validation fails, lets every map expectation pass on an empty
table, and answers an expectation that crashed with one more row of results: here each of these is a failure.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import data_docs
from components.step import FOR_EXAMPLE, Step
from goalrank.errors import DataRefused

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when great_expectations is imported

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.checkpoint import CheckpointResult
    from great_expectations.core import ExpectationSuite, ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation
    from pyspark.sql import DataFrame

CRITICAL = "critical"
"""Severity of a check that stops the night."""

WARNING = "warning"
"""Severity of a check that is only reported."""

EXAMPLE_ROWS = 3
"""How many offending rows a refusal quotes for each check."""

LONGEST_CRASH = 300
"""Characters quoted of what a crashed check said: Spark's messages bring the whole stack of a JVM with them."""

_SITE = "gate"


@dataclass(frozen=True)
class Failure:
    """One check that did not pass."""

    table: str
    severity: str
    expected: str
    seen: str
    mend: str
    examples: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        rows = "; ".join(" ".join(f"{name}={value}" for name, value in row.items()) for row in self.examples)
        quoted = f"{FOR_EXAMPLE}{rows}" if rows else ""
        return f"{self.table}: expected {self.expected}, found {self.seen}{quoted}. To mend: {self.mend}"


class Gate:
    """One step's checks: tables go through it one by one, Data Docs are written on leaving, `decide` has the last word.

    Use as a context manager; the static site lies under `data_docs` (index.html) however the block ends.
    """

    def __init__(self, name: str, data_docs: str) -> None:
        import great_expectations
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self._gx = great_expectations
        self.name = name
        self.data_docs = Path(data_docs)
        self.failures: list[Failure] = []
        self.checks = 0
        self.rows: dict[str, int] = {}
        self.not_judged: list[str] = []
        self.crashed: set[str] = set()
        self._tables: dict[str, dict[str, int]] = {}
        self._run_id = great_expectations.RunIdentifier(run_name=name, run_time=datetime.now(UTC))
        self._context = great_expectations.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self._context.add_data_docs_site(
            _SITE,
            {
                "class_name": "SiteBuilder",
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(self.data_docs.resolve()),
                },
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            },
        )

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.data_docs.mkdir(parents=True, exist_ok=True)
        self._context.build_data_docs(site_names=[_SITE])
        data_docs.keep_inside(self.data_docs)
        data_docs.write_index(self.data_docs, self.name, self._tables)

    @property
    def refused(self) -> list[Failure]:
        """Failures that stop the night."""
        return [failure for failure in self.failures if failure.severity == CRITICAL]

    @property
    def warnings(self) -> list[Failure]:
        """Failures that are only reported."""
        return [failure for failure in self.failures if failure.severity != CRITICAL]

    def leave_unjudged(self, what: str) -> None:
        """Say what could not be judged and why; a silence would read as a pass."""
        self.not_judged.append(what)

    def check(
        self,
        table: str,
        frame: pd.DataFrame | DataFrame,
        suite: Sequence[Expectation],
        keys: Sequence[str],
        examples: int = EXAMPLE_ROWS,
    ) -> None:
        """Run one suite on one prepared table and remember what failed.

        Args:
            table: its name in messages and Data Docs.
            frame: pandas or Spark, cached by the caller if it is costly. Never empty: an empty one fails.
            suite: expectations with `severity`, `description` (what is expected) and `notes` (how to mend).
            keys: columns that tell a person which row is meant.
            examples: how many offending rows to quote for each check.
        """
        from great_expectations import expectations as gxe
        from great_expectations.expectations.metadata_types import FailureSeverity

        not_empty = gxe.ExpectTableRowCountToBeBetween(
            min_value=1,
            severity=FailureSeverity.CRITICAL,
            description="at least one row",
            notes="find out why nothing was written, and write the rows",
        )
        suite = [not_empty, *suite]
        batch = self._batch_definition(table, frame)
        # Counts only: quoting rows costs a query each, and is done below for those that failed.
        counts = {"result_format": "BASIC", "partial_unexpected_count": 0}
        results = self._run(table, batch, suite, frame, counts)
        failed = [(expected, result) for expected, result in zip(suite, results, strict=True) if not _passed(result)]
        self.checks += len(suite)
        self.rows[table] = _observed(results[0])
        self._tables[table] = {"checks": len(suite), CRITICAL: 0, WARNING: 0}
        crashed = [(expected, _crash(result)) for expected, result in failed if _crash(result)]
        failed = [(expected, result) for expected, result in failed if not _crash(result)]
        quoted = self._examples(batch, frame, [expected for expected, _ in failed], keys, examples)
        for (expected, result), rows in zip(failed, quoted, strict=True):
            only_told = FailureSeverity(expected.severity) is FailureSeverity.WARNING
            self._fail(table, WARNING if only_told else CRITICAL, expected, _seen(result), rows)
        if crashed:
            # Whatever its severity: a check that did not run is no check. One cause crashes most of a table's checks.
            self.crashed.add(table)
            first, why = crashed[0]
            more = f", and {len(crashed) - 1} more checks of this table did" if len(crashed) > 1 else ""
            self._fail(table, CRITICAL, first, f"{why}{more}", [])

    def _fail(self, table: str, severity: str, expected: Expectation, seen: str, rows: list[dict[str, Any]]) -> None:
        self._tables[table][severity] += 1
        self.failures.append(Failure(table, severity, str(expected.description), seen, str(expected.notes), rows))

    def decide(self, step: Step, what: str, way_out: str = "") -> None:
        """Write the step's figures; let the night go on or stop it.

        Args:
            step: gets checks, rows, tables, warnings, refused, not_judged and data_docs as figures, and its reason when
                all is well.
            what: what was looked at, for example 'the logs of 2026-01-08'.
            way_out: last line of a refusal: how to go on where the rows will never be mended.

        Raises:
            DataRefused: a critical check failed, or nothing was checked at all. Names every failed critical check.
        """
        step.figures |= {
            "checks": self.checks,
            "rows": self.rows,
            "tables": self._tables,
            "warnings": [str(failure) for failure in self.warnings],
            "refused": [str(failure) for failure in self.refused],
            "not_judged": self.not_judged,
            "data_docs": str(self.data_docs / "index.html"),
        }
        if not self.checks:
            raise DataRefused(f"{what}: no check was run, so nothing is known to be good; this is a bug of {self.name}")
        if self.refused:
            first, *others = (str(failure) for failure in self.refused)
            lines = [f"{what} break the data contract: {first}"]
            lines += [f"also {number}. {text}" for number, text in enumerate(others, start=2)]
            lines += [way_out] if way_out else []
            raise DataRefused("\n".join(lines))
        step.reason = f"{what}: {self.checks} checks passed" + (
            f", {len(self.warnings)} of them with a warning" if self.warnings else ""
        )
        if self.not_judged:
            step.reason += f"; not judged: {'; '.join(self.not_judged)}"

    def _batch_definition(self, table: str, frame: pd.DataFrame | DataFrame) -> Any:
        is_pandas = type(frame).__module__.startswith("pandas")
        sources = self._context.data_sources
        # Not persisted a second time: the caller has cached what is worth it.
        source = sources.add_pandas(table) if is_pandas else sources.add_spark(table, persist=False)
        return source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("whole")

    def _run(
        self,
        name: str,
        batch: Any,
        suite: Sequence[Expectation],
        frame: pd.DataFrame | DataFrame,
        result_format: dict[str, Any],
    ) -> list[ExpectationValidationResult | None]:
        """One Checkpoint run. Results in the suite's order; None where Great Expectations gave none."""
        stored = self._context.suites.add(self._gx.ExpectationSuite(name))
        for expectation in _fresh(suite):
            stored.add_expectation(expectation)
        definition = self._context.validation_definitions.add(
            self._gx.ValidationDefinition(name=name, data=batch, suite=stored)
        )
        checkpoint = self._context.checkpoints.add(
            self._gx.Checkpoint(name=name, validation_definitions=[definition], result_format=result_format)
        )
        outcome: CheckpointResult = checkpoint.run(batch_parameters={"dataframe": frame}, run_id=self._run_id)
        return _in_order(stored, [result for run in outcome.run_results.values() for result in run.results])

    def _examples(
        self,
        batch: Any,
        frame: pd.DataFrame | DataFrame,
        failed: Sequence[Expectation],
        keys: Sequence[str],
        count: int,
    ) -> list[list[dict[str, Any]]]:
        """Up to `count` offending rows of each failed expectation.

        Validated outside the Checkpoint, so that no value of the logs gets into Data Docs: they are HTML, and Great
        Expectations does not escape it.
        """
        if not failed:
            return []
        suite = self._gx.ExpectationSuite("rows", expectations=_fresh(failed))
        for expectation in suite.expectations:
            expectation.id = str(uuid.uuid4())
        result_format = {
            "result_format": "SUMMARY",
            "partial_unexpected_count": count,
            "unexpected_index_column_names": [key for key in keys if key in frame.columns],
        }
        found = batch.get_batch(batch_parameters={"dataframe": frame}).validate(suite, result_format=result_format)
        return [_rows(result, keys) for result in _in_order(suite, found.results)]


def _fresh(suite: Sequence[Expectation]) -> list[Expectation]:
    """Copies that belong to no suite yet."""
    return [expectation.copy(update={"id": None}) for expectation in suite]


def _in_order(
    suite: ExpectationSuite, results: Sequence[ExpectationValidationResult]
) -> list[ExpectationValidationResult | None]:
    """Results in the suite's order (Great Expectations puts crashed ones first); None where there is none."""
    by_id = {result.expectation_config.id: result for result in results if result.expectation_config is not None}
    return [by_id.get(expectation.id) for expectation in suite.expectations]


def _passed(result: ExpectationValidationResult | None) -> bool:
    return result is not None and result.success is True and not _crash(result)


def _crash(result: ExpectationValidationResult | None) -> str:
    """What went wrong inside Great Expectations, empty if nothing did."""
    if result is None:
        return "no result at all (the check did not run)"
    told: Mapping[str, Any] = result.exception_info or {}
    # One flat record, or one a metric that crashed.
    records = [told] if "raised_exception" in told else [entry for entry in told.values() if isinstance(entry, Mapping)]
    for record in records:
        if record.get("raised_exception"):
            message = " ".join(str(record.get("exception_message")).split())
            short = message if len(message) <= LONGEST_CRASH else f"{message[:LONGEST_CRASH]} ..."
            return f"that the check itself crashed ({short})"
    return ""


def _observed(result: ExpectationValidationResult | None) -> int:
    return int(result.result.get("observed_value", 0)) if result is not None else 0


def _seen(result: ExpectationValidationResult | None) -> str:
    figures = result.result if result is not None else {}
    if "unexpected_count" in figures:
        return f"{figures['unexpected_count']} of {figures['element_count']} rows otherwise"
    return f"{figures.get('observed_value', 'something else')}"


def _rows(result: ExpectationValidationResult | None, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Offending rows, keys first."""
    found = (result.result if result is not None else {}).get("partial_unexpected_index_list") or []
    rows = []
    for row in found:
        ordered = {key: row[key] for key in keys if key in row}
        rows.append({name: _plain(value) for name, value in {**ordered, **row}.items()})
    return rows


def _plain(value: Any) -> Any:
    """A numpy scalar as Python's own, so that it prints as people write it."""
    return value.item() if hasattr(value, "item") else value
