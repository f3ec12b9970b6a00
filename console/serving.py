"""`goalrank serve`, `goalrank rank` and `goalrank collect`: the ranking service of the workspace's champion."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from components.serve_model.bodies import as_sent
from console.settings import Settings
from console.workspace import Workspace, arrival_days
from goalrank.errors import UsageError


def serve(settings: Settings) -> None:
    """Serve until interrupted; what is served is logged in WORKSPACE/served, in the logs' own contract.

    A folder of its own: the partitions a night has read are closed, and a world's logs are the world's.

    Raises:
        GoalRankError: as components.serve_model.main.serve.
        UsageError: the workspace was moved, or is of another release.
    """
    from components.serve_model.main import serve as run

    Workspace(settings.workspace).logs()

    with suppress(KeyboardInterrupt):  # the server has ended gracefully and passes on what ended it
        run(
            settings.feast_uri,
            settings.tracking_uri,
            str(settings.workspace / "served"),
            settings.host,
            settings.port,
            settings.exploration,
            holdback=settings.holdback,
            poll_seconds=settings.champion_poll_seconds,
            keep_seconds=settings.feature_keep_seconds,
            version=settings.serve_version,
        )


def collect(settings: Settings, console: Console) -> dict[str, Any]:
    """Bring closed served days into the workspace's logs, say which, and return what console/collecting.py does.

    Raises:
        UsageError: the workspace has no night yet, or learns from a simulated world.
        TryAgain: a night is running.
    """
    from console import collecting

    workspace = Workspace(settings.workspace)
    workspace.require_used()
    with workspace.one_at_a_time():
        done = collecting.collect(workspace, workspace.logs(settings.logs_uri or None))
    for day, arrival in done["collected"].items():
        console.print(f"Served on {day}: arrives as {arrival}", highlight=False, soft_wrap=True)
    for day, reason in done["waiting"].items():
        console.print(f"Served on {day}: waits, {reason}", highlight=False, soft_wrap=True)
    if left_out := collecting.said_of_repeats(done):
        console.print(left_out, highlight=False, soft_wrap=True)
    if not done["collected"] and not done["waiting"]:
        console.print("Nothing new was served.", highlight=False)
    return done


def rank(settings: Settings, text: str | None) -> str:
    """Rank one request (JSON text; None: a logged one, whose id the answer bears) and return the answer as JSON.

    Raises:
        UsageError: the text is no JSON object, or there is no logged request.
    """
    Workspace(settings.workspace).logs()  # refuses one of another release
    if text is None:
        logged = _example(settings)
        request, name = as_sent(logged), {"request_id": logged["request_id"]}
    else:
        request, name = _parsed(text), {}
    from components.serve_model.main import rank_once  # torch: a wrong request need not wait for it

    return json.dumps(name | rank_once(settings.feast_uri, settings.tracking_uri, request))


def _parsed(text: str) -> dict[str, object]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is not JSON ({error}); expected an object with user_id and candidates") from None
    if not isinstance(request, dict):
        raise UsageError(f"the request is a {type(request).__name__}, expected an object with user_id and candidates")
    return request


def _example(settings: Settings) -> dict[str, Any]:
    """The first request of the newest day in the workspace's logs."""
    import pyarrow.parquet as pq

    logs = Workspace(settings.workspace).logs()
    days = arrival_days(logs)
    files = sorted(Path(logs, "requests", f"dt={days[-1]}").glob("*.parquet")) if days else []
    if not files:
        raise UsageError(f"no logged request found in {logs}; run `goalrank nightly` first")
    row = next(pq.ParquetFile(files[0]).iter_batches(1)).to_pylist()[0]
    candidates = [
        {"item_id": item, "score": score}
        for item, score in zip(row["candidates"], row["candidate_scores"], strict=True)
    ]
    return {"request_id": row["request_id"], "user_id": row["user_id"], "candidates": candidates}
