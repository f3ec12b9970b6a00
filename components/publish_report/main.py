"""Write report.json, report.html and model_card.md of one night into its own folder, tag its MLflow run, and tell a
webhook if there is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from components import night_card, the_night
from components.publish_report import versions
from components.publish_report.document import collect, plain, summary
from components.publish_report.notify import notify
from components.publish_report.published import require_outcomes
from components.publish_report.result import as_ended
from components.step import Step, give_back_reserve, run_alone, write_atomic
from goalrank import naming
from goalrank.errors import UsageError

Tool = Callable[[str], AbstractContextManager[None]]


def run(run_uri: str, date: str, state: str = "UNKNOWN", tracking_uri: str = "") -> None:
    """Publish the report of the night in `run_uri`.

    Args:
        run_uri: the run's folder, with outcomes/ in it; report.json, report.html and model_card.md are written there.
            Ending with `auto`: the folder of this very run (components/the_night.py).
        date: the night's arrival day, `before` and the day after it, or `auto`: what the run's first step decided.
        state: how the orchestrator says the run ended; the outcomes decide, but for a failure that none of them tells.
        tracking_uri: MLflow, whose run of the night gets the main figures as tags and whose registry knows the versions
            before; "" asks nobody. One that is away costs the tags, never the report.
    """
    run_uri = the_night.folder_of(run_uri)
    folder = Path(run_uri)
    give_back_reserve(folder)
    with Step("publish_report", run_uri) as step:
        date = _day(date, run_uri)
        page = str(folder / "report.html")
        try:
            document = collect(folder, date, state)
            document["versions"] = versions.beside(folder, document)
            write(folder, document, step.tool)
            step.figures["tags"] = _tracked(folder, document, tracking_uri, step.tool)
        finally:
            # Whoever waits for the night is told even where its report cannot be written.
            result = as_ended(summary(folder), state)
            night_card.end(run_uri, result)
            told = notify(result | {"date": date, "state": state}, page)
        step.reason = f"report of {date}: {document['verdict']}"
        step.figures |= {"report": page, "told": told}


def write(folder: Path, document: dict[str, Any], tool: Tool = lambda _: nullcontext()) -> None:
    """report.json, model_card.md and report.html of a night's document (document.py)."""
    write_atomic(folder / "report.json", json.dumps(plain(document), indent=1, allow_nan=False))
    with tool("matplotlib"):
        from components.publish_report.plots import style  # noqa: F401 - its import is a tool's cost
    with tool("jinja2"):
        from components.publish_report import report
    report.write_card(folder, document)
    report.write_page(folder, document)


def republish(folder: Path) -> None:
    """Write a published report again, with what has come to lie beside the night since (an A/B test, newer pages).

    Raises:
        OSError, ValueError: it was never published.
        UsageError: outcomes of it are gone; the report is left as it is.
    """
    published = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    document = collect(folder, published["date"], published["state"])
    require_outcomes(folder, document)
    document["versions"] = published.get("versions") or versions.beside(folder, document)
    write(folder, document)


def _tracked(folder: Path, document: dict[str, Any], tracking_uri: str, tool: Tool) -> str:
    """Tag the night's run and, where MLflow knows other versions than the folders do, write the page again with them;
    what became of it, in words."""
    from components import registry  # reads URIs; MLflow is imported below

    if not tracking_uri:
        return "not asked for"
    try:
        if not registry.exists(tracking_uri):
            return "there is no MLflow yet"
        with tool("mlflow"):
            from components.publish_report import tracking

            client = registry.connect(tracking_uri)
        count = tracking.write_tags(client, document)
        known = tracking.last_versions(client, document["date"])
        if known and known != document["versions"]:
            write(folder, document | {"versions": known})
    except Exception as error:  # noqa: BLE001 - the report is there; nothing about the store may take it back
        return f"not set: {naming.without_password(str(error)) or type(error).__name__}"[:300]
    return f"{count} set" if count else "the night came to no run"


def _day(date: str, folder: str) -> str:
    """The arrival day that is meant; one that nobody can read is shown as it is, since a report is always published."""
    try:
        if date == naming.AUTO:  # decided by the first step alone, if it came that far
            return the_night.decided(folder) or "an unknown day"
        return naming.arrival_day("date", date)
    except UsageError:
        return date


if __name__ == "__main__":
    run_alone(run)
