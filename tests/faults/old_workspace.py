"""A workspace with forty days behind it, for the rule of retention: real MLflow, journal, manifests and folders, with
so little in them that they are made in seconds. What must stay and what must go is written down as it is made."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components import registry
from components.check_features import passed
from components.extract_features.snapshots import FORMAT, Snapshot, manifest_path
from components.materialize_features.online import RECORD
from components.promote_model import journal
from console.workspace import Workspace
from tests.components.promoted_workspace import PromotedWorkspace
from tests.components.untrained_models import NightInputs
from tests.faults import registry_on_disk

DAYS = 40
WINDOW = 5
TODAY = date(2026, 3, 1)
MODELS = (registry.RANKER, registry.REWARD)

VERSIONS = {
    # version: (registered this many days ago, promoted this many days ago or None, what the rule says)
    "1": (90, 90, "goes: its reign ended before the horizon"),
    "2": (80, 80, "stays: champion until 20 days ago"),
    "3": (60, None, "goes: never promoted, long ago"),
    "4": (20, 20, "stays: previous"),
    "5": (8, 8, "stays: champion"),
    "6": (3, None, "stays: a recent night"),
    "7": (0, None, "stays: challenger"),
}
STAYS = sorted(version for version, (_, _, why) in VERSIONS.items() if why.startswith("stays"))


def day(ago: int) -> str:
    return (TODAY - timedelta(days=ago)).isoformat()


class OldWorkspace(PromotedWorkspace):
    """See above; `build` makes it."""

    def build(self) -> OldWorkspace:
        """Nights, snapshots, versions and the journal of forty days."""
        Workspace(self.folder).record_logs(self.folder / "logs")
        for version in VERSIONS:
            self.night(int(version), None)
        self._date_versions()
        self._reigns()
        for ago in range(DAYS, -1, -1):
            self._night_folder(ago)
            self._snapshot(ago)
        return self

    def _date_versions(self) -> None:
        client = registry.connect(self.tracking_uri)
        for version, (registered, _, _) in VERSIONS.items():
            for name in MODELS:
                found = client.get_model_version(name, version)
                client.set_model_version_tag(name, version, "date", day(registered))
                client.set_tag(found.run_id, "date", day(registered))
                registry.point(client, name, registry.CHALLENGER, "7")

    def _reigns(self) -> None:
        client, before = registry.connect(self.tracking_uri), None
        for version, (_, promoted, _) in VERSIONS.items():
            if promoted is None:
                continue
            moves = [{"name": name, "from": before, "to": version, "previous": before} for name in MODELS]
            number = journal.begin(
                self.journal_uri,
                kind="promotion",
                by="night",
                reason="",
                date=day(promoted),
                snapshot_id="",
                moves=moves,
            )
            journal.apply(client, moves)
            journal.end(self.journal_uri, number)
            self._backdate(promoted)
            before = version

    def _backdate(self, ago: int) -> None:
        """Give the newest two events of the journal the clock of their day."""
        path = Path(self.journal_uri) / journal.FILE
        events = [json.loads(line) for line in path.read_text().splitlines()]
        for event in events[-2:]:
            event["at"] = (datetime.now(UTC) - timedelta(days=ago)).isoformat(timespec="seconds")
        path.write_text("".join(json.dumps(event) + "\n" for event in events))

    def _night_folder(self, ago: int) -> None:
        folder = self.folder / "nights" / day(ago) / "1"
        for name in ("artifacts/run/train-ranker", "cache", "outcomes"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "artifacts/run/train-ranker/weights").write_bytes(bytes(5000))
        (folder / "outcomes/check_logs.json").write_text('{"step": "check_logs"}')
        (folder / "report.html").write_text("a report")
        document: dict[str, Any] = {"date": day(ago), "verdict": "kept", "started_at": 1e9 - ago, "parameters": {}}
        (folder / "night.json").write_text(json.dumps(document))

    def interrupted_again(self, ago: int) -> Path:
        """An old date is run once more, later than any other night, and interrupted after its extraction; the snapshot
        artifact that its resumption goes on from."""
        night = Workspace(self.folder).new_night(day(ago), {})
        artifact = night.folder / "artifacts/run/extract-features/snapshot"
        Snapshot.read(self.folder / "snapshots", day(ago)).save(artifact)
        return artifact

    def _snapshot(self, ago: int) -> None:
        """One new day folder and state a night; the window's older days lie in the snapshots before."""
        root, identity = self.folder / "snapshots", f"{ago:016x}"
        for table in (f"days/{day(ago)}/examples", "state/users"):
            (root / "data" / identity / table).mkdir(parents=True)
            pq.write_table(pa.table({"row": [ago]}), root / "data" / identity / table / "part-0.parquet")
        window = [
            {"dt": day(back), "path": f"data/{back:016x}/days/{day(back)}", "rows": {"examples": 1}}
            for back in range(min(ago + WINDOW - 1, DAYS), ago - 1, -1)
        ]
        manifest = {"format": FORMAT, "date": day(ago), "snapshot_id": identity, "days": window, "base": None}
        manifest |= {"state": f"data/{identity}/state", "state_rows": {"users": 1}}
        path = manifest_path(root, day(ago))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(manifest))
        if ago >= 20:  # nothing has passed since: drift is held against the snapshot of twenty days ago
            passed.mark(root, Snapshot(root, manifest))
        offline = self.folder / "feast/offline" / identity
        if ago in (0, 1, 2):
            (offline / "user_stats").mkdir(parents=True)
            (offline / "user_stats/features.parquet").write_bytes(bytes(3000))
        if ago == 0:
            online = {"folder": str(offline), "may": [str(offline.with_name(f"{1:016x}"))]}
            (self.folder / "feast" / RECORD).write_text(json.dumps(online))

    def contents(self) -> dict[str, Any]:
        """What there is, in a form that two workspaces can be compared by."""
        root, database = self.folder, self.folder / "mlflow/mlflow.db"
        files = root / "mlflow/mlartifacts"
        return {
            "versions": {name: registry_on_disk.versions(database, name) for name in MODELS},
            "aliases": [
                tuple(registry_on_disk.alias(database, name, alias) for alias in ("champion", "previous"))
                for name in MODELS
            ],
            "runs": registry_on_disk.dates_of_runs(database),
            "weights": len(list(files.rglob("weights.safetensors"))),
            "heavy": sorted(str(path.relative_to(root)) for path in root.glob("nights/*/*/artifacts")),
            "nights": len(list(root.glob("nights/*/*/night.json"))),
            "manifests": sorted(path.stem for path in root.glob("snapshots/manifests/*.json")),
            "rows": sorted(str(path.relative_to(root)) for path in root.glob("snapshots/data/*/*/*")),
            "marks": sorted(path.stem for path in root.glob("snapshots/passed/*.json")),
            "offline": sorted(path.name for path in root.glob("feast/offline/*")),
            "left behind": sorted(str(path) for path in root.rglob(".collected-*")),
        }


def build(folder: Path) -> OldWorkspace:
    """The workspace in `folder`/workspace."""
    inputs = NightInputs(folder / "inputs", requests=60)
    return OldWorkspace(folder / "workspace", inputs).build()
