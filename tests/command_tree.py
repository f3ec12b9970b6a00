"""The command line as a tree, and its surface as text: `python -m tests.command_tree` writes the golden file anew."""

from __future__ import annotations

import shlex
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from console.help import Example, split
from console.main import app

GOLDEN = Path(__file__).parent / "unit" / "command_line.txt"
RENEW = "python -m tests.command_tree"


def walk(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group with the words that lead to it, in the order of --help."""
    command = command or typer.main.get_command(app)
    yield path, command
    for name in command.list_commands(None) if hasattr(command, "commands") else []:
        yield from walk(command.commands[name], (*path, name))


def examples(command: Any) -> list[Example]:
    """The examples in its help."""
    return split(command.help)[1]


def parse(line: str) -> Any:
    """Parse a `goalrank ...` line as the command line would, run nothing, and return the command it leads to.

    Raises:
        click's usage error: no such command, option or value.
    """
    first, *words = shlex.split(line, comments=True)
    assert first == "goalrank", line
    command = typer.main.get_command(app)
    context = command.make_context("goalrank", words)
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        assert rest, f"{line}: leads to a group, not to a command"
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return command


def surface() -> str:
    """Commands, parameters, types and defaults, one a line, in order."""
    lines = []
    for path, command in walk():
        lines.append(" ".join(("goalrank", *path)))
        for parameter in command.params:
            names = "/".join([*parameter.opts, *parameter.secondary_opts])
            if parameter.param_type_name == "argument":
                names = "argument"
            needed = " required" if parameter.required else ""
            default = getattr(parameter.default, "value", parameter.default)
            lines.append(f"    {names} {_type(command, parameter)}{needed} = {default!r}")
    return "\n".join(lines) + "\n"


def _type(command: Any, parameter: Any) -> str:
    """Metavar, Python type and range."""
    if getattr(parameter, "is_flag", False):
        return "flag"
    hint = typing.get_type_hints(command.callback)[parameter.name]
    kind = hint.__name__ if isinstance(hint, type) else str(hint).replace("pathlib.", "")
    low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
    bounds = "" if low is None and high is None else f" {low}..{'' if high is None else high}"
    return f"{parameter.metavar}: {kind}{bounds}"


if __name__ == "__main__":
    GOLDEN.write_text(surface(), encoding="utf-8")
    print(GOLDEN)
