"""The cluster's commands: `goalrank schedule apply|diff|pause|resume|show`, `goalrank submit`, `goalrank backfill`.

Everything they need is a setting (console/settings.py): GOALRANK_KFP_ENDPOINT, GOALRANK_CRON, GOALRANK_TRAIN_IMAGE...
kfp is imported when one of them runs, after what can be checked without it has been checked.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.command import JsonOption, errors_as_exit_codes, print_json, stderr, stdout
from console.help import Command, Group
from console.next_steps import ours, suggest
from goalrank.errors import EXIT_DATA_REFUSED, EXIT_DONE

if TYPE_CHECKING:
    from pipelines.kubeflow import Kubeflow
    from pipelines.recurring import Clone

app = typer.Typer(
    cls=Group,
    help="""The one recurring run of the night on Kubeflow Pipelines.

    Its address: GOALRANK_KFP_ENDPOINT; your namespace there: GOALRANK_KFP_NAMESPACE; the token:
    GOALRANK_KFP_TOKEN_FILE or GOALRANK_KFP_TOKEN; the images, by digest: GOALRANK_DATA_IMAGE, GOALRANK_TRAIN_IMAGE,
    GOALRANK_SERVING_IMAGE.

    Examples:
        goalrank schedule diff
            what apply would change
        goalrank schedule apply
            make it so
    """,
    no_args_is_help=True,
)

CronOption = Annotated[
    str | None, typer.Option(metavar="CRON", help="Six fields, seconds first.  [default: GOALRANK_CRON, 0 30 2 * * *]")
]
ZoneOption = Annotated[
    str | None,
    typer.Option(metavar="ZONE", help="Time zone of Kubeflow's scheduler.  [default: GOALRANK_TIME_ZONE, UTC]"),
]
NEXT_NIGHTS = 3

EXIT_DIFFERS = EXIT_DATA_REFUSED
"""Of `schedule diff` where apply would change something: a code that neither a bug nor a server that is away has."""


def _settings(**given: Any) -> Any:
    from console.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


def _connect(settings: Any) -> Kubeflow:
    from console.kubeflow import address
    from pipelines.kubeflow import Kubeflow

    return Kubeflow(address(settings))


def _print(document: dict[str, Any], lines: list[str], as_json: bool) -> None:
    console = stderr if as_json else stdout
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print_json(document)


def _progress(line: str) -> None:
    stderr.print(line, highlight=False, markup=False, soft_wrap=True, style="dim")


def _disabling(clone: Clone) -> str:
    return f"disable recurring run {clone.name!r} of the same pipeline ({clone.cron}), with --disable-others"


def _told(found: dict[str, Any]) -> list[str]:
    """A diff for a person."""
    changes = [f"  {each['field']}: {each['found']!r} -> {each['expected']!r}" for each in found["changes"]]
    return [*(f"- {action}" for action in found["actions"]), *changes]


@app.command(cls=Command)
def apply(
    cron: CronOption = None,
    time_zone: ZoneOption = None,
    disable_others: Annotated[
        bool, typer.Option("--disable-others", help="Disable other recurring runs of the night's pipeline first.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create or replace the recurring run, so that it is as the settings say.

    Twice is as good as once; a paused one stays paused. Refused while another recurring run of the night's pipeline is
    enabled, a clone of it.

    Examples:
        goalrank schedule apply
            as the environment says
        goalrank schedule apply --cron "0 30 2 * * *" --time-zone Europe/Berlin
            every day at half past two
        goalrank schedule apply --disable-others
            beside a clone: it is disabled first
    """
    with errors_as_exit_codes(as_json):
        from console.kubeflow import desired

        with desired(_settings(cron=cron, time_zone=time_zone)) as wanted:
            from pipelines import recurring

            kubeflow = _connect(_settings())
            others = recurring.clones(kubeflow, recurring.look(kubeflow))
            if disable_others:
                recurring.disable(kubeflow, others)
            else:
                recurring.require_no_clones(others)
            done = recurring.apply(kubeflow, wanted, _progress)
            done |= {"changed": done["changed"] or bool(others), "disabled": [each.told for each in others]}
            done["actions"] = [*(_disabling(each) for each in others), *done["actions"]]
            nights, warnings = _next(wanted.schedule), _warnings(wanted.schedule)
        head = "Nothing to change." if not done["changed"] else f"Applied: recurring run {done['id']}."
        rest = "It is paused: `goalrank schedule resume`." if done["paused"] else f"Next nights: {', '.join(nights)}"
        document = {"exit_code": EXIT_DONE, **done, "state": wanted.digest, "next": nights, "warnings": warnings}
        _print(document, [head, *_told(done), rest, *warnings], as_json)
        if not as_json and done["changed"]:
            suggest(
                stderr, [(ours("schedule show"), "as the server holds it"), (ours("submit --date DATE"), "one now")]
            )


@app.command("diff", cls=Command)
def diff_command(cron: CronOption = None, time_zone: ZoneOption = None, as_json: JsonOption = False) -> None:
    """Say what apply would change, and change nothing.

    Exit code 0: nothing would change; 3: something would.

    Examples:
        goalrank schedule diff
            before `goalrank schedule apply`
    """
    with errors_as_exit_codes(as_json):
        from console.kubeflow import desired

        with desired(_settings(cron=cron, time_zone=time_zone)) as wanted:
            from pipelines import recurring

            kubeflow = _connect(_settings())
            runs = recurring.look(kubeflow)
            others = recurring.clones(kubeflow, runs)
            found = recurring.diff(wanted, runs)
        found |= {"others": [each.told for each in others]}
        found["actions"] = [*(_disabling(each) for each in others), *found["actions"]]
        code = EXIT_DIFFERS if found["actions"] else EXIT_DONE
        kind = "differs" if found["actions"] else "equal"
        _print({"exit_code": code, "kind": kind, **found}, _told(found) or ["Nothing would change."], as_json)
        raise typer.Exit(code)


@app.command(cls=Command)
def pause(as_json: JsonOption = False) -> None:
    """Disable the recurring run until it is resumed.

    Before a backfill, or while something is mended. A night under way goes on.

    Examples:
        goalrank schedule pause
            no more nights by themselves
    """
    _set_paused(True, as_json)


@app.command(cls=Command)
def resume(as_json: JsonOption = False) -> None:
    """Enable the recurring run again.

    Nights that were missed meanwhile are not made up: `goalrank backfill` does that.

    Examples:
        goalrank schedule resume
            nights by themselves again
    """
    _set_paused(False, as_json)


def _set_paused(paused: bool, as_json: bool) -> None:
    with errors_as_exit_codes(as_json):
        settings = _settings()
        kubeflow = _connect(settings)
        from pipelines import recurring

        done = recurring.set_paused(kubeflow, paused)
        word = "paused" if paused else "enabled"
        line = f"Recurring run {done['id']} is {word}." if done["changed"] else f"It was {word} already."
        _print({"exit_code": EXIT_DONE, **done}, [line], as_json)


@app.command(cls=Command)
def show(as_json: JsonOption = False) -> None:
    """Show the recurring run as the server holds it, and the next nights.

    Examples:
        goalrank schedule show
            is it enabled, and when does it run?
    """
    with errors_as_exit_codes(as_json):
        kubeflow = _connect(_settings())
        from pipelines import recurring
        from pipelines.schedule import Schedule

        runs = recurring.look(kubeflow)
        shown = [
            {"id": run.id, "enabled": run.enabled, "created_at": run.created.isoformat(), **run.state} for run in runs
        ]
        lines = [] if shown else ["No schedule: `goalrank schedule apply` makes one."]
        warnings: list[str] = []
        for run in shown:
            run["next"] = []
            if run["enabled"] and run["cron"]:
                schedule = Schedule.parse(run["cron"], run["time_zone"] or "UTC")
                run["next"] = _next(schedule)
                warnings += _warnings(schedule)
            lines += [f"{name}: {value}" for name, value in run.items()]
        lines += warnings
        if len(shown) > 1:
            lines.append("More than one: an apply was interrupted; `goalrank schedule apply` mends it.")
        others = [each.told for each in recurring.clones(kubeflow, runs)]
        lines += [
            f"Another recurring run of this pipeline is enabled: {each['name']} ({each['cron']}, {each['id']}); "
            "`goalrank schedule apply --disable-others`"
            for each in others
        ]
        paused = recurring.is_paused(runs)
        document = {"exit_code": EXIT_DONE, "paused": paused, "recurring_runs": shown, "others": others}
        _print(document | {"warnings": warnings}, lines, as_json)


def _next(schedule: Any) -> list[str]:
    moments, at = [], datetime.now(UTC)
    for _ in range(NEXT_NIGHTS):
        at = schedule.next_after(at)
        if at is None:
            break
        moments.append(at.isoformat())
    return moments


def _warnings(schedule: Any) -> list[str]:
    from pipelines.schedule import warning_of_clock_changes

    return [line for line in [warning_of_clock_changes(schedule, datetime.now(UTC))] if line]


def submit(
    date: Annotated[str, typer.Option(metavar="DATE", help="Arrival day, YYYY-MM-DD.")],
    full_rebuild: Annotated[bool, typer.Option("--full-rebuild", help="Rebuild features from all days.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the night of one date on the cluster, now.

    Submitted again with nothing changed, it goes on in its folder.

    Examples:
        goalrank submit --date 2026-01-05
            one night by hand
    """
    with errors_as_exit_codes(as_json):
        from console.kubeflow import order
        from pipelines import backfill as nights

        nights.require_closed("--date", date)
        settings = _settings()
        with order(settings, full_rebuild) as night:
            done = nights.submit(_connect(settings), night, date)
        line = f"The night of {date} is submitted (run {done['run']}); its folder: {done['run_uri']}"
        _print({"exit_code": EXIT_DONE, **done}, [line], as_json)


def backfill(
    first: Annotated[str, typer.Option("--from", metavar="DATE", help="First arrival day, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option("--to", metavar="DATE", help="Last arrival day, YYYY-MM-DD.")],
    poll_seconds: Annotated[
        float, typer.Option(min=0.01, metavar="SECONDS", help="Between two looks at a night.")
    ] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Run the nights of many dates on the cluster, in order.

    Each is finished before the next begins. Interrupted, it leaves the night under way running; typed again, it waits
    for that one and passes over every date that ended well. Pause the schedule first.

    Examples:
        goalrank backfill --from 2026-01-05 --to 2026-01-11
            a week
    """
    with errors_as_exit_codes(as_json):
        from console.kubeflow import order

        settings = _settings()
        from pipelines import backfill as nights

        days = nights.days_between(first, last)
        with order(settings) as night:
            done = nights.backfill(_connect(settings), night, days, _progress, poll_seconds)
        line = f"{len(done['done'])} nights ended well, {len(done['skipped'])} had before."
        _print({"exit_code": EXIT_DONE, **done}, [line], as_json)
