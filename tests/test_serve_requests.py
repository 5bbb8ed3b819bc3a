"""What `pavdm serve` makes of the fields of a request, and what its answers say about the video."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.command import pavdm
from support.serving import BALL, serving

from pavdm_cli.errors import UsageError
from pavdm_cli.serve.jobs import create_job, extend_job
from pavdm_cli.serve.schemas import CreateVideo, ExtendVideo
from pavdm_cli.serve.settings import ServeSettings
from pavdm_cli.serve.worker import Worker, request_of
from pavdm_cli.video import VideoWriter


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that accepts videos and renders none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "_claim", lambda worker: None)
        with serving(tmp_path_factory.mktemp("requests")) as client:
            yield client


def shape(client: TestClient, video: dict[str, Any]) -> tuple[tuple[int, int], int, int]:
    """Height and width of the model's frames of a queued video, their rate, and the upscaling."""
    service = client.app.state.service  # type: ignore[attr-defined]
    request = request_of(service.store.get(video["id"]), service.settings)
    return request.spec.size, request.spec.fps, request.output.resolve_scale(request.spec)


SIZES: list[tuple[dict[str, Any], str, tuple[int, int]]] = [  # fields, size of the file, height and width of the model
    ({}, "384x256", (64, 96)),
    ({"size": "384x256"}, "384x256", (64, 96)),
    ({"size": "192x128"}, "192x128", (128, 192)),
    ({"size": "96x64"}, "96x64", (64, 96)),
    ({"size": "384x256", "scale": 4}, "384x256", (64, 96)),
    ({"size": "384x256", "scale": 2}, "384x256", (128, 192)),
    ({"scale": 1}, "96x64", (64, 96)),
    ({"model": "wan2.2-ti2v-5b", "size": "720p"}, "1280x704", (704, 1280)),
]


@pytest.mark.parametrize(("fields", "size", "model_size"), SIZES)
def test_the_size_of_an_answer_gives_the_same_video(
    fields: dict[str, Any],
    size: str,
    model_size: tuple[int, int],
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pavdm_cli.serve.jobs.require_weights", lambda *arguments: None)
    body = {"prompt": BALL, "seed": 7, "frames": 8} | fields
    first = client.post("/v1/videos", json=body).json()
    assert (first["size"], shape(client, first)[0]) == (size, model_size)
    for names in (("size",), ("size", "scale", "fps")):
        again = client.post("/v1/videos", json=body | {name: first[name] for name in names}).json()
        assert again["size"] == size
        assert shape(client, again) == shape(client, first)


def test_a_size_that_the_model_cannot_make_is_refused(client: TestClient) -> None:
    for fields, text in (
        ({"size": "96x64", "scale": 4}, "4 times that of the model's frames: pocket supports 192x128 or 96x64"),
        ({"size": "95x64", "scale": 2}, "not a multiple"),
        ({"size": "96x64", "scale": 0}, "must be 1 to 8"),
    ):
        response = client.post("/v1/videos", json={"prompt": BALL} | fields)
        assert (response.status_code, text in response.json()["error"]["message"]) == (400, True), response.text


def test_a_continuation_keeps_the_size_and_frame_rate_of_its_video(tmp_path: Path) -> None:
    source = tmp_path / "v.mp4"
    with VideoWriter(source, 120, 80, Fraction(30)) as writer:
        writer.write(np.zeros((30, 80, 120, 3), np.uint8))
    settings = ServeSettings(tmp_path, device="cpu")
    plain = extend_job(ExtendVideo(prompt=BALL, seconds=1, seed=7), settings, source)
    assert (plain.size, plain.fps, plain.total) == ("120x80", 30, 60)
    same = extend_job(ExtendVideo(prompt=BALL, seconds=1, seed=7, size=plain.size, fps=plain.fps), settings, source)
    assert json.loads(same.request) == json.loads(plain.request)
    small = extend_job(ExtendVideo(prompt=BALL, seed=7, model_size="192x128", model_fps=16), settings, source)
    assert (json.loads(small.request)["size"], json.loads(small.request)["fps"]) == ([128, 192], 16)
    with pytest.raises(UsageError, match="has the size of its video, 120x80, got 96x64"):
        extend_job(ExtendVideo(prompt=BALL, size="96x64"), settings, source)
    with pytest.raises(UsageError, match="30 frames/s, got 8"):
        extend_job(ExtendVideo(prompt=BALL, fps=8), settings, source)


def test_a_database_without_newer_columns_is_still_read(tmp_path: Path) -> None:
    with serving(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "videos.sqlite") as database:
        database.execute("ALTER TABLE videos DROP COLUMN size")
    database.close()
    with serving(tmp_path) as client:
        assert client.post("/v1/videos", json={"prompt": BALL, "frames": 2}).json()["size"] == "384x256"


def test_the_servers_threads_are_those_of_requests_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pavdm_cli.serve.settings", "pavdm_cli.runtime.threads"):
        monkeypatch.setattr(f"{module}.available_cores", lambda: 8)
    servers: list[ServeSettings] = []

    def run_server(settings: ServeSettings, listener: socket.socket, announce: object) -> None:
        listener.close()
        servers.append(settings)

    monkeypatch.setattr("pavdm_cli.serve.run.run_server", run_server)
    for words in ((), ("--threads", 3), ("--threads", 100)):
        assert pavdm("serve", "--no-browser", "--port", 0, "-d", tmp_path, "--device", "cpu", *words).code == 0
    used = []
    for settings in servers:
        for body in (CreateVideo(prompt=BALL), CreateVideo(prompt=BALL, threads=2)):
            used.append(json.loads(create_job(body, settings).request)["execution"]["threads"])
    assert used == [7, 2, 3, 2, 8, 2]


def test_answers_have_the_caption_and_the_notes_of_the_prompts(client: TestClient) -> None:
    timeline = [{"at": "2s", "prompt": "at night, with a unicorn"}]
    body = {"prompt": "a green boat and a zebra", "seconds": 4, "seed": 7, "method": "rw", "timeline": timeline}
    video = client.post("/v1/videos", json=body).json()
    assert video["caption"].startswith("a green boat ")
    assert video["timeline"][0]["caption"].endswith(" at night")
    for text in (
        "zebra",
        f'filled in from the seed: "{video["caption"]}"',
        "at 2s: pocket does not know: unicorn",
        "rw is",
    ):
        assert any(text in note for note in video["notes"]), (text, video["notes"])
    assert len({*video["notes"]}) == len(video["notes"])
    assert client.get(f"/v1/videos/{video['id']}").json()["notes"] == video["notes"]


def test_a_continuation_notes_what_it_sees(tmp_path: Path) -> None:
    source = tmp_path / "v.mp4"
    with VideoWriter(source, 36, 64, Fraction(8)) as writer:
        writer.write(np.zeros((3, 64, 36, 3), np.uint8))
    record = extend_job(ExtendVideo(prompt=BALL, seconds=1), ServeSettings(tmp_path, device="cpu"), source)
    assert "sees only the center" in record.notes
    assert "knows only its own rendered world" in record.notes
