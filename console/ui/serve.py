"""`goalrank ui`, but for its flags: listen, say where, open a browser, run until interrupted."""

from __future__ import annotations

import contextlib
import socket
import webbrowser

from components.serve_model.listening import listen
from console.command import stderr
from console.settings import Settings
from console.ui.app import EVERYWHERE, LOOPBACK, create_app
from console.ui.playground import Playground
from console.workspace import Workspace


def serve(settings: Settings, host: str, port: int, open_browser: bool) -> None:
    """Serve until SIGINT or SIGTERM. Prints the address once it listens.

    Args:
        port: 0 takes a free one.
        open_browser: show the first page in the person's browser.

    Raises:
        UsageError: the workspace is of another release or was moved, or the port is taken.
    """
    import uvicorn

    Workspace(settings.workspace).logs()
    listening = listen(host, port)
    try:
        if host not in LOOPBACK:
            stderr.print(
                f"[yellow]Anybody who reaches {host} can read reports and titles: there is no password.[/]",
                soft_wrap=True,
            )
        shown = "127.0.0.1" if host in EVERYWHERE else host
        shown = f"[{shown}]" if ":" in shown else shown
        address = f"http://{shown}:{listening.getsockname()[1]}"
        played = Playground(settings)

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets=sockets)
                print(f"Nights and playground at {address}; Ctrl-C ends it", flush=True)
                played.start()
                if open_browser:
                    webbrowser.open(address)

        config = uvicorn.Config(
            create_app(settings, played, host),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
        )
        with contextlib.suppress(KeyboardInterrupt):
            Server(config).run(sockets=[listening])
    finally:
        listening.close()
