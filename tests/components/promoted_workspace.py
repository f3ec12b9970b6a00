"""A workspace with several promoted versions in a real MLflow, in seconds: untrained models, verdicts in order."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from components import registry
from components.promote_model.main import run as promote
from components.register_model.main import run as register
from console.workspace import Workspace
from goalrank.verdict import to_json
from tests.components.untrained_models import NightInputs, random_ranker, random_reward
from tests.verdicts import passing, promoting

COMMAND = [sys.executable, "-c", "from goalrank_platform import main; main()"]


class PromotedWorkspace:
    """WORKSPACE with workspace.json, mlflow/, journal/ and nights/; a night's documents where kfp.local leaves them."""

    def __init__(self, folder: Path, inputs: NightInputs) -> None:
        self.folder, self.inputs = folder, inputs
        self.tracking_uri = f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
        self.journal_uri = str(folder / "journal")
        self.nights: list[Path] = []
        Workspace(folder).record_logs(folder / "logs")

    def night(self, seed: int, champion: int | None, **more: Any) -> Path:
        """Register a ranker and a reward model of that seed, judged against version `champion`; the night's folder."""
        inputs, name = self.inputs, f"ranker-{seed}"
        inputs.save(name, random_ranker(seed), "ranker")
        inputs.save("reward_model", random_reward(seed), "reward")
        folder = self.folder / "nights" / inputs.date / str(len(self.nights) + 1)
        artifacts = folder / "artifacts" / "goalrank-nightly-1"
        for place in ("register-model", "evaluate-ranker", "smoke-serve"):
            (artifacts / place).mkdir(parents=True)
        arguments = inputs.registration_arguments(name, self.tracking_uri) | {"run_uri": str(folder)}
        register(**arguments | {"registration": str(artifacts / "register-model" / "registration")})
        document = registry.read_registration(artifacts / "register-model" / "registration")
        ranker = registry.registered_identity(document, "ranker")
        client = registry.connect(self.tracking_uri)
        against = champion and registry.identity(client.get_model_version(registry.RANKER, str(champion)))
        verdict = promoting(ranker, against or None, inputs.snapshot_id, inputs.date, **more)
        (artifacts / "evaluate-ranker" / "verdict").write_text(to_json(verdict))
        (artifacts / "smoke-serve" / "verdict").write_text(to_json(passing(ranker, inputs.snapshot_id, inputs.date)))
        self.nights.append(folder)
        self.card(folder, "failed", ranker.version)
        return folder

    def card(self, folder: Path, verdict: str, version: str) -> None:
        """night.json, as the console writes it."""
        document = {"date": folder.parent.name, "verdict": verdict, "started_at": time.time(), "parameters": {}}
        document |= {"model_version": version, "reason": "the night's own reason", "exit_code": 0}
        (folder / "night.json").write_text(json.dumps(document))

    def arguments(self, folder: Path) -> dict[str, str]:
        """Arguments of promote_model's run for that night."""
        artifacts = folder / "artifacts" / "goalrank-nightly-1"
        return {
            "registration": str(artifacts / "register-model" / "registration"),
            "evaluation": str(artifacts / "evaluate-ranker" / "verdict"),
            "serving": str(artifacts / "smoke-serve" / "verdict"),
            "tracking_uri": self.tracking_uri,
            "journal_uri": self.journal_uri,
            "date": self.inputs.date,
            "run_uri": str(folder),
        }

    def promote(self, folder: Path) -> None:
        """As the night does it, its card included."""
        promote(**self.arguments(folder))
        version = json.loads((folder / "outcomes" / "promote_model.json").read_text())["figures"]["version"]
        self.card(folder, "promoted", version)

    def promoted(self, count: int) -> PromotedWorkspace:
        """Versions 1 to `count`, each promoted over the one before."""
        for version in range(1, count + 1):
            self.promote(self.night(version, version - 1 or None))
        return self

    def aliases(self) -> list[tuple[str | None, str | None]]:
        """(champion, previous) of ranker and reward model."""
        client = registry.connect(self.tracking_uri)

        def version(name: str, alias: str) -> str | None:
            found = registry.by_alias(client, name, alias)
            return None if found is None else str(found.version)

        return [
            (version(name, registry.CHAMPION), version(name, registry.PREVIOUS))
            for name in (registry.RANKER, registry.REWARD)
        ]

    def goalrank(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command on this workspace, in a process of its own."""
        command = [*COMMAND, arguments[0], "--workspace", str(self.folder), *arguments[1:]]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)
