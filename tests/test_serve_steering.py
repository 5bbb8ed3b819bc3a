"""A new prompt in `pavdm serve` changes continuations and videos from images too; feeds and pacing; a killed server."""

from __future__ import annotations

import asyncio
import io
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.command import pavdm
from support.processes import start
from support.serving import BALL, QUICK, serving, submit, wait_for

from pavdm_cli.serve.feed import Feed
from pavdm_cli.serve.live import LEAD, Pacing

NIGHT = "at night"
WORDS = ("--seed", 7, "--steps", 6, "--threads", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(tmp_path_factory.mktemp("steered")) as client:
        yield client


def steer(client: TestClient, video_id: str, frames: int) -> str:
    """Change the prompt after some frames; the change as an option of the command line."""
    wait_for(client, video_id, "rendering", frames=frames)
    assert client.post(f"/v1/videos/{video_id}/prompt", json={"prompt": NIGHT}).status_code == 202
    (change,) = wait_for(client, video_id, "completed")["timeline"]
    return f"{change['at']}s: {NIGHT}"


@pytest.mark.integration
def test_a_steered_continuation_has_the_bytes_of_its_timeline(client: TestClient, tmp_path: Path) -> None:
    source = submit(client, frames=16)
    wait_for(client, source, "completed")
    body = {"frames": 34, "steps": 6, "threads": 1, "seed": 7}
    video_id = client.post(f"/v1/videos/{source}/extend", json=body).json()["id"]
    change = steer(client, video_id, 20)
    path = client.app.state.service.settings.path(f"{source}.mp4")  # type: ignore[attr-defined]
    assert pavdm("extend", path, "--frames", 34, "--at", change, *WORDS, "-o", tmp_path / "own.mp4").code == 0
    assert client.get(f"/v1/videos/{video_id}/content").content == (tmp_path / "own.mp4").read_bytes()


@pytest.mark.integration
def test_a_steered_video_from_an_image_has_the_frames_of_its_timeline(client: TestClient, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(picture, "png")
    form = {"prompt": BALL, "options": json.dumps({"frames": 34, **QUICK})}
    created = client.post("/v1/videos", data=form, files={"input_reference": ("x.png", picture.getvalue())})
    video_id = created.json()["id"]
    change = steer(client, video_id, 4)
    folder = client.app.state.service.settings.folder  # type: ignore[attr-defined]
    (image,) = (folder / "uploads").iterdir()
    command = ("generate", BALL, "--image", image, "--frames", 34, "--scale", 1, "--at", change, *WORDS)
    assert pavdm(*command, "-o", tmp_path / "own.mp4").code == 0
    assert client.get(f"/v1/videos/{video_id}/content").content == (tmp_path / "own.mp4").read_bytes()


@pytest.mark.integration
def test_a_prompt_before_the_first_chunk_is_the_first_prompt(client: TestClient) -> None:
    before = submit(client, frames=16)
    video_id = submit(client)
    client.post(f"/v1/videos/{video_id}/prompt", json={"prompt": "a blue kite"})
    video = wait_for(client, video_id, "completed")
    assert (video["prompt"], video["timeline"]) == ("a blue kite", [])
    wait_for(client, before, "completed")


@pytest.mark.integration
def test_a_prompt_that_comes_too_late_is_told_and_changes_nothing(client: TestClient) -> None:
    plain, video_id = submit(client, frames=12), submit(client, frames=12)
    wait_for(client, video_id, "rendering", frames=4)
    response = client.post(f"/v1/videos/{video_id}/prompt", json={"prompt": NIGHT})
    video = wait_for(client, video_id, "completed")
    assert (response.status_code, video["timeline"]) == (202, [])
    contents = [client.get(f"/v1/videos/{id_}/content").content for id_ in (plain, video_id)]
    assert contents[0] == contents[1]


async def collect(feed: Feed, **options: Any) -> list[bytes | None]:
    return [item async for item in feed.follow(**options)]


def test_a_slow_follower_misses_the_oldest_items_and_memory_is_bounded() -> None:
    feed = Feed(max_items=3, max_bytes=100)
    for number in range(9):
        feed.publish(b"%d" % number)
    feed.close()
    assert asyncio.run(collect(feed)) == [b"6", b"7", b"8"]
    assert asyncio.run(collect(feed, position=feed.latest)) == [b"8"]
    feed.publish(b"x" * 100)
    assert asyncio.run(collect(feed)) == [b"x" * 100]


def test_followers_get_what_a_thread_publishes_later() -> None:
    feed = Feed(10, 100)

    async def follow() -> list[list[bytes | None]]:
        followers = [asyncio.create_task(collect(feed)) for _ in range(20)]
        await asyncio.sleep(0.01)
        await asyncio.to_thread(feed.publish, b"a")
        await asyncio.to_thread(feed.close)
        return await asyncio.gather(*followers)

    assert asyncio.run(follow()) == [[b"a"]] * 20


def test_a_live_render_is_at_most_the_lead_ahead_and_never_catches_up_in_a_rush() -> None:
    now, waits = [0.0], list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    pacing = Pacing(wait, lambda: now[0])
    for seconds in range(11):
        pacing.hold(seconds)
    assert sum(waits) == pytest.approx(10 - LEAD)
    now[0] += 100  # the render was paused
    waits.clear()
    for seconds in range(11, 21):
        pacing.hold(seconds)
    assert sum(waits) == pytest.approx(9 - LEAD)


def request(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    http_request = urllib.request.Request(address + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(http_request, timeout=60) as response:
        return json.load(response)


@pytest.mark.integration
def test_a_killed_server_continues_with_the_bytes_of_the_command_line(tmp_path: Path) -> None:
    server = ("serve", "--no-browser", "--port", 0, "-d", "served", "--device", "cpu")
    process = start(*server, cwd=tmp_path)
    assert process.stdout
    address = process.stdout.readline().strip()
    body = {"prompt": BALL, "frames": 66, "size": "96x64", "fps": 8, **QUICK}
    video_id = request(address, "v1/videos", body)["id"]
    while request(address, f"v1/videos/{video_id}")["frames"] < 30:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    process = start(*server, cwd=tmp_path)
    assert process.stdout
    address = process.stdout.readline().strip()
    while request(address, f"v1/videos/{video_id}")["state"] != "completed":
        time.sleep(0.05)
    process.terminate()
    assert (process.communicate()[1].splitlines()[-1][:7], process.returncode) == ("stopped", 0)
    words = (*WORDS, "--warmup", 0, "--scale", 1, "--frames", 66)
    assert pavdm("generate", BALL, *words, "-o", tmp_path / "own.mp4").code == 0
    assert (tmp_path / "served" / f"{video_id}.mp4").read_bytes() == (tmp_path / "own.mp4").read_bytes()
