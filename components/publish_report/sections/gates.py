"""The data gates: what each checked, refused, warned of and could not judge; drift."""

from __future__ import annotations

from typing import Any

from components.publish_report.document import JOINED, figures
from components.publish_report.plots import drift as plots
from components.publish_report.plots.style import made, numbered

GATES = {
    "check_logs": "the day's logs against the data contract",
    "check_features": "the snapshot's features: ranges, nulls, drift",
    "generate_groups": "the helpers' lists the ranker learns from",
    JOINED: "the helpers' lists the ranker learns from, made in parts",
}
"""Steps with a data gate of Great Expectations, and what it looks at."""

MOST = 40
"""Messages shown of a gate; Data Docs have all of them."""


def gates(document: dict[str, Any]) -> dict[str, Any] | None:
    """A row a gate, its messages, and the drift of every column, largest first."""
    outcomes = document["outcomes"]
    there = [name for name in GATES if name in outcomes]
    if not there:
        return None
    rows = [_gate(name, outcomes[name]) for name in there]
    drift = _drift(figures(outcomes, "check_features"))
    skew = figures(outcomes, "materialize_features").get("skew")
    return {
        "rows": rows,
        "messages": [
            {"gate": row["name"], "kind": kind, "texts": row[kind][:MOST], "more": max(0, len(row[kind]) - MOST)}
            for row in rows
            for kind in ("refused", "warnings", "not_judged")
            if row[kind]
        ],
        "drift": drift,
        "skew": skew if isinstance(skew, dict) else None,
        "plots": numbered(made([lambda: plots.shifts(drift)]), "g"),
    }


def _gate(name: str, outcome: dict[str, Any]) -> dict[str, Any]:
    found = outcome["figures"]
    lists = {kind: [str(text) for text in found.get(kind) or []] for kind in ("refused", "warnings", "not_judged")}
    status = "refused" if lists["refused"] else outcome["kind"]
    if status == "done":
        status = "warning" if lists["warnings"] else "passed"
    return {
        "name": name,
        "about": GATES[name],
        "status": status,
        "days": found.get("days") or [],
        "checks": found.get("checks"),
        "tables": _tables(found),
        "data_docs": found.get("data_docs"),
        **lists,
    }


def _tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Tables with rows and counts, those with failures first."""
    counts, rows = found.get("tables") or {}, found.get("rows") or {}
    tables = [
        {"name": table, "rows": rows.get(table), **{key: (counts.get(table) or {}).get(key) for key in _COUNTS}}
        for table in (rows or counts)
    ]
    return sorted(tables, key=lambda table: (-(table["critical"] or 0), -(table["warning"] or 0)))


_COUNTS = ("checks", "critical", "warning")


def _drift(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Columns by their shift against the limit it warns at; nights of an older release told the shift alone."""
    rows = found.get("drift_columns")
    if not rows:
        rows = [{"column": column, "psi": psi} for column, psi in (found.get("drift") or {}).items()]
    names = (
        "rows_before",
        "rows_tonight",
        "median_before",
        "median_tonight",
        "moved_by",
        "warning_limit",
        "critical_limit",
    )
    whole = [dict.fromkeys(names) | row for row in rows]
    for row in whole:
        row["status"] = _status(row)
    return sorted(whole, key=lambda row: -(row["psi"] or 0.0) / (row["warning_limit"] or 1.0))


def _status(row: dict[str, Any]) -> str:
    psi = row["psi"] or 0.0
    if row["warning_limit"] is None and row["critical_limit"] is None:
        return "limits not told"
    if row["critical_limit"] is not None and psi > row["critical_limit"]:
        return "refused"
    return "warning" if row["warning_limit"] is not None and psi > row["warning_limit"] else "passed"
