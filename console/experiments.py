"""`goalrank ab-test`: an A/B test in the workspace's simulated world, and what it found as tables."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from components.step import write_atomic
from console.settings import Settings
from console.workspace import Night, Workspace
from goalrank.errors import UsageError

if TYPE_CHECKING:
    from components.experiments.policies import Policy

STYLES = {"better": "green", "worse": "red", "undecided": "dim"}


def run_ab_test(
    settings: Settings,
    policies: str,
    days: int,
    control: str | None,
    seed: int,
    plot: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Run one, keep it in WORKSPACE/experiments, and return its result.

    Stops early once every arm is found better or worse than the control, or the split is found to be off.

    Raises:
        UsageError: too few or unknown policies, a workspace of real logs, no night yet.
        GoalRankError: a model or store cannot be had.
    """
    from components.experiments import outputs
    from components.experiments.policies import parse
    from goalrank.baselines import NAMES

    workspace = Workspace(settings.workspace)
    names = parse(policies, NAMES)
    control = control and control.strip().lower()
    if control is not None and control not in names:
        raise UsageError(f"--control {control!r} found, expected one of {', '.join(names)}")
    config = _world(workspace)
    night = _newest_materialised(workspace)

    from components.experiments.features import OnlineFeatures
    from components.experiments.past import before
    from components.experiments.policies import load
    from components.feature_store import open_store
    from goalrank.ab_simulation import Day, live
    from goalrank.ab_test import AbTest
    from goalrank.simulator import day_number

    first = day_number(config, night.date) + 1
    store = open_store(settings.feast_uri)
    with _bar(console) as bar:
        loaded = {
            name: _of_the_field(name, workspace, bar) if name in NAMES else load(name, settings.tracking_uri, seed)
            for name in names
        }
    chosen = control or ("champion" if "champion" in names else names[0])
    # Everything that makes this experiment this one: the same again gives the same result, another seed another split.
    salt = f"{config.date_of(first)} {' '.join(names)} seed {seed}"
    test = AbTest(tuple(names), chosen, salt)
    users, past = before(workspace.logs(), night.date)
    if len(users):
        test.remember(users, past)
    lived: list[Day] = []
    with _bar(console) as bar:
        task = bar.add_task("reading features", total=config.requests_per_day * days)
        features = OnlineFeatures(store, config, first + days - 1)
        ranks = {name: policy.rank for name, policy in loaded.items()}
        for day in live(
            test, config, first, days, ranks, features, progress=lambda done, _total: bar.update(task, completed=done)
        ):
            lived.append(day)
            bar.update(task, description=f"day {len(lived)} of {days}")
            settled = all(decision != "undecided" for decision in day.look.decisions().values())
            if settled or not day.look.sample_ratio.passed:
                break
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", salt)
    about = {
        "policies": {name: policy.about for name, policy in loaded.items()},
        "features_of": night.date,
        "days_asked": days,
        "seed": seed,
        "lists_before": len(users),
        "simulated": True,
    }
    result = outputs.document(name, test, lived, about)
    folder = settings.workspace / "experiments" / name
    figure = outputs.write(folder, result)
    if plot is not None:
        shutil.copyfile(figure, plot)
    return result | {"folder": str(folder), "report": _shown_in_report(night, result, console)}


def print_result(result: dict[str, Any], console: Console) -> None:
    """Print it for a person; 60 columns are enough."""
    from components.experiments.outputs import percentages

    last, control = result["looks"][-1], result["control"]
    arms = Table(box=None, pad_edge=False)
    for column in ("arm", "users", "lists", "reward", "true r*"):
        arms.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    for arm in last["users"]:
        arms.add_row(
            arm + (" (control)" if arm == control else ""),
            f"{last['users'][arm]:,}",
            f"{last['requests'][arm]:,}",
            f"{last['means'][arm]['reward']:.3f}",
            f"{last['true_reward'][arm]:.3f}",
        )
    console.print(arms)
    for arm in last["lifts"]:
        lifts = Table(box=None, pad_edge=False)
        lifts.add_column(arm, no_wrap=True)
        lifts.add_column(f"over {control}", justify="right", no_wrap=True)
        lifts.add_column("interval", justify="right", no_wrap=True)
        lifts.add_column("")
        for metric in last["lifts"][arm]:
            percent = percentages(last, arm, metric, control)
            mean, low, high = percent or (None, None, None)
            if mean is None or low is None or high is None:
                lifts.add_row(metric.replace("_", " "), "–", "too few users", "")
                continue
            said = "undecided" if low <= 0 <= high else "better" if low > 0 else "worse"
            lifts.add_row(
                metric.replace("_", " "), f"{mean:+.1f}%", f"{low:+.1f}% to {high:+.1f}%", f"[{STYLES[said]}]{said}[/]"
            )
        console.print()
        console.print(lifts)
    ratio = result["sample_ratio"]
    split = f"Split as planned: {'yes' if ratio['passed'] else 'NO'} (p {ratio['p_value']:.2g})."
    found = f"{result['reason'][0].upper()}{result['reason'][1:]}."
    console.print(f"\n{split} {found}", markup=False, highlight=False)
    console.print(
        f"Days {result['looks'][0]['date']} to {last['date']} of the simulated world, features of "
        f"{result['features_of']}. All intervals, on all days, hold at once with {100 * (1 - result['alpha']):.0f}%: "
        "looking daily is allowed. "
        "Lifts are adjusted for what each user did before. true r* is known only because the world is simulated.",
        style="dim",
        highlight=False,
    )
    console.print(f"Kept in {result['folder']}", soft_wrap=True, highlight=False, markup=False)
    if result["report"]:
        console.print(f"Shown in {result['report']}", soft_wrap=True, highlight=False, markup=False)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console, transient=True
    )


def _of_the_field(name: str, workspace: Workspace, bar: Progress) -> Policy:
    """A rival method, trained on the newest night's data or found trained."""
    from components.experiments import trained
    from components.experiments.policies import Policy

    source = trained.Source.newest([(night.folder, night.parameters) for night in workspace.nights()])
    task = bar.add_task(name, total=None)
    rank = trained.policy(
        name,
        source,
        workspace.folder / "experiments" / "policies",
        lambda note, done, total: bar.update(task, description=note, completed=done, total=total),
    )
    about = {
        "preset": source.preset,
        "seed": str(source.seed),
        "trained_on": str(source.training_set.relative_to(workspace.folder)),
    }
    return Policy(name, rank, about)


def _world(workspace: Workspace) -> Any:
    """The simulated world of the workspace's logs.

    Raises:
        UsageError: the logs are real ones.
    """
    from goalrank.simulator import load_world

    logs = workspace.logs()
    config = load_world(str(logs))
    if config is None:
        raise UsageError(
            f"{workspace.folder} learns from {logs}, which no simulated world wrote, expected one: only a world can "
            "answer lists that nobody was shown. With real users, serve two versions (`goalrank serve`, holdback) "
            "and compare their logs"
        )
    return config


def _shown_in_report(night: Night, result: dict[str, Any], console: Console) -> str | None:
    """Have the report of the night whose features were used show the test; None where it cannot."""
    from jinja2 import TemplateError

    from components.publish_report.main import republish
    from components.publish_report.sections.experiment import FILE

    if not (night.folder / "report.json").exists():
        return None
    write_atomic(night.folder / FILE, json.dumps(result, indent=1))
    try:
        republish(night.folder)
    except UsageError as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return None
    except (TemplateError, LookupError, TypeError, ValueError) as error:  # a night that an older release left behind
        said = f"the report of {night.date} is an older release's and was not written again ({error})"
        console.print(said, markup=False, highlight=False, soft_wrap=True)
        return None
    return str(night.folder / "report.html")


def _newest_materialised(workspace: Workspace) -> Night:
    """The night whose features are online.

    Raises:
        UsageError: no night has brought any.
    """
    from components.publish_report.document import readable_outcomes

    for night in sorted(workspace.nights(), key=lambda night: night.started_at, reverse=True):
        if readable_outcomes(night.folder).get("materialize_features", {}).get("kind") == "done":
            return night
    raise UsageError(f"no night of {workspace.folder} has brought features online yet; run `goalrank nightly` first")
