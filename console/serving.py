"""`goalrank serve` and `goalrank rank`: the ranking service of the workspace's champion."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from console.settings import Settings
from console.workspace import Workspace, arrival_days
from goalrank.errors import UsageError


def serve(settings: Settings) -> None:
    """Serve until interrupted; what is served is logged in WORKSPACE/served, in the logs' own contract.

    A folder of its own: the partitions a night has read are closed, and a world's logs are the world's.

    Raises:
        GoalRankError: as components.serve_model.main.serve.
    """
    from components.serve_model.main import serve as run

    with suppress(KeyboardInterrupt):  # the server has ended gracefully and passes on what ended it
        run(
            settings.feast_uri,
            settings.tracking_uri,
            str(settings.workspace / "served"),
            settings.host,
            settings.port,
            settings.exploration,
        )


def rank(settings: Settings, text: str | None) -> str:
    """Rank one request (JSON text; None: a logged one) and return the answer as JSON.

    Raises:
        UsageError: the text is no JSON object, or there is no logged request.
    """
    from components.serve_model.main import rank_once

    request = _example(settings) if text is None else _parsed(text)
    return json.dumps(rank_once(settings.feast_uri, settings.tracking_uri, request))


def _parsed(text: str) -> dict[str, object]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is not JSON ({error}); expected an object with user_id and candidates") from None
    if not isinstance(request, dict):
        raise UsageError(f"the request is a {type(request).__name__}, expected an object with user_id and candidates")
    return request


def _example(settings: Settings) -> dict[str, object]:
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
    return {"user_id": row["user_id"], "candidates": candidates}
