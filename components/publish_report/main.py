"""Write report.json and report.html of one night into its own folder, and tell a webhook if there is one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from components import night_card, the_night
from components.publish_report.notify import notify
from components.publish_report.result import FAILED, as_ended, read_outcomes, summarise
from components.step import Step, give_back_reserve, run_alone, write_atomic
from goalrank import naming
from goalrank.errors import EXIT_BUG, UsageError

TEMPLATE = Path(__file__).with_name("report.html.jinja")

TONE = {"passed": "yes", "failed": "no", "inconclusive": "no", "not_applicable": ""}
"""How the page colours a check's status."""


def run(run_uri: str, date: str, state: str = "UNKNOWN") -> None:
    """Publish the report of the night in `run_uri`.

    Args:
        run_uri: the run's folder, with outcomes/ in it; report.json and report.html are written there. Ending with
            `auto`: the folder of this very run (components/the_night.py).
        date: the night's arrival day, `before` and the day after it, or `auto`: what the run's first step decided.
        state: how the orchestrator says the run ended; the outcomes decide, but for a failure that none of them tells.
    """
    run_uri = the_night.folder_of(run_uri)
    give_back_reserve(Path(run_uri))
    with Step("publish_report", run_uri) as step:
        date = _day(date, run_uri)
        page = str(Path(run_uri) / "report.html")
        try:
            verdict = _write(Path(run_uri), date, state, step.tool)
        finally:
            # Whoever waits for the night is told even where its report cannot be written.
            result = as_ended(_result(Path(run_uri)), state)
            night_card.end(run_uri, result)
            told = notify(result | {"date": date, "state": state}, page)
        step.reason = f"report of {date}: {verdict}"
        step.figures = {"report": page, "told": told}


def _result(folder: Path) -> dict[str, Any]:
    """What the night came to; that nobody can read it is a result too."""
    try:
        return summarise(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"verdict": FAILED, "exit_code": EXIT_BUG, "reason": f"its outcomes cannot be read: {error!r}"}


def _day(date: str, folder: str) -> str:
    """The arrival day that is meant; one that nobody can read is shown as it is, since a report is always published."""
    try:
        if date == naming.AUTO:  # decided by the first step alone, if it came that far
            return the_night.decided(folder) or "an unknown day"
        return naming.arrival_day("date", date)
    except UsageError:
        return date


def republish(folder: Path) -> None:
    """Write a published report again, with what has come to lie beside the night since (an A/B test).

    Raises:
        OSError, ValueError: it was never published.
    """
    published = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    _write(folder, published["date"], published["state"], lambda _: nullcontext())


def _write(folder: Path, date: str, state: str, tool: Callable[[str], AbstractContextManager[None]]) -> str:
    """report.json and report.html; returns the night's verdict."""
    outcomes = read_outcomes(folder)
    for outcome in outcomes.values():  # relative, so that the run's folder can be moved or copied whole
        if docs := outcome["figures"].get("data_docs"):
            outcome["figures"]["data_docs"] = os.path.relpath(docs, folder)
    result = as_ended(summarise(folder), state) | {"date": date, "state": state}
    write_atomic(folder / "report.json", json.dumps(result | {"outcomes": outcomes}, indent=1, default=str))
    with tool("matplotlib"):
        from components.publish_report import experiment, plots
    with tool("jinja2"):
        import jinja2
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template(TEMPLATE.name).render(
        result=result,
        evaluation=_figures(outcomes, "evaluate_ranker"),
        outcomes=outcomes,
        examples=_figures(outcomes, "evaluate_ranker").get("examples", []),
        plots=plots.of_night(outcomes),
        experiment=experiment.of_night(folder),
        number=_number,
        tone=TONE,
    )
    write_atomic(folder / "report.html", page)
    return str(result["verdict"])


def _figures(outcomes: dict[str, dict[str, Any]], step: str) -> dict[str, Any]:
    return outcomes.get(step, {}).get("figures", {})


def _number(value: object) -> str:
    """A figure as people read it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


if __name__ == "__main__":
    run_alone(run)
