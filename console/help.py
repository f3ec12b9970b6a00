"""How commands teach: one sentence, when to use it, options, examples; and how a mistyped one is answered.

A command's docstring is its help. Its last paragraph may be the examples, each with what it is for a level deeper:

    Examples:
        goalrank nightly
            the day after the last night that ended well

Typer's own tables truncate names on a narrow terminal and read `[default: x]` as markup, so the layout here is ours:
two columns where there is room, one above the other where there is none. Examples are never wrapped: they can be
copied.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from console.command import document_of
from goalrank.errors import EXIT_USAGE

HEAD = "Examples:"
WIDE = 90
"""Columns of a terminal from which on what an option does stands beside its name."""
FLAG = "bold cyan"
WORDS = "console.help.words"
"""Where a context keeps what was typed."""

MistypedError: Any = typer.BadParameter.__mro__[1]
"""The usage error of click, or of the copy of click that newer releases of Typer bring along."""


@dataclass(frozen=True)
class Example:
    """One line that may be typed, and what it is for."""

    line: str
    why: str


def split(help_text: str | None) -> tuple[list[str], list[Example]]:
    """Paragraphs of a command's help, and its examples."""
    paragraphs: list[str] = []
    examples: list[Example] = []
    for paragraph in inspect.cleandoc(help_text or "").split("\n\n"):
        head, _, rest = paragraph.partition("\n")
        if head != HEAD:
            paragraphs.append(" ".join(paragraph.split()))
            continue
        for line in textwrap.dedent(rest).splitlines():
            if line.startswith(" ") and examples:
                examples[-1] = Example(examples[-1].line, f"{examples[-1].why} {line.strip()}".strip())
            else:
                examples.append(Example(line, ""))
    return paragraphs, examples


def show(command: Any, context: Any, console: Console) -> None:
    """Print the help of a command or of a group of commands."""
    paragraphs, examples = split(command.help)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    _print(console, f"Usage: {usage}", "bold")
    for number, paragraph in enumerate(paragraphs):
        console.print()
        _print(console, paragraph, "" if number == 0 else "dim")
    for title, commands in _panels(command, context).items():
        _section(console, title, [(name, one.short_help or split(one.help)[0][0]) for name, one in commands])
    shown = [parameter for parameter in command.get_params(context) if not getattr(parameter, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    _section(console, "Arguments", [(one.metavar, _told(one)) for one in arguments])
    _section(console, "Options", [(_names(one), _told(one)) for one in shown if one.param_type_name == "option"])
    if examples:
        console.print()
        _print(console, "Examples", "bold")
        for example in examples:
            console.print(Text(f"  {example.line}", FLAG), soft_wrap=True)
            _print(console, example.why, "dim", 6)


def _panels(command: Any, context: Any) -> dict[str, list[tuple[str, Any]]]:
    """Commands of a group under the titles they were registered with, in order."""
    panels: dict[str, list[tuple[str, Any]]] = {}
    for name in command.list_commands(context) if isinstance(command, TyperGroup) else []:
        one = command.get_command(context, name)
        if one is not None and not one.hidden:
            panels.setdefault(getattr(one, "rich_help_panel", None) or "Commands", []).append((name, one))
    return panels


def _names(parameter: Any) -> str:
    """--preset NAME; -h, --help; --allow-bootstrap / --no-allow-bootstrap."""
    opposite = f" / {', '.join(parameter.secondary_opts)}" if parameter.secondary_opts else ""
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    return f"{', '.join(sorted(parameter.opts, key=len))}{opposite}{value}"


def _told(parameter: Any) -> str:
    """What it does, and the value it has where none is given."""
    told = getattr(parameter, "help", None) or ""
    if parameter.required:
        return f"{told}  [required]"
    default = parameter.default
    if default is None or isinstance(default, bool) or not getattr(parameter, "show_default", True):
        return told
    return f"{told}  [default: {getattr(default, 'value', default)}]"


def _section(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    """Names and what they do: beside each other where there is room."""
    if not rows:
        return
    console.print()
    _print(console, title, "bold")
    beside = console.width >= WIDE or title not in ("Arguments", "Options")
    column = max(len(name) for name, _ in rows) + 4 if beside else 6
    for name, told in rows:
        lines = textwrap.wrap(told, max(console.width - column, 20), break_on_hyphens=False) or [""]
        if beside:
            console.print(Text.assemble((f"  {name}".ljust(column), FLAG), lines.pop(0)), soft_wrap=True)
        else:
            console.print(Text(f"  {name}", FLAG), soft_wrap=True)
        for line in lines:
            console.print(Text(" " * column + line), soft_wrap=True)


def _print(console: Console, text: str, style: str = "", indent: int = 0) -> None:
    for line in textwrap.wrap(text, max(console.width - indent, 20), break_long_words=False, break_on_hyphens=False):
        console.print(Text(" " * indent + line, style), soft_wrap=True)


class Command(TyperCommand):
    """A command whose help is shown as above."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print it to standard output."""
        show(self, ctx, Console(highlight=False))


class Group(TyperGroup):
    """A group of commands whose help is shown as above; with --json a mistyped command is an object too."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print it to standard output."""
        show(self, ctx, Console(highlight=False))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As ever; the words are kept for what may go wrong with them."""
        words = list(args)
        with self._told_as_json(ctx, words):
            rest = super().parse_args(ctx, args)
        ctx.meta.setdefault(WORDS, words)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """As ever."""
        with self._told_as_json(ctx, ctx.meta.get(WORDS, [])):
            return super().invoke(ctx)

    @contextmanager
    def _told_as_json(self, context: Any, words: list[str]) -> Iterator[None]:
        """Only the outermost group tells: inner ones pass on what went wrong."""
        try:
            yield
        except MistypedError as error:
            if context.parent is None and "--json" in words:
                print(json.dumps(document_of(words)("usage", error.format_message(), EXIT_USAGE)))
            raise
