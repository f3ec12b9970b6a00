"""The metric over the last versions."""

from __future__ import annotations

from typing import Any

from components.publish_report.plots import versions as plots
from components.publish_report.plots.style import made, numbered


def last(document: dict[str, Any]) -> dict[str, Any] | None:
    """Rows of the last versions, the newest first, and their plot."""
    rows = document.get("versions")
    if not rows:
        return None
    return {
        "rows": rows[::-1],
        "tonight": document.get("model_version"),
        "plots": numbered(made([lambda: plots.over_versions(rows)]), "v"),
    }
