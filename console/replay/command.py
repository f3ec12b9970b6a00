"""`goalrank replay`, but for its flags: live, then say what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from components.step import write_atomic
from console.replay.drawing import draw
from console.replay.history import history, short, value_in_words
from console.replay.life import live
from console.replay.world import WINDOW_DAYS, replay_world
from console.settings import Settings
from goalrank.presets import preset as find_preset

WIDE = 120
"""Columns of a terminal from which on the reasons stand in the table."""


def replay(
    workspace: Path | None, nights: int, preset: str | None, seed: int | None, progress: Console
) -> dict[str, Any]:
    """Live a replay (or the rest of it) and write its history and picture; returns the history.

    Raises:
        GoalRankError: as life.live.
    """
    settings = Settings.load(
        workspace=workspace, preset=preset or "tiny", seed=seed, window_days=WINDOW_DAYS, allow_bootstrap=True
    )
    find_preset(settings.preset)
    ledger = live(settings, replay_world(settings.seed), nights, progress)
    folder = settings.workspace / "replay"
    document = history(ledger, folder / "days")
    write_atomic(folder / "history.json", json.dumps(document, indent=1) + "\n")
    draw(document, folder / "curve.png")
    return document | {"history": str(folder / "history.json"), "curve": str(folder / "curve.png")}


def print_history(document: dict[str, Any], console: Console) -> None:
    """The table of nights, and the sentence on what retraining was worth.

    Reasons are long: on a narrow terminal they follow the table, and only those of nights that were refused.
    """
    wide = console.width >= WIDE
    table = Table(box=None, pad_edge=False)
    for name in ("night", "date", "verdict", "version"):
        table.add_column(name, no_wrap=True)
    for name in ("champion", "frozen", "retriever"):
        table.add_column(name, justify="right", no_wrap=True)
    if wide:
        table.add_column("why", overflow="fold")
    rewards = {day["night"]: day["reward"] for day in document["days"]}
    last = {run["night"]: run["run"] for run in document["runs"]}
    for run in document["runs"]:
        served = rewards.get(run["night"]) if last[run["night"]] == run["run"] else None
        figures = [f"{served[name]:.4f}" if served else "" for name in ("champion", "frozen", "retriever")]
        verdict = run["verdict"] + (f" ({run['exit_code']})" if run["exit_code"] else "")
        version = run["model_version"] or ""
        table.add_row(
            str(run["night"]), run["date"], verdict, version, *figures, *([_literal(_why(run))] if wide else [])
        )
    console.print(table)
    for run in document["runs"]:
        if not wide and run["verdict"] == "refused":
            told = f"\nnight {run['night']}: {_why(run)}"
            console.print(told, highlight=False, markup=False)
    console.print(f"\n{value_in_words(document)}", highlight=False, markup=False, soft_wrap=True)
    for name in ("history", "curve"):
        console.print(f"{name.capitalize()}: {document[name]}", highlight=False, markup=False, soft_wrap=True)


def _why(run: dict[str, Any]) -> str:
    note = f"[{run['fault']}] " if run["fault"] else "[delivered again] " if run["again"] else ""
    return note + short(run["reason"])


def _literal(text: str) -> str:
    """Brackets as they are, not as rich's markup."""
    return text.replace("[", r"\[")
