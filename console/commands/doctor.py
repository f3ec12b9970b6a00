"""`goalrank doctor`."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from console.command import JsonOption, WorkspaceOption, errors_as_exit_codes, print_json, stderr, stdout

MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("PROBLEM", "bold red")}


def doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Look at tools, machine, workspace and stores, and say how to mend them.

    Before a first night, and whenever something is odd. It changes nothing and ends within seconds, whatever hangs.
    Exit code 0: nothing is a problem (there may be warnings); 2: something is.

    Examples:
        goalrank doctor
            each finding, with how to mend it
        goalrank doctor --json
            for a program
    """
    from console.doctor import diagnose

    with errors_as_exit_codes(as_json):
        found = diagnose(workspace)
        print_diagnosis(found, stderr if as_json else stdout)
        if as_json:
            print_json(found)
        raise typer.Exit(found["exit_code"])


def print_diagnosis(found: dict[str, Any], console: Console) -> None:
    """A line a finding, below it how to mend it; the sentence that counts comes last."""
    names = max(len(finding["name"]) for finding in found["findings"])
    for group, findings in groupby(found["findings"], key=lambda finding: finding["group"]):
        console.print(Text(f"\n{group}", "bold"))
        for finding in findings:
            word, style = MARKS[finding["status"]]
            lines = _wrapped(finding["found"], console, names + 12)
            console.print(
                Text.assemble("  ", (f"{word:<8}", style), f"{finding['name']:<{names}}  ", lines[0]), soft_wrap=True
            )
            for line in lines[1:]:
                console.print(Text(" " * (names + 12) + line), soft_wrap=True)
            for number, line in enumerate(_wrapped(finding["mend"], console, names + 14) if finding["mend"] else []):
                console.print(Text(" " * (names + 12) + ("  " if number else "→ ") + line, "cyan"), soft_wrap=True)
    problems, warnings = found["problems"], found["warnings"]
    counted = ((problems, "problem"), (warnings, "warning"))
    told = ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counted if count)
    console.print(Text(f"\n{told or 'Nothing is wrong'}.", "bold red" if problems else "bold"))


def _wrapped(text: str, console: Console, indent: int) -> list[str]:
    """On a terminal wrapped beside the names; elsewhere one line, for grep."""
    if not console.is_terminal:
        return [text]
    room = max(console.width - indent, 24)
    return textwrap.wrap(text, room, break_on_hyphens=False, break_long_words=False) or [""]
