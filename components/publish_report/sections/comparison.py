"""Challenger against champion: metrics, checks and their thresholds; off-policy estimates; slices."""

from __future__ import annotations

from typing import Any

from components.publish_report.document import figures
from components.publish_report.plots import comparison as plots
from components.publish_report.plots.style import made, numbered

RETRIEVER = "retriever"
ORDER = ("failed", "inconclusive", "passed", "not_applicable")


def challenger_against_champion(document: dict[str, Any]) -> dict[str, Any] | None:
    """Metrics side by side with intervals of the differences, then every check with its threshold."""
    found = figures(document["outcomes"], "evaluate_ranker")
    metrics = {who: row for who, row in (found.get("metrics") or {}).items() if row}
    if not metrics.get("challenger"):
        checks = _checks(found, document)
        empty = {"rows": [], "who": [], "against": "", "retriever": [], "plots": []}
        return empty | {"checks": checks, "found": found} if checks else None
    against = (found.get("difference") or {}).get("against", "champion")
    rows = [_row(metric, metrics, against, found) for metric in metrics["challenger"]]
    return {
        "rows": rows,
        "who": [who for who in ("challenger", "champion", "anchor", "retriever", "random") if who in metrics],
        "against": against,
        "retriever": [] if against == RETRIEVER else _over_retriever(metrics, found),
        "checks": _checks(found, document),
        "plots": numbered(made([lambda: plots.differences(rows, against)]), "d"),
        "found": found,
    }


def off_policy(document: dict[str, Any]) -> dict[str, Any] | None:
    """What users did with the logged lists says of both rankers."""
    section = figures(document["outcomes"], "evaluate_ranker").get("off_policy")
    if not section:
        return None
    estimates = section.get("estimates") or {}
    rows = [
        {"name": name.partition(".")[0], "decides": name == "difference", **estimate}
        for name, estimate in estimates.items()
    ]
    return {
        "section": section,
        "rows": rows,
        "plots": numbered(made([lambda: plots.off_policy(estimates)]), "o"),
    }


def slices(document: dict[str, Any]) -> dict[str, Any] | None:
    """Slices by what they say, then by how near their interval's lower end comes to what may be lost."""
    found = figures(document["outcomes"], "evaluate_ranker").get("slices")
    if not found:
        return None
    rows = [{"difference": None, "margin": None, **row, "name": str(row["name"]).replace("_", " ")} for row in found]
    rows.sort(key=lambda row: (_rank(row["status"]), _room(row)))
    return {"rows": rows, "plots": numbered(made([lambda: plots.slices(rows)]), "s")}


def _row(metric: str, metrics: dict[str, dict[str, Any]], against: str, found: dict[str, Any]) -> dict[str, Any]:
    difference = found.get("difference") or {}
    if difference.get("metric") != metric:
        difference = (found.get("metric_differences") or {}).get(metric)
    return {
        "metric": metric.replace("_", " "),
        "values": {who: row.get(metric) for who, row in metrics.items()},
        "difference": difference or None,
        "relative": _relative(difference, (metrics.get(against) or {}).get(metric)),
        "decides": (found.get("difference") or {}).get("metric") == metric,
    }


def _over_retriever(metrics: dict[str, dict[str, Any]], found: dict[str, Any]) -> list[dict[str, Any]]:
    """Challenger minus the retriever's order by metric, where the night's own comparison is with a champion."""
    rows = []
    for metric, difference in (found.get("retriever_differences") or {}).items():
        base = (metrics.get(RETRIEVER) or {}).get(metric)
        rows.append(
            {
                "metric": metric.replace("_", " "),
                "values": {who: (metrics.get(who) or {}).get(metric) for who in ("challenger", RETRIEVER)},
                "difference": difference,
                "relative": _relative(difference, base),
            }
        )
    return rows


def _relative(difference: dict[str, Any] | None, base: float | None) -> dict[str, float] | None:
    """A difference as a share of the other's value; None where either is not known."""
    if not difference or not base or any(difference.get(end) is None for end in ("mean", "low", "high")):
        return None
    return {end: difference[end] / abs(base) for end in ("mean", "low", "high")}


def _checks(found: dict[str, Any], document: dict[str, Any]) -> list[dict[str, Any]]:
    """Of evaluation and serving; what stands in the way first."""
    serving = figures(document["outcomes"], "smoke_serve").get("checks") or []
    rows = [{"of": "model", **check} for check in found.get("checks") or []]
    rows += [{"of": "serving", **check} for check in serving]
    return sorted(rows, key=lambda row: _rank(row["status"]))


def _rank(status: str) -> int:
    return ORDER.index(status) if status in ORDER else 0


def _room(row: dict[str, Any]) -> float:
    """By how much the interval's lower end clears what may be lost; small is bad."""
    difference = row["difference"] or {}
    low = difference.get("low")
    return float("inf") if low is None else low + (row["margin"] or 0.0)
