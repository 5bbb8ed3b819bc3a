"""`pavdm serve`: watch and steer videos in a browser, or render them through an HTTP API."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from pavdm_cli import ui
from pavdm_cli.commands import execution_options
from pavdm_cli.errors import PavdmError, UsageError

PACKAGES = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python-multipart": "python_multipart"}
MIN_TOKEN = 16  # characters
Threads = Annotated[
    int,
    typer.Option(
        min=0,
        max=execution_options.MAX_THREADS,
        help="CPU threads per video, unless the request sets them; 0: all cores but one.",
        rich_help_panel=execution_options.RUN_PANEL,
    ),
]


def serve(
    directory: Annotated[
        Path, typer.Option("--output-dir", "-d", help="Folder of the videos and the queue; created if missing.")
    ] = Path("pavdm-videos"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; any address other than loopback requires a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8420,
    token: Annotated[
        str, typer.Option(help="Token required on every request; default: none on loopback, a new one elsewhere.")
    ] = "",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Additional accepted Host header, such as a reverse proxy's name; repeatable."
        ),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page in a browser.")] = False,
    device: execution_options.Device = "auto",
    threads: Threads = 0,
    max_queue: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of queued videos.")] = 256,
    max_upload: Annotated[int, typer.Option(min=1, max=4096, metavar="MB", help="Largest upload.")] = 64,
) -> None:
    """Serve a web page for watching and steering videos during generation, and an HTTP API.

    The API is compatible with OpenAI's video API (POST /v1/videos). Videos and the queue are in a folder: after a
    crash or a restart, rendering continues with the same bytes. Ctrl-C stops after the current chunk.
    """
    check_installed()
    from pavdm_cli.serve.run import open_socket, run_server
    from pavdm_cli.serve.settings import ServeSettings, is_loopback, new_token

    if token and len(token) < MIN_TOKEN:
        raise UsageError(f"--token must have at least {MIN_TOKEN} characters", "omit it for a random one")
    token = token or ("" if is_loopback(host) else new_token())
    names, limit = frozenset(allow_host or ()), max_upload << 20
    server = ServeSettings(directory.absolute(), host, port, token, names, device, max_queue, limit, threads)
    listener = open_socket(server)
    address = _address(host, listener.getsockname()[1], token)

    def announce() -> None:
        print(address, flush=True)
        ui.info("Ctrl-C stops")
        if not no_browser:
            _open_browser(address)

    run_server(server, listener, announce)
    ui.info("stopped; unfinished videos continue at the next start")


def _address(host: str, port: int, token: str) -> str:
    """The address of the page, which takes the token from it."""
    return f"http://{_name(host)}:{port}/" + (f"?token={quote(token, safe='')}" if token else "")


def _open_browser(address: str) -> None:
    """Open the page, without waiting: a text browser runs until its user leaves it."""
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _name(host: str) -> str:
    """A host in an address."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{name}]" if ":" in name else name


def check_installed() -> None:
    """Fail early if the packages of the extra `serve` are missing. Raises: PavdmError."""
    from pavdm_cli.runtime.install_hints import install_command

    if missing := [package for package, module in PACKAGES.items() if find_spec(module) is None]:
        raise PavdmError(f"serve needs {', '.join(missing)}", install_command("serve"))
