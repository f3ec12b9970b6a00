"""`goalrank migrate`: a workspace of an older release made one of this release, step by step.

1 to 2  Registered versions get the tag `feature_set`: format 1 had one set, and a release that reads another refuses
        them by it. Journals of a service that was killed get flat lines (the new service would not read the old ones,
        and forget what was served). A night that was interrupted starts at its first step when it is resumed: verdicts
        of the older release say too little for this one's gates.

Snapshots need no step: extraction notices by itself that its code is another, and rebuilds. The new format is written
last, and every step can be done twice: a migration that was killed is run again.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from typing import Any

from components import registry
from components.serve_model.served_log import JOURNAL
from components.step import write_atomic
from console.housekeeping import taken
from console.housekeeping.files import HEAVY
from console.settings import Settings
from console.workspace import FORMAT, RUNNING, Workspace
from goalrank.errors import EXIT_DONE, TryAgain

FEATURE_SET_OF_FORMAT_1 = "135daed62f70da82"
"""goalrank.schema.feature_set() of the only release that wrote format 1."""


def migrate(settings: Settings, dry_run: bool) -> dict[str, Any]:
    """Bring the workspace to FORMAT.

    Returns:
        exit_code, dry_run, found (its format before), format, steps (what was, or would be, done).

    Raises:
        UsageError: there is no workspace, or a newer release wrote it.
        TryAgain: a night or a service is running in it, or MLflow is away.
    """
    place = Workspace(settings.workspace)
    place.require_used()
    with place.one_at_a_time():
        card = place.card() or {}
        found = card.get("format")
        if found == FORMAT or found not in STEPS:
            place.logs()  # says what is wrong with it, if anything is
        steps: list[str] = []
        version = found
        while version in STEPS:
            steps += STEPS[version](settings, place, dry_run)
            version += 1
        if not dry_run and found != FORMAT:
            place.write_card(card | {"format": FORMAT})
    return {"exit_code": EXIT_DONE, "dry_run": dry_run, "found": found, "format": FORMAT, "steps": steps}


def _from_1(settings: Settings, place: Workspace, dry_run: bool) -> list[str]:
    return [*_served(place, dry_run), *_tags(settings, dry_run), *_interrupted(place, dry_run)]


STEPS: dict[int, Callable[[Settings, Workspace, bool], list[str]]] = {1: _from_1}
"""format -> what leads from it to the next."""


def _tags(settings: Settings, dry_run: bool) -> list[str]:
    if not registry.exists(settings.tracking_uri):
        return []
    client = registry.connect(settings.tracking_uri)
    steps = []
    with registry.reaching(settings.tracking_uri):
        for name in (registry.RANKER, registry.REWARD):
            for version in client.search_model_versions(f"name = '{name}'"):
                # A version without a digest was not registered by a night: nobody knows what it was trained on.
                if registry.FEATURE_SET in version.tags or "weights_sha256" not in version.tags:
                    continue
                steps.append(f"{name} version {version.version}: tag {registry.FEATURE_SET} {FEATURE_SET_OF_FORMAT_1}")
                if not dry_run:
                    client.set_model_version_tag(
                        name, str(version.version), registry.FEATURE_SET, FEATURE_SET_OF_FORMAT_1
                    )
    return steps


def _served(place: Workspace, dry_run: bool) -> list[str]:
    steps = []
    for path in sorted((place.folder / "served" / JOURNAL).glob("*.jsonl")):
        with open(path, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TryAgain(f"a service is writing to {path}; stop it, then migrate again") from error
            lines = [_flat(line) for line in file.read().split(b"\n")]
        flat = [line for line in lines if line is not None]
        if any(changed for changed, _ in flat):
            steps.append(f"{path.name}: {len(flat)} lines of what was served, flat")
            if not dry_run:
                text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for _, event in flat)
                write_atomic(path, text)
    return steps


def _flat(line: bytes) -> tuple[bool, dict[str, Any]] | None:
    """A line as format 2 has it, and whether it was another; None for one that a kill cut short."""
    try:
        event = json.loads(line)
        if "served" in event:
            request, shown = event["served"]["request"], event["served"]["impressions"]
            chances = [row["propensity"] for row in shown]
            items = [row["item_id"] for row in shown]
            return True, request | {"items": items, "propensities": None if None in chances else chances}
        if "feedback" in event:
            told = dict(event["feedback"])
            return True, {"feedback_on": told.pop("request_id"), **told}
    except (ValueError, TypeError, KeyError):
        return None
    return False, event


def _interrupted(place: Workspace, dry_run: bool) -> list[str]:
    newest = place.newest_night()
    if newest is None or newest.verdict not in (RUNNING, "failed"):
        return []
    heavy = [newest.folder / name for name in HEAVY if (newest.folder / name).exists()]
    if not heavy:
        return []
    if not dry_run:
        for path in heavy:
            taken.remove(path)
    return [f"night {newest.date}/{newest.folder.name}: artifacts dropped, so that it is resumed from its first step"]
