"""The one recurring run of the night: what it should be, what it is, and how the one becomes the other.

Kubeflow Pipelines cannot edit a recurring run, so another is made and the old one deleted:

    1  the pipeline's version is uploaded, named by the digest of its content (one that is there already is kept)
    2  the new recurring run is made, disabled
    3  the old one is disabled
    4  the new one is enabled
    5  the old one is deleted

Between 3 and 4 none is enabled, for the length of one call; two never are. Every step looks at what is there first, so
after a crash anywhere the next apply goes on from where it stopped. What counts as equal is decided by the fields the
server holds, not by the digest in the description: that is for people.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from goalrank import naming
from goalrank.errors import TryAgain, UsageError
from pipelines.kubeflow import Conflict, Kubeflow, NotThere
from pipelines.schedule import Schedule

NAME = "goalrank-nightly"
"""Of the pipeline, the experiment and the recurring run."""

MAX_CONCURRENCY = 1
LINEAGE = frozenset({"commit"})
"""Parameters that no step works by: what runs is the images' code, so another commit alone makes no other night."""

ROUNDS = 5
"""Looks at what is there before apply gives up: somebody else keeps changing it."""

_DESCRIPTION = re.compile(r"goalrank state ([0-9a-f]{16}); time zone (\S+); then (enabled|paused)")


@dataclass(frozen=True)
class Desired:
    """What the recurring run should be.

    package is the compiled night; parameters are what every scheduled night is given.
    """

    schedule: Schedule
    package: Path
    parameters: dict[str, Any]
    service_account: str = ""

    @cached_property
    def version(self) -> str:
        """Name of the pipeline's version: the digest of its content, images included."""
        return f"sha256-{hashlib.sha256(self.package.read_bytes()).hexdigest()[:32]}"

    @property
    def state(self) -> dict[str, Any]:
        """The fields that are compared, as `diff` names them."""
        return {
            "cron": self.schedule.cron,
            "time_zone": self.schedule.time_zone.key,
            "pipeline": self.version,
            "parameters": _compared(self.parameters),
            "service_account": self.service_account,
            "max_concurrency": MAX_CONCURRENCY,
            "no_catchup": True,
        }

    @property
    def digest(self) -> str:
        """16 hex digits of everything that is desired."""
        return _digest(self.state)

    @property
    def digest_of_night(self) -> str:
        """16 hex digits of the pipeline and its parameters, whenever it may run."""
        return _digest([self.version, _compared(self.parameters)])

    def description(self, paused: bool) -> str:
        """What the recurring run says about itself: digest, time zone, and what becomes of it once it is complete."""
        zone = self.schedule.time_zone.key
        return f"goalrank state {self.digest}; time zone {zone}; then {'paused' if paused else 'enabled'}"


@dataclass(frozen=True)
class Found:
    """One recurring run of the night's name, as the server holds it, but for passwords in its parameters."""

    id: str
    created: datetime
    enabled: bool
    state: dict[str, Any]
    then_paused: bool

    @property
    def order(self) -> tuple[datetime, str]:
        return self.created, self.id


def look(kubeflow: Kubeflow) -> list[Found]:
    """All recurring runs of the night's name, oldest first; their pipeline versions by name."""
    experiment = kubeflow.find_experiment(NAME)
    if experiment is None:
        return []
    listed = kubeflow.pages(kubeflow.client.list_recurring_runs, "recurring_runs", experiment_id=experiment)
    runs = [run for run in listed if run.display_name == NAME]
    names: dict[tuple[str, str], str] = {}
    for run in runs:
        reference = run.pipeline_version_reference
        key = (reference.pipeline_id, reference.pipeline_version_id) if reference else ("", "")
        if all(key) and key not in names:
            try:
                names[key] = kubeflow.call(kubeflow.client.get_pipeline_version, *key).display_name
            except NotThere:
                names[key] = "deleted"
    return sorted((_found(run, names) for run in runs), key=lambda found: found.order)


@dataclass(frozen=True)
class Clone:
    """An enabled recurring run of the night's pipeline that is not the night's own: a second night each night."""

    id: str
    name: str
    cron: str

    @property
    def told(self) -> dict[str, str]:
        return {"id": self.id, "name": self.name, "cron": self.cron}


def clones(kubeflow: Kubeflow, runs: list[Found]) -> list[Clone]:
    """Enabled recurring runs of any version of the night's pipeline, in whichever experiment of the namespace, but for
    `runs`; somebody cloned ours in the user interface, or made one there.

    A copy of the package that was uploaded as a pipeline of another name is not told from anybody else's.
    """
    pipeline = _pipeline(kubeflow)
    if pipeline is None:
        return []
    ours = {run.id for run in runs}
    listed = kubeflow.pages(kubeflow.client.list_recurring_runs, "recurring_runs", namespace=kubeflow.namespace)
    return [
        Clone(
            str(run.recurring_run_id),
            str(run.display_name),
            str(run.trigger.cron_schedule.cron if run.trigger and run.trigger.cron_schedule else "no cron"),
        )
        for run in listed
        if run.mode == "ENABLE"
        and str(run.recurring_run_id) not in ours
        and run.pipeline_version_reference
        and run.pipeline_version_reference.pipeline_id == pipeline
    ]


def require_no_clones(found: list[Clone]) -> None:
    """Refuse to go on beside another night.

    Raises:
        UsageError: there is one; names each and how to mend it.
    """
    if found:
        named = ", ".join(f"{each.name!r} ({each.cron}, {each.id})" for each in found)
        raise UsageError(
            f"{len(found)} more recurring run{'s' * (len(found) > 1)} of pipeline {NAME} found enabled: {named}; "
            "expected ours alone, or nights would run twice. Disable them: `goalrank schedule apply --disable-others`"
        )


def disable(kubeflow: Kubeflow, found: list[Clone]) -> None:
    """Disable them; they stay in the list for whoever made them."""
    for each in found:
        _tolerant(kubeflow, kubeflow.client.disable_recurring_run, each.id)


def differences(desired: Desired, found: Found) -> list[dict[str, Any]]:
    """The fields in which a recurring run is not as desired: {"field", "found", "expected"} each."""
    changes = []
    for name, expected in desired.state.items():
        now = found.state[name]
        if name == "service_account" and not expected:
            continue  # the server fills in its own
        if name == "parameters":
            for key in sorted(expected.keys() | now.keys()):
                if expected.get(key) != now.get(key):
                    changes.append({"field": f"parameters.{key}", "found": now.get(key), "expected": expected.get(key)})
        elif now != expected:
            changes.append({"field": name, "found": now, "expected": expected})
    return changes


def diff(desired: Desired, runs: list[Found]) -> dict[str, Any]:
    """What apply would do, and why: {"changes": [...], "actions": [...], "paused"}; no actions means nothing to do."""
    paused, keep = is_paused(runs), _matching(desired, runs)
    actions, changes = [], []
    if keep is None:
        actions.append("create the recurring run" if not runs else "replace the recurring run")
        changes = differences(desired, _newest(runs)) if runs else []
    elif not paused and not keep.enabled:
        actions.append("enable the recurring run: an apply was interrupted")
    if superfluous := [run for run in runs if run is not keep]:
        deleted = len(superfluous) - (keep is None)
        if deleted:
            actions.append(f"delete {deleted} recurring run{'s' if deleted > 1 else ''} of the same name")
    return {"changes": changes, "actions": actions, "paused": paused}


def apply(kubeflow: Kubeflow, desired: Desired, said: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Make the recurring run what it should be, the only one of its name; a paused one stays paused.

    Returns:
        :func:`diff`'s keys of the first look, and id, changed.

    Raises:
        UsageError: the server refuses the request or the token.
        TryAgain: it is away, or somebody else keeps changing the same thing; what was done is gone on from.
    """
    runs = look(kubeflow)
    first = diff(desired, runs)
    for _ in range(ROUNDS):
        paused, keep = is_paused(runs), _matching(desired, runs)
        if keep is not None and runs == [keep] and keep.enabled != paused:
            return first | {"id": keep.id, "changed": bool(first["actions"])}
        if keep is None:
            said("making the new recurring run")
            _create(kubeflow, desired, paused, enabled=not runs)
        else:
            for run in runs:
                if run is not keep and run.enabled:
                    said("disabling the old one")
                    _tolerant(kubeflow, kubeflow.client.disable_recurring_run, run.id)
            if not paused and not keep.enabled:
                said("enabling the new one")
                kubeflow.call(kubeflow.client.enable_recurring_run, keep.id)
            elif paused and keep.enabled:
                kubeflow.call(kubeflow.client.disable_recurring_run, keep.id)
            for run in runs:
                if run is not keep:
                    said("deleting the old one")
                    _tolerant(kubeflow, kubeflow.client.delete_recurring_run, run.id)
        runs = look(kubeflow)
    raise TryAgain(f"the schedule was changed {ROUNDS} times while it was looked at; is somebody else applying one?")


def set_paused(kubeflow: Kubeflow, paused: bool) -> dict[str, Any]:
    """Disable the recurring run until it is resumed, or enable it again: {"id", "paused", "changed"}.

    Raises:
        UsageError: there is none.
        TryAgain: the server is away, or an interrupted apply has to be finished before resuming.
    """
    runs = look(kubeflow)
    if not runs:
        raise UsageError("no schedule found; make one with `goalrank schedule apply`")
    if len(runs) > 1 and not paused:
        raise TryAgain("an apply was interrupted; run `goalrank schedule apply`, which finishes it")
    changed = False
    for run in runs:
        if run.enabled == paused:
            call = kubeflow.client.disable_recurring_run if paused else kubeflow.client.enable_recurring_run
            kubeflow.call(call, run.id)
            changed = True
    # One that is left: where several lie, a later apply could not tell a pause from an interrupted replacement.
    keep = _newest(runs)
    for run in runs:
        if run is not keep:
            _tolerant(kubeflow, kubeflow.client.delete_recurring_run, run.id)
            changed = True
    return {"id": keep.id, "paused": paused, "changed": changed}


def is_paused(runs: list[Found]) -> bool:
    """Did a person pause it? One alone and disabled: yes. Several: an apply was cut short, and the newest says."""
    if not runs or any(run.enabled for run in runs):
        return False
    return len(runs) == 1 or runs[-1].then_paused


def _compared(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in LINEAGE}


def _shown(parameters: dict[str, Any]) -> dict[str, Any]:
    """Without the passwords that somebody put there; ours have none, so what is masked differs from them still."""
    return {name: naming.masked(value) if isinstance(value, str) else value for name, value in parameters.items()}


def _digest(state: Any) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def _newest(runs: list[Found]) -> Found:
    """The enabled one, or else the newest."""
    return max(runs, key=lambda run: (run.enabled, run.order))


def _matching(desired: Desired, runs: list[Found]) -> Found | None:
    """The oldest that is as desired: whoever else applies the same finds the same."""
    return next((run for run in runs if not differences(desired, run)), None)


def _found(run: Any, names: dict[tuple[str, str], str]) -> Found:
    said = _DESCRIPTION.fullmatch(run.description or "")
    reference, config, trigger = run.pipeline_version_reference, run.runtime_config, run.trigger
    key = (reference.pipeline_id, reference.pipeline_version_id) if reference else ("", "")
    state = {
        "cron": trigger.cron_schedule.cron if trigger and trigger.cron_schedule else None,
        "time_zone": said[2] if said else None,
        "pipeline": names.get(key),
        "parameters": _shown(_compared(config.parameters or {})) if config else {},
        "service_account": run.service_account or "",
        "max_concurrency": int(run.max_concurrency or 0),
        "no_catchup": bool(run.no_catchup),
    }
    created = run.created_at or datetime.fromtimestamp(0, UTC)
    return Found(str(run.recurring_run_id), created, run.mode == "ENABLE", state, bool(said and said[3] == "paused"))


def _create(kubeflow: Kubeflow, desired: Desired, paused: bool, enabled: bool) -> None:
    pipeline, version = upload(kubeflow, desired.package, desired.version)
    kubeflow.once(
        kubeflow.client.create_recurring_run,
        experiment_id=kubeflow.experiment(NAME),
        job_name=NAME,
        description=desired.description(paused),
        cron_expression=desired.schedule.cron,
        max_concurrency=MAX_CONCURRENCY,
        no_catchup=True,  # a night that was missed is run by its date, not by the clock
        params=desired.parameters,
        pipeline_id=pipeline,
        version_id=version,
        enabled=enabled,
        service_account=desired.service_account or None,
    )


def upload(kubeflow: Kubeflow, package: Path, name: str) -> tuple[str, str]:
    """Ids of the night's pipeline and of its version of that name, both made where they are not there."""
    pipeline = _pipeline(kubeflow)
    if pipeline is None:
        with suppress(Conflict):  # somebody else has just made it
            kubeflow.once(kubeflow.client.upload_pipeline, str(package), NAME, namespace=kubeflow.namespace)
        pipeline = _pipeline(kubeflow)
        if pipeline is None:
            raise TryAgain(f"pipeline {NAME} was made and is not listed yet; run the same command again")
    version = _version(kubeflow, pipeline, name)
    if version is None:
        try:
            made = kubeflow.once(kubeflow.client.upload_pipeline_version, str(package), name, pipeline_id=pipeline)
            version = str(made.pipeline_version_id)
        except Conflict:
            version = _version(kubeflow, pipeline, name)
            if version is None:
                raise
    return pipeline, version


def _pipeline(kubeflow: Kubeflow) -> str | None:
    listed = kubeflow.pages(kubeflow.client.list_pipelines, "pipelines", namespace=kubeflow.namespace)
    return next((str(each.pipeline_id) for each in listed if each.display_name == NAME), None)


def _version(kubeflow: Kubeflow, pipeline: str, name: str) -> str | None:
    listed = kubeflow.pages(kubeflow.client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline)
    return next((str(each.pipeline_version_id) for each in listed if each.display_name == name), None)


def _tolerant(kubeflow: Kubeflow, function: Callable[..., Any], run: str) -> None:
    """Do something to a recurring run that may be gone already."""
    with suppress(NotThere):
        kubeflow.call(function, run)
