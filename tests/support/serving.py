"""A server of `pavdm serve` in this process, and requests that take little time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from pavdm_cli.serve.app import create_app
from pavdm_cli.serve.settings import ServeSettings

QUICK = {"steps": 6, "warmup": 0, "scale": 1, "threads": 1, "seed": 7}
BALL = "a red ball over green hills at noon"
HOST = "http://127.0.0.1:8420"


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[TestClient]:
    """A client of a server that renders into a folder."""
    app = create_app(ServeSettings(folder, device="cpu", **settings), preload=False)
    with TestClient(app, base_url=HOST) as client:
        yield client


@contextmanager
def listening(folder: Path) -> Iterator[str]:
    """The address of a server on a port of its own."""
    app = create_app(ServeSettings(folder, device="cpu", port=0))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    app.state.service.hub.close_all()
    server.should_exit = True
    thread.join()


def submit(client: TestClient, **fields: Any) -> str:
    """Queue a video and return its id."""
    response = client.post("/v1/videos", json={"prompt": BALL, "frames": 8} | QUICK | fields)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def wait_for(client: TestClient, video_id: str, *states: str, frames: int = 0) -> dict[str, Any]:
    """The video once it is in one of some states and has this many frames."""
    deadline = time.monotonic() + 60
    while True:
        video: dict[str, Any] = client.get(f"/v1/videos/{video_id}").json()
        if video["state"] in states and video["frames"] >= frames:
            return video
        assert video["state"] != "failed", video["error"]
        assert time.monotonic() < deadline, video
        time.sleep(0.02)
