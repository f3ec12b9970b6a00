"""The `goalrank` command: every command under the title it is found by. They import what they need when they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from console import cluster, days, reporting, upkeep
from console.commands import champion, doctor, imports, night, service, ui, world
from console.help import Command, Group
from goalrank import __version__
from goalrank.errors import EXIT_DONE

CONTENTS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Every night": {"nightly": night.nightly, "resume": night.resume},
    "Look": {"report": reporting.report, "ui": ui.ui, "doctor": doctor.doctor},
    "The champion": {
        "history": champion.history,
        "promote": champion.promote,
        "rollback": champion.rollback,
        "watch": champion.watch,
    },
    "Serving": {"serve": service.serve, "rank": service.rank, "collect": service.collect},
    "Data": {"import": imports.app, "day": days.app},
    "The simulated world": {"simulate": world.simulate, "replay": world.replay, "ab-test": world.ab_test},
    "The cluster": {"schedule": cluster.app, "submit": cluster.submit, "backfill": cluster.backfill},
    "The workspace": {"clean": upkeep.clean, "migrate": upkeep.migrate, "erase-user": upkeep.erase_user},
}
"""Title -> name -> command or group of commands, as `goalrank --help` lists them."""


class Contents(Group):
    """The outermost group."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of CONTENTS: Typer would put groups last."""
        return [name for commands in CONTENTS.values() for name in commands]


app = typer.Typer(
    cls=Contents,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit(EXIT_DONE)


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Retrain a list ranker every night: from feedback logs to a champion that answers.

    Results go to standard output, progress to standard error. What an option leaves open is a setting, GOALRANK_NAME
    in the environment (docs/configuration.md).

    Exit codes: 0 done, 1 a bug, 2 usage, 3 data refused, 4 model refused, 5 serving refused, 75 try again.

    Examples:
        goalrank nightly --allow-bootstrap
            a first night, on a simulated world; everything is kept in .goalrank
        goalrank rank --example
            what the champion answers
        goalrank nightly --help
            more on one command
    """


for title, commands in CONTENTS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=title)
        else:
            app.command(name, cls=Command, rich_help_panel=title)(command)
