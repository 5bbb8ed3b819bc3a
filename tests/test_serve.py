"""`pavdm serve`: the API makes the videos of the command line, and they survive failures of the server."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.command import pavdm
from support.serving import BALL, QUICK, serving, submit, wait_for

from pavdm_cli.serve.live import LiveStream
from pavdm_cli.serve.worker import Worker
from pavdm_cli.video.metadata import read_metadata

WORDS = ("--seed", 7, "--steps", 6, "--warmup", 0, "--scale", 1, "--threads", 1, "--device", "cpu")
NIGHT = "at night"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(tmp_path_factory.mktemp("served")) as client:
        yield client


@pytest.fixture(scope="module")
def finished(client: TestClient) -> str:
    """A complete video of 34 frames, in two segments."""
    video_id = submit(client, frames=34)
    wait_for(client, video_id, "completed")
    return video_id


def folder(client: TestClient) -> Path:
    return client.app.state.service.settings.folder  # type: ignore[attr-defined, no-any-return]


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Server-sent events as pairs of name and data."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("event:")]
    return [(event.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for event, data in blocks]


def test_a_video_has_the_bytes_of_the_command_line(client: TestClient, finished: str, tmp_path: Path) -> None:
    assert pavdm("generate", BALL, "--frames", 34, *WORDS, "-o", tmp_path / "own.mp4").code == 0
    response = client.get(f"/v1/videos/{finished}/content")
    assert response.headers["content-type"] == "video/mp4"
    assert response.content == (tmp_path / "own.mp4").read_bytes()
    part = client.get(f"/v1/videos/{finished}/content", headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")


def test_a_video_has_the_fields_of_openai_and_more(client: TestClient, finished: str) -> None:
    video = client.get(f"/v1/videos/{finished}").json()
    expected = {"object": "video", "status": "completed", "state": "completed", "progress": 100, "model": "pocket"}
    assert video.items() >= expected.items()
    assert (video["seconds"], video["size"], video["error"], video["frames"]) == ("4.25", "96x64", None, 34)
    assert (video["fps"], video["render_fps"]) == (8, 0)


@pytest.mark.integration
def test_videos_are_listed_page_by_page(client: TestClient, finished: str) -> None:
    other = submit(client)
    wait_for(client, other, "completed")
    first = client.get("/v1/videos", params={"limit": 1}).json()
    assert (first["data"][0]["id"], first["has_more"], first["last_id"]) == (other, True, other)
    rest = client.get("/v1/videos", params={"after": other, "limit": 100}).json()
    assert finished in [video["id"] for video in rest["data"]]
    assert not rest["has_more"]


@pytest.mark.integration
def test_a_server_that_stops_continues_with_the_same_bytes(client: TestClient, finished: str, tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        video_id = submit(first, frames=34)
        assert wait_for(first, video_id, "rendering", frames=4)["frames"] < 34
    assert list(tmp_path.glob("*.state"))
    with serving(tmp_path) as second:
        wait_for(second, video_id, "completed")
        content = second.get(f"/v1/videos/{video_id}/content").content
    assert content == client.get(f"/v1/videos/{finished}/content").content


def test_a_new_prompt_gives_the_file_of_its_timeline(client: TestClient, tmp_path: Path) -> None:
    video_id = submit(client, frames=34)
    wait_for(client, video_id, "rendering", frames=4)
    assert client.post(f"/v1/videos/{video_id}/prompt", json={"prompt": NIGHT}).status_code == 202
    (change,) = wait_for(client, video_id, "completed")["timeline"]
    assert change["caption"].endswith("over green hills at night")
    assert 0 < change["at"] < 34 / 8
    command = ("generate", BALL, "--at", f"{change['at']}s: {NIGHT}", "--frames", 34, *WORDS)
    assert pavdm(*command, "-o", tmp_path / "own.mp4").code == 0
    assert client.get(f"/v1/videos/{video_id}/content").content == (tmp_path / "own.mp4").read_bytes()


@pytest.mark.integration
def test_a_paused_video_waits_and_then_has_the_same_bytes(client: TestClient, finished: str) -> None:
    video_id = submit(client, frames=34)
    wait_for(client, video_id, "rendering", frames=4)
    client.post(f"/v1/videos/{video_id}/pause")
    paused = wait_for(client, video_id, "paused")
    assert 4 <= paused["frames"] < 34
    other = submit(client)
    wait_for(client, other, "completed")
    assert client.get(f"/v1/videos/{video_id}").json()["state"] == "paused"
    assert client.get(f"/v1/videos/{video_id}/partial").content[4:8] == b"ftyp"
    assert client.post(f"/v1/videos/{video_id}/resume").status_code == 202
    wait_for(client, video_id, "completed")
    same = client.get(f"/v1/videos/{finished}/content").content
    assert client.get(f"/v1/videos/{video_id}/content").content == same


@pytest.mark.integration
def test_an_endless_video_is_complete_once_it_is_stopped(client: TestClient) -> None:
    video_id = submit(client, frames=None, seconds="forever")
    assert wait_for(client, video_id, "rendering", frames=4)["total_frames"] == 0
    client.post(f"/v1/videos/{video_id}/stop")
    video = wait_for(client, video_id, "completed")
    metadata = read_metadata(folder(client) / f"{video_id}.mp4")
    assert metadata
    assert (metadata["frames"], metadata["forever"]) == (video["frames"], True)


def test_the_live_stream_has_a_fragment_per_chunk_and_every_frame(client: TestClient) -> None:
    import av

    video_id = submit(client, frames=20)
    response = client.get(f"/v1/videos/{video_id}/stream")
    assert response.headers["content-type"].startswith('video/mp4; codecs="avc1.')
    assert response.content.count(b"moof") == 5
    with av.open(io.BytesIO(response.content)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([number / 8 for number in range(20)])


def test_events_tell_progress_and_the_end(client: TestClient) -> None:
    video_id = submit(client, frames=20)
    seen = events(client.get(f"/v1/videos/{video_id}/events").text)
    assert seen[0][0] == "video"
    last = [data for name, data in seen if name == "progress"][-1]
    assert (last["frames"], last["total"], last["fps"]) == (20, 20, 8)
    assert last["render_fps"] > 0
    assert seen[-1] == ("state", {"state": "completed", "error": ""})
    assert events(client.get(f"/v1/videos/{video_id}/events").text)[-1] == seen[-1]


def test_a_failure_of_the_live_encoder_leaves_the_file_alone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError("broken")

    monkeypatch.setattr(LiveStream, "_encode", fail)
    wait_for(client, submit(client), "completed")


@pytest.mark.integration
def test_an_image_and_a_video_that_are_sent_along_are_continued(client: TestClient, finished: str) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(picture, "png")
    options = json.dumps({"frames": 8, **QUICK})
    form = {"prompt": BALL, "options": options}
    image = client.post("/v1/videos", data=form, files={"input_reference": ("../../x.png", picture.getvalue())})
    assert wait_for(client, image.json()["id"], "completed")["frames"] == 8
    clip = client.get(f"/v1/videos/{finished}/content").content
    form["options"] = json.dumps({"frames": 4, "steps": 6, "threads": 1})
    video = client.post("/v1/videos", data=form, files={"input_reference": ("/etc/passwd", clip)})
    assert wait_for(client, video.json()["id"], "completed")["frames"] == 38
    assert {path.name for path in folder(client).iterdir()}.isdisjoint({"x.png", "passwd"})
    client.delete(f"/v1/videos/{video.json()['id']}")
    assert len(list((folder(client) / "uploads").iterdir())) == 1


@pytest.mark.integration
def test_extend_redo_and_remix_make_new_videos(client: TestClient, finished: str) -> None:
    before = client.get(f"/v1/videos/{finished}/content").content
    bodies = {
        "extend": {"frames": 4, "steps": 6, "threads": 1},
        "redo": {"from": "3.5s", "seed": 8},
        "remix": {"prompt": "a blue kite over the sea at night"},
    }
    videos = {kind: client.post(f"/v1/videos/{finished}/{kind}", json=body).json() for kind, body in bodies.items()}
    completed = {kind: wait_for(client, video["id"], "completed") for kind, video in videos.items()}
    assert [video["kind"] for video in completed.values()] == [*bodies]
    assert completed["extend"]["frames"] == 38
    assert (completed["remix"]["remixed_from_video_id"], completed["redo"]["source_video_id"]) == (finished, finished)
    metadata = read_metadata(folder(client) / f"{completed['remix']['id']}.mp4")
    assert metadata
    assert metadata["redo"][0]["prompt"] == bodies["remix"]["prompt"]
    assert client.get(f"/v1/videos/{finished}/content").content == before


@pytest.mark.integration
@pytest.mark.parametrize("prompt", ["a blue kite", None])
def test_a_note_says_that_the_transition_to_a_new_prompt_may_be_visible(
    client: TestClient, finished: str, prompt: str | None
) -> None:
    body = {"from": "0s", "to": "1s", "prompt": prompt, "seed": 8}
    notes = client.post(f"/v1/videos/{finished}/redo", json=body).json()["notes"]
    assert any("the transition at the end of the span may be visible" in note for note in notes) == (prompt is not None)


@pytest.mark.integration
def test_a_deleted_video_leaves_no_file(client: TestClient) -> None:
    video_id = submit(client, frames=34)
    wait_for(client, video_id, "rendering", frames=4)
    body = {"id": video_id, "object": "video.deleted", "deleted": True}
    assert client.delete(f"/v1/videos/{video_id}").json() == body
    assert client.get(f"/v1/videos/{video_id}").status_code == 404
    wait_for(client, submit(client), "completed")  # by then the worker has left the other
    assert not list(folder(client).glob(f"{video_id}*"))


@pytest.mark.integration
def test_a_video_that_another_one_needs_is_not_deleted(client: TestClient, finished: str) -> None:
    extended = client.post(f"/v1/videos/{finished}/extend", json={"frames": 4, "steps": 6, "threads": 1}).json()["id"]
    response = client.delete(f"/v1/videos/{finished}")
    wait_for(client, extended, "completed")
    assert response.status_code == 409


def test_a_second_server_does_not_use_the_folder(client: TestClient) -> None:
    from pavdm_cli.errors import OutputError

    with pytest.raises(OutputError, match="another server uses"), serving(folder(client)):
        pass


def test_a_full_queue_rejects_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_claim", lambda worker: None)
    with serving(tmp_path, max_queue=2) as client:
        submit(client)
        submit(client)
        response = client.post("/v1/videos", json={"prompt": BALL})
        assert (response.status_code, response.headers["retry-after"]) == (429, "60")
        assert client.get("/healthz").json()["waiting"] == 2


def test_a_failed_video_says_why_and_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pavdm_cli.errors import DeviceError
    from pavdm_cli.serve import worker

    plain, tries = worker.render, []

    def render(*args: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise DeviceError("the device failed", "another one")
        return plain(*args)

    monkeypatch.setattr(worker, "render", render)
    with serving(tmp_path) as client:
        video_id = submit(client)
        while (video := client.get(f"/v1/videos/{video_id}").json())["status"] != "failed":
            time.sleep(0.02)
        assert video["error"] == {"code": "render_failed", "message": "the device failed; another one"}
        client.post(f"/v1/videos/{video_id}/resume")
        assert wait_for(client, video_id, "completed", "queued", "rendering")["error"] is None
        wait_for(client, video_id, "completed")


def test_the_database_is_readable_by_others(client: TestClient, finished: str) -> None:
    with sqlite3.connect(f"file:{folder(client)}/videos.sqlite?mode=ro", uri=True) as database:
        rows = database.execute("SELECT state FROM videos WHERE id = ?", (finished,)).fetchall()
    assert rows == [("completed",)]
