"""Each step: how it ended, what it said, its time and memory."""

from __future__ import annotations

from typing import Any

from components.publish_report.plots import steps as plots
from components.publish_report.plots.style import made, numbered


def steps(document: dict[str, Any]) -> dict[str, Any] | None:
    """A row a step in the order in which they began, and the sums."""
    outcomes = document["outcomes"]
    if not outcomes:
        return None
    rows = [
        {
            "name": name,
            "kind": outcome["kind"],
            "seconds": outcome["seconds"],
            "tools": sum(outcome["tool_seconds"].values()),
            "memory_mb": outcome["peak_memory_mb"],
            "reason": outcome["reason"],
        }
        for name, outcome in outcomes.items()
    ]
    return {
        "rows": rows,
        "seconds": sum(row["seconds"] for row in rows),
        "tools": sum(row["tools"] for row in rows),
        "memory_mb": document.get("peak_memory_mb"),
        "plots": numbered(made([lambda: plots.durations(rows)]), "w"),
    }
