"""The worker of `pavdm serve` survives faults, and followers of a video miss no change of its state."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.serving import HOST, serving, submit, wait_for

from pavdm_cli.batch.render import ModelCache
from pavdm_cli.serve import worker
from pavdm_cli.serve.app import create_app
from pavdm_cli.serve.routes.streams import _events
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
