"""serve_model: start the ranking service, or answer one request without it."""

from __future__ import annotations

import gc
import socket
from typing import Any

from components.feature_store import OnlineReader
from components.serve_model.bodies import parse_rank
from components.serve_model.champion import HOLDBACK, Models, load_champion, on_trial
from components.serve_model.feature_rows import KEEP_SECONDS, FeatureRows
from components.serve_model.listening import listen
from components.serve_model.ranking import Ranking
from components.step import run_alone
from goalrank.errors import TryAgain, UsageError
from goalrank.schema import SMALLEST_ID

POLL_SECONDS = 5.0
EXPLORATION = 0.02
"""Default share of requests answered with a sampled list: data for tomorrow at a small price today."""


def serve(
    feast_uri: str,
    tracking_uri: str,
    logs_uri: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    exploration: float = EXPLORATION,
    seed: int = -1,
    holdback: float = HOLDBACK,
    poll_seconds: float = POLL_SECONDS,
    keep_seconds: float = KEEP_SECONDS,
    version: str = "",
) -> None:
    """Serve the champion until SIGINT or SIGTERM; then answer what is under way and write out the log.

    A new champion takes over while it serves. Prints where it listens, once it does.

    Args:
        feast_uri: folder of the feature store.
        tracking_uri: MLflow, whose alias `champion` names the model.
        logs_uri: folder of logs that what is served is written to.
        host, port: where to listen; port 0 takes a free one.
        exploration: share of requests answered with a sampled list, 0..1.
        seed: of exploration; a negative one is drawn.
        holdback: share of users answered by the version before the champion, 0..1.
        poll_seconds: how often the registry is asked for a new champion.
        keep_seconds: longest time a feature row is kept in memory; 0 reads every row for every batch.
        version: serve this one, but to the holdback, and follow nobody: a canary (components/promote_model/canary.py).

    Raises:
        UsageError: the port is taken, or exploration or holdback are no share.
        ModelRefused: nothing has been promoted yet.
        TryAgain: MLflow or the feature store is away.
    """
    import torch
    import uvicorn

    from components.serve_model.app import create_app
    from components.serve_model.connections import configured
    from components.serve_model.hot_swap import HotSwap, try_out
    from components.serve_model.metrics import Metrics
    from components.serve_model.served_log import ServedLog
    from components.serve_model.service import Service

    if not 0.0 <= holdback <= 1.0:
        raise UsageError(f"holdback is {holdback}, expected a share between 0 and 1")
    torch.set_num_threads(1)  # one core answers, batch by batch; more threads cost small matrices more than they bring
    listening = listen(host, port)
    try:
        features = FeatureRows(OnlineReader(feast_uri), keep_seconds)
        models = on_trial(tracking_uri, version, holdback) if version else _following(tracking_uri, holdback)
        ranking = Ranking(features, models, exploration, None if seed < 0 else seed)
        metrics = Metrics()
        metrics.trial.set(bool(version))
        swap = None
        if not version:
            swap = HotSwap(tracking_uri, ranking, metrics, poll_seconds)
            swap.look()  # the version before the champion, too, from the first request on
        try:
            log = ServedLog(logs_uri)
        except OSError as error:
            raise TryAgain(f"cannot write to the logs at {logs_uri} ({error}); free space or choose another") from error
        address = f"http://{host}:{listening.getsockname()[1]}"
        first = ranking.champion.version

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets=sockets)
                print(
                    f"{first.name} version {first.version} answers at {address} (POST /rank); Ctrl-C ends it",
                    flush=True,
                )

        # The first of everything is slow: let nobody wait for it.
        try_out(models.champion)
        features.gather([SMALLEST_ID], [[SMALLEST_ID]])
        # What was imported stays: else every full collection would stop the answers and walk through all of it.
        gc.collect()
        gc.freeze()
        Server(configured(create_app(Service(ranking, log, metrics, swap)))).run(sockets=[listening])
    finally:
        listening.close()


def rank_once(feast_uri: str, tracking_uri: str, request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request as the service would, without exploring and without logging it.

    A request without `request_id` is answered without one: nobody could come back to it.

    Raises:
        UsageError: the request is not valid.
        ModelRefused: nothing has been promoted yet.
        TryAgain: MLflow or the feature store is away.
    """
    import torch

    body = parse_rank(request)
    torch.set_num_threads(1)
    ranked = Ranking(FeatureRows(OnlineReader(feast_uri), read_seconds=60.0), load_champion(tracking_uri)).rank(body)
    return ({} if body.request_id is None else {"request_id": body.request_id}) | {
        "model_name": ranked.model_name,
        "model_version": ranked.model_version,
        "items": ranked.items,
        "fallback": ranked.fallback,
        "explored": ranked.explored,
    }


def _following(tracking_uri: str, holdback: float) -> Models:
    return Models(load_champion(tracking_uri), holdback=holdback)


if __name__ == "__main__":
    run_alone(serve)
