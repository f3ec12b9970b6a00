"""`goalrank doctor`: what this machine, this workspace and the stores need, and how to mend what they lack.

    findings.py    what a check says, and running checks so that none can hang or break the others
    versions.py    Python, goalrank, its tools against the pins
    machine.py     Java, GPU, disk, memory, containers
    workspace.py   format, lock, logs, last night, champion
    stores.py      MLflow, Feast, Spark, Kubeflow Pipelines: do they answer?
    network.py     asking a server, in seconds
    serving.py     the port of the ranking service

Nothing is changed, no lock is taken, no tool is imported: versions are read from what is installed, databases by SQLite
itself, read-only, servers by one request with a time-out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from console.doctor import machine, serving, stores, versions, workspace
from console.doctor.findings import PROBLEM, WARNING, Finding, examine, problem
from console.settings import Settings
from goalrank.errors import EXIT_DONE, EXIT_USAGE, UsageError


def diagnose(folder: Path | None, seconds: float = 20.0) -> dict[str, Any]:
    """Look at everything at once.

    Args:
        folder: --workspace.
        seconds: longest time a check may take; one that takes longer is a warning.

    Returns:
        exit_code (0, or 2 where something is a problem), problems, warnings, findings [{group, name, status, found,
        mend}].
    """
    settings, findings = _settings(folder)
    checks = [*versions.CHECKS]
    if settings is not None:
        given = settings
        for module in (machine, workspace, stores, serving):
            checks += [check.of(given) for check in module.CHECKS]
    findings += examine(checks, seconds)
    counts = {status: sum(finding.status == status for finding in findings) for status in (PROBLEM, WARNING)}
    return {
        "exit_code": EXIT_USAGE if counts[PROBLEM] else EXIT_DONE,
        "problems": counts[PROBLEM],
        "warnings": counts[WARNING],
        "findings": [finding.document() for finding in findings],
    }


def _settings(folder: Path | None) -> tuple[Settings | None, list[Finding]]:
    """The settings, or what is wrong with them; then only what needs none is looked at."""
    from pydantic import ValidationError

    try:
        settings = Settings.load(workspace=folder)
        settings.require_stores()
    except UsageError as error:
        return None, [problem("settings", "GOALRANK_...", error)]
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False)]
        mend = "set GOALRANK_<NAME> right (docs/configuration.md), then look again"
        return None, [Finding("settings", "GOALRANK_...", PROBLEM, "; ".join(faults), mend)]
    return settings, []
