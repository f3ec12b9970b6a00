"""The last versions and what each was judged at: from the nights' folders, or from MLflow (tracking.py).

A row: {"version", "date", "verdict", "challenger", "champion", "difference": {"mean", "low", "high"} or None}; rewards
are the judge's, a request, of the night that registered the version. Levels of different nights were judged by
different judges on different requests; the difference within a night is what compares.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SHOWN = 30
"""Versions that a report shows."""

METRIC = "judged_reward"

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def row(document: dict[str, Any]) -> dict[str, Any] | None:
    """A night's row from its report.json; None where the night registered no version or judged none."""
    metrics = _dict(document.get("metrics"))
    challenger = _number(_dict(metrics.get("challenger")).get(METRIC))
    version = document.get("model_version")
    if version is None or challenger is None:
        return None
    outcomes = _dict(document.get("outcomes"))
    evaluation = _dict(_dict(outcomes.get("evaluate_ranker")).get("figures"))
    return {
        "version": str(version),
        "date": str(document.get("date")),
        "verdict": str(document.get("verdict")),
        "challenger": challenger,
        "champion": _number(_dict(metrics.get("champion")).get(METRIC)),
        "difference": interval(document.get("difference") or evaluation.get("difference")),
    }


def beside(folder: Path, document: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the last versions by the reports beside a night's folder (NIGHTS/<date>/<try>), oldest first, its own
    among them. Of a version that several nights tried, the newest try counts; what cannot be read is passed over.
    """
    rows: dict[str, dict[str, Any]] = {}
    own = row(document)
    if own is not None:
        rows[own["version"]] = own
    for report in _reports(folder.resolve()):
        if len(rows) >= SHOWN:
            break
        try:
            found = row(json.loads(report.read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError):
            continue
        if found is not None and found["date"] <= str(document.get("date")):
            rows.setdefault(found["version"], found)
    return in_order(list(rows.values()))


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most SHOWN rows, by date and number of the version."""
    return sorted(rows, key=lambda one: (one["date"], _count(one["version"])))[-SHOWN:]


def interval(found: Any) -> dict[str, float] | None:
    """Mean, low and high of a difference; None where one is missing."""
    ends = [_number(_dict(found).get(name)) for name in ("mean", "low", "high")]
    known = [end for end in ends if end is not None]
    return dict(zip(("mean", "low", "high"), known, strict=True)) if len(known) == 3 else None


def _reports(folder: Path) -> list[Path]:
    """Of the other nights beside one, the newest first; none where the folder does not lie among nights."""
    if not _DAY.fullmatch(folder.parent.name):
        return []
    try:
        found = [file for file in folder.parent.parent.glob("*/*/report.json") if _DAY.fullmatch(file.parts[-3])]
    except OSError:
        return []
    return sorted((file for file in found if file.parent != folder), key=_when, reverse=True)


def _when(report: Path) -> tuple[str, int]:
    return report.parts[-3], _count(report.parts[-2])


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
