"""Runs the server until Ctrl-C or a signal, which lets the current chunk finish."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from pavdm_cli.errors import UsageError
from pavdm_cli.runtime.signals import Stop, stop_requested
from pavdm_cli.serve.app import create_app
from pavdm_cli.serve.settings import ServeSettings

POLL = 0.1  # seconds between checks for a signal
GRACE = 3  # seconds for downloads that are under way


class Server(uvicorn.Server):
    """A server that ends when `stop` is true, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config, stop: Stop, app: FastAPI, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop, self._app, self._announce = stop, app, announce

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: signals are noted by `stop`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Print the server's address once it accepts connections."""
        await super().startup(sockets)
        if self.started:
            self._announce()
            self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while not self._stop():
            await asyncio.sleep(POLL)
        self._app.state.service.hub.close_all()  # streams have no end of their own
        self.should_exit = True


def open_socket(settings: ServeSettings) -> socket.socket:
    """The socket that the server listens on. Raises: UsageError."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"cannot listen on {settings.host} port {settings.port}: {reason}"
        raise UsageError(message, "choose another with --port, or --port 0") from None


def run_server(settings: ServeSettings, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Serve until a signal comes; announce: called once the server answers. Raises: OutputError."""
    app = create_app(settings)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE, lifespan="on")
    with stop_requested() as stop:
        Server(config, stop, app, announce).run(sockets=[listener])
