"""The worker of `pavdm serve` survives faults, and followers of a video miss no change of its state."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from support.serving import HOST, serving, submit, wait_for

from pavdm_cli.batch.render import ModelCache
from pavdm_cli.errors import OutputError
from pavdm_cli.serve import worker
from pavdm_cli.serve.app import create_app
from pavdm_cli.serve.routes.streams import Transcode, _events
from pavdm_cli.serve.settings import ServeSettings
from pavdm_cli.serve.store import Store
from pavdm_cli.serve.worker import Worker


def failing(function: Callable[..., Any], error: Exception, times: int) -> Callable[..., Any]:
    """The function, whose first calls raise an error."""
    errors = [error] * times

    def call(*args: Any, **values: Any) -> Any:
        if errors:
            raise errors.pop()
        return function(*args, **values)

    return call


@pytest.mark.parametrize("method", ["next_to_render", "get"])
def test_a_database_that_cannot_be_used_for_a_moment_stops_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(worker, "RETRY_INTERVAL", 0.01)
    with serving(tmp_path) as client:
        full = sqlite3.OperationalError("database or disk is full")
        broken = client.app.state.service.worker.store = Store(tmp_path)  # type: ignore[attr-defined]
        monkeypatch.setattr(broken, method, failing(getattr(broken, method), full, 3))
        wait_for(client, submit(client), "completed")
        assert client.get("/healthz").status_code == 200
        broken.close()


def test_a_video_is_rendered_although_preloading_the_model_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unexpected = RuntimeError("partially initialized module")
    opened = failing(ModelCache.open, unexpected, 1)
    monkeypatch.setattr(ModelCache, "open", lambda models, config: opened(models, config))
    with TestClient(create_app(ServeSettings(tmp_path, device="cpu")), base_url=HOST) as client:
        wait_for(client, submit(client), "completed")


def test_followers_of_a_video_get_its_state_and_every_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the state changed after the request came, and newer events than that change have been published."""
    monkeypatch.setattr(Worker, "_claim", lambda worker: None)
    with serving(tmp_path) as client:
        video_id, service = submit(client), client.app.state.service  # type: ignore[attr-defined]
        record, session = service.store.get(video_id), service.hub.open(video_id)

        def change(state: str) -> None:
            service.store.update(video_id, state=state)
            session.publish("state", state=state)
            session.publish("progress", frames=8)

        async def follow() -> list[str]:
            change("rendering")
            events = _events(record, session, service)
            first = await anext(events)
            change("paused")
            return [str(first), *[str(await anext(events)) for _ in range(3)]]

        first, *later = asyncio.run(follow())
        assert first.startswith("event: video")
        assert '"state":"rendering"' in first
        assert ["progress" in later[0], '"paused"' in later[1], "progress" in later[2]] == [True] * 3


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), OSError(28, "No space left")])
def test_a_full_disk_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(Worker, "_claim", lambda worker: None)
    with serving(tmp_path) as client:
        monkeypatch.setattr(Store, "add", failing(Store.add, error, 1))
        response = client.post("/v1/videos", json={"prompt": "a red ball"})
        assert response.status_code == 507
        assert "the server's folder cannot be used: " in response.json()["error"]["message"]
        assert response.headers["x-content-type-options"] == "nosniff"


def test_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "videos.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(OutputError, match=r"cannot use .*videos\.sqlite"):
        create_app(ServeSettings(tmp_path, device="cpu"))


def test_an_endless_continuation_that_is_stopped_early_has_a_new_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, is_open = Worker._claim, threading.Event()
    monkeypatch.setattr(Worker, "_claim", lambda worker: claim(worker) if is_open.is_set() else None)
    with serving(tmp_path) as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        is_open.set()
        source = submit(client)
        wait_for(client, source, "completed")
        is_open.clear()
        body = {"seconds": "forever", "steps": 6, "threads": 1, "seed": 7}
        response = client.post(f"/v1/videos/{source}/extend", json=body)
        assert response.status_code == 200, response.text
        video_id = response.json()["id"]
        assert client.post(f"/v1/videos/{video_id}/stop").status_code == 202
        is_open.set()
        service.worker.wake()
        video = wait_for(client, video_id, "completed")
        assert video["frames"] > 8


@pytest.mark.parametrize("error", [None, OSError("the viewer has left")])
def test_a_conversion_ends_however_its_viewer_leaves(error: Exception | None) -> None:
    slots, sent = threading.Semaphore(0), []

    async def send(message: Any) -> None:
        if error:
            raise error
        sent.append(message)

    async def receive() -> dict[str, str]:
        await asyncio.sleep(10)
        return {"type": "http.disconnect"}

    response = Transcode(iter([b"a", b"b"]), slots)
    scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
    with suppress(ClientDisconnect):
        asyncio.run(response(scope, receive, send))
    assert slots.acquire(blocking=False)
    assert b"".join(message.get("body", b"") for message in sent) == (b"" if error else b"ab")
