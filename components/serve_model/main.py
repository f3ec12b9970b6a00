"""serve_model: start the ranking service, or answer one request without it."""

from __future__ import annotations

import socket
from typing import Any

from components.feature_store import open_store
from components.serve_model.bodies import parse_rank
from components.serve_model.champion import load_champion
from components.serve_model.ranking import Ranking
from components.step import run_alone
from goalrank.errors import TryAgain, UsageError

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
) -> None:
    """Serve the champion until SIGINT or SIGTERM; then answer what is under way and write out the log.

    Prints where it listens, once it does.

    Args:
        feast_uri: folder of the feature store.
        tracking_uri: MLflow, whose alias `champion` names the model.
        logs_uri: folder of logs that what is served is written to.
        host, port: where to listen; port 0 takes a free one.
        exploration: share of requests answered with a sampled list, 0..1.
        seed: of exploration; a negative one is drawn.

    Raises:
        UsageError: the port is taken, or exploration is no share.
        ModelRefused: nothing has been promoted yet.
        TryAgain: MLflow or the feature store is away.
    """
    import torch
    import uvicorn

    from components.serve_model.app import create_app
    from components.serve_model.served_log import ServedLog

    torch.set_num_threads(1)  # requests run side by side; each on one core
    listening = _listen(host, port)
    try:
        ranking = Ranking(open_store(feast_uri), load_champion(tracking_uri), exploration, None if seed < 0 else seed)
        try:
            log = ServedLog(logs_uri)
        except OSError as error:
            raise TryAgain(f"cannot write to the logs at {logs_uri} ({error}); free space or choose another") from error
        address = f"http://{host}:{listening.getsockname()[1]}"
        version = ranking.champion.version

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets=sockets)
                print(
                    f"{version.name} version {version.version} answers at {address} (POST /rank); Ctrl-C ends it",
                    flush=True,
                )

        config = uvicorn.Config(
            create_app(ranking, log), log_level="warning", access_log=False, timeout_graceful_shutdown=10
        )
        Server(config).run(sockets=[listening])
    finally:
        listening.close()


def rank_once(feast_uri: str, tracking_uri: str, request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request as the service would, without exploring and without logging it.

    Raises:
        UsageError: the request is not valid.
        ModelRefused: nothing has been promoted yet.
        TryAgain: MLflow or the feature store is away.
    """
    import torch

    body = parse_rank(request)
    torch.set_num_threads(1)
    ranked = Ranking(open_store(feast_uri), load_champion(tracking_uri)).rank(body)
    return {
        "request_id": body.request_id,
        "model_name": ranked.model_name,
        "model_version": ranked.model_version,
        "items": ranked.items,
        "fallback": ranked.fallback,
        "explored": ranked.explored,
    }


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port} ({error}); choose another with --port or --host") from error
    return listening


if __name__ == "__main__":
    run_alone(serve)
