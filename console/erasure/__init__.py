"""`goalrank erase-user`: what a platform owner needs to answer one user's request to be deleted.

Done at once, in this order, each part safe to be done twice (a command that was killed is typed again):

1. The id goes on the list that extraction honours (components/extract_features/erasures.py): from the next night on no
   snapshot, training set or model sees the user, whatever the logs still hold. That night rebuilds from all days.
2. Every night's artifacts go: training sets, lists, Data Docs. Reports and outcomes lose the ids of the user and of the
   user's requests where they quote them.
3. Every Parquet file under the workspace loses the user's rows and the impressions of the user's requests: snapshots
   and their state, the offline store, what was served, simulated logs. Manifests get their new counts.
4. The online store forgets the user: a service that runs falls back as for anybody unknown, within seconds.
5. The service's journal loses the user's lines, and so does what was set aside of it as damaged. A service that runs
   holds its newest ones in memory and will write them: then the command ends with 75 and says to stop it and type the
   same again.

Not done, and said: external logs are not ours to rewrite, so the files that hold the user are named. Models trained
before keep what they learnt; the retention rule ages them out once no alias and no roll-back needs them. The id itself
stays on the list.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from components.extract_features import erasures, locations
from components.extract_features.store import only_writer
from components.materialize_features.erase import erase_online
from console.erasure import rows, text
from console.housekeeping import taken
from console.housekeeping.files import HEAVY
from console.settings import Settings
from console.workspace import Workspace
from goalrank import schema
from goalrank.errors import EXIT_DONE, TryAgain, UsageError


def erase_user(settings: Settings, user_id: int, dry_run: bool) -> dict[str, Any]:
    """Erase a user from the workspace, or (dry run) count what would go.

    Returns:
        exit_code, dry_run, user_id, rows (by kind of file), nights (whose artifacts go), texts (files in which the id
        was quoted), online (whether the store was told), to_rewrite ([{file, rows}] of logs outside of the workspace),
        remains (what this command cannot erase, in words).

    Raises:
        UsageError: no such id can be, or there is no workspace.
        TryAgain: a night or an extraction is running, the online store is away, or a service still holds lines; all
            that could be done was done.
    """
    if user_id < schema.SMALLEST_ID:
        raise UsageError(f"user {user_id} found, expected an id of at least {schema.SMALLEST_ID}")
    place = Workspace(settings.workspace)
    place.require_used()
    root = locations.folder(settings.snapshots_uri)
    with place.one_at_a_time(), nullcontext() if dry_run else only_writer(root):
        logs = place.logs()
        inside = [place.folder, *_elsewhere(place.folder, [settings.snapshots_uri, settings.feast_uri])]
        outside = [] if logs.is_relative_to(place.folder) else [logs]
        nights = [night.folder for night in place.nights()]
        heavy = [night / name for night in nights for name in HEAVY if (night / name).exists()]
        if not dry_run:
            erasures.add(root, user_id)
        requests = rows.requests_of(user_id, [*inside, *outside])
        if not dry_run:
            for path in heavy:
                taken.remove(path)
        quoted = [path for night in nights for path in text.redact(night, user_id, requests, dry_run)]
        erased = rows.erase(user_id, requests, inside, dry_run)
        if not dry_run:
            rows.recount(root)
        online = Path(settings.feast_uri, "registry.db").exists() or "://" in settings.feast_uri
        if online and not dry_run:
            erase_online(settings.feast_uri, user_id)
        journal, held = text.journal(place.folder / "served", user_id, requests, dry_run)
        if held and not dry_run:
            raise TryAgain(
                f"user {user_id} is erased everywhere but in {held} file(s) of a service that is running, which will "
                "write them to its log; stop it and type the same command again"
            )
    return {
        "exit_code": EXIT_DONE,
        "dry_run": dry_run,
        "user_id": user_id,
        "rows": erased | ({"journal of the service": journal} if journal else {}),
        "nights": sorted({f"{path.parts[-3]}/{path.parts[-2]}" for path in heavy}),
        "texts": len(quoted),
        "online": online,
        "to_rewrite": rows.holding(user_id, requests, outside),
        "remains": "models registered before this command; `goalrank clean` collects them by its rule",
    }


def _elsewhere(workspace: Path, uris: list[str]) -> list[Path]:
    """Local folders of ours that lie outside of the workspace."""
    local = [Path(uri).absolute() for uri in uris if "://" not in uri]
    return [path for path in local if not path.is_relative_to(workspace)]
