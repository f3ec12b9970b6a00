"""Write report.json and report.html of one night into its own folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from components.publish_report.result import read_outcomes, summarise
from components.step import Step, run_alone, write_atomic

TEMPLATE = Path(__file__).with_name("report.html.jinja")


def run(run_uri: str, date: str, state: str = "UNKNOWN") -> None:
    """Publish the report of the night in `run_uri`.

    Args:
        run_uri: the run's folder, with outcomes/ in it; report.json and report.html are written there.
        date: the night's arrival day.
        state: how the orchestrator says the run ended (only shown; the outcomes decide).
    """
    with Step("publish_report", run_uri) as step:
        folder = Path(run_uri)
        outcomes = read_outcomes(folder)
        for outcome in outcomes.values():  # relative, so that the run's folder can be moved or copied whole
            if docs := outcome["figures"].get("data_docs"):
                outcome["figures"]["data_docs"] = os.path.relpath(docs, folder)
        result = summarise(folder) | {"date": date, "state": state}
        write_atomic(folder / "report.json", json.dumps(result | {"outcomes": outcomes}, indent=1, default=str))
        with step.tool("matplotlib"):
            from components.publish_report import plots
        with step.tool("jinja2"):
            import jinja2
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
            result=result,
            evaluation=_figures(outcomes, "evaluate_ranker"),
            outcomes=outcomes,
            examples=_figures(outcomes, "evaluate_ranker").get("examples", []),
            plots=plots.of_night(outcomes),
            number=_number,
        )
        write_atomic(folder / "report.html", page)
        step.reason = f"report of {date}: {result['verdict']}"
        step.figures = {"report": str(folder / "report.html")}


def _figures(outcomes: dict[str, dict[str, Any]], step: str) -> dict[str, Any]:
    return outcomes.get(step, {}).get("figures", {})


def _number(value: object) -> str:
    """A figure as people read it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


if __name__ == "__main__":
    run_alone(run)
