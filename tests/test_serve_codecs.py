"""Streams and files for browsers and servers without H.264."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from starlette.testclient import TestClient
from support.serving import serving, submit, wait_for

from pavdm_cli.generation.decode import RenderedChunk
from pavdm_cli.generation.request import build_request
from pavdm_cli.serve import live
from pavdm_cli.serve.service import MAX_TRANSCODES
from pavdm_cli.serve.transcode import transcode
from pavdm_cli.serve.worker import Worker
from pavdm_cli.video import VideoWriter
from pavdm_cli.video.write.encode import can_encode

VP9 = 'video/webm; codecs="vp9"'


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(tmp_path_factory.mktemp("codecs")) as client:
        yield client


def decode(data: bytes) -> tuple[str, list[float], np.ndarray]:
    """Codec, times and the mean of each frame."""
    with av.open(io.BytesIO(data)) as container:
        name = container.streams.video[0].codec_context.name
        frames = [*container.decode(video=0)]
    levels = np.array([frame.to_ndarray(format="gray").mean() for frame in frames])
    return name, [float(frame.time or 0) for frame in frames], levels


@pytest.mark.integration
def test_a_live_stream_in_vp9_has_every_frame(client: TestClient) -> None:
    before, video_id = submit(client, frames=16), submit(client, frames=20)  # it is asked for before it is rendered
    response = client.get(f"/v1/videos/{video_id}/stream", params={"codec": "vp9"})
    assert response.headers["content-type"] == VP9
    name, times, _ = decode(response.content)
    assert (name, times) == ("vp9", pytest.approx([number / 8 for number in range(20)], abs=0.001))
    wait_for(client, before, "completed")


def test_a_stored_video_is_converted_to_vp9(client: TestClient) -> None:
    video_id = submit(client, frames=20)
    wait_for(client, video_id, "completed")
    response = client.get(f"/v1/videos/{video_id}/partial", params={"codec": "vp9"})
    assert response.headers["content-type"] == VP9
    name, times, levels = decode(response.content)
    _, own_times, own_levels = decode(client.get(f"/v1/videos/{video_id}/content").content)
    assert (name, times) == ("vp9", pytest.approx(own_times, abs=0.001))
    assert levels == pytest.approx(own_levels, abs=3)


def test_irregular_times_are_converted_too(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with VideoWriter(path, 64, 48, Fraction(30)) as writer:
        for time in (0, 1, 2, 9, 10):
            writer.append(np.full((48, 64, 3), 10 * time, np.uint8), time)
    name, times, _ = decode(b"".join(transcode(path)))
    assert (name, times) == ("vp9", pytest.approx([0, 0.033, 0.067, 0.3, 0.333], abs=0.0011))


@pytest.mark.integration
def test_few_videos_are_converted_at_a_time(client: TestClient) -> None:
    video_id = submit(client)
    wait_for(client, video_id, "completed")
    transcodes = client.app.state.service.transcodes  # type: ignore[attr-defined]
    for _ in range(MAX_TRANSCODES + 1):  # a response that has ended makes room for the next one
        assert client.get(f"/v1/videos/{video_id}/partial", params={"codec": "vp9"}).status_code == 200
    for _ in range(MAX_TRANSCODES):
        transcodes.acquire()
    response = client.get(f"/v1/videos/{video_id}/partial", params={"codec": "vp9"})
    transcodes.release(MAX_TRANSCODES)
    assert (response.status_code, response.headers["retry-after"]) == (503, "10")


@pytest.mark.integration
def test_a_server_without_h264_renders_webm(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "can_encode", lambda encoder: encoder != "libx264" and can_encode(encoder))
    video_id = submit(client)
    video = wait_for(client, video_id, "completed")
    assert video["media_type"] == "video/webm"
    assert decode(client.get(f"/v1/videos/{video_id}/content").content)[0] == "vp9"


def test_a_codec_that_the_server_lacks_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "can_encode", lambda encoder: encoder != "libx264" and can_encode(encoder))
    monkeypatch.setattr(Worker, "_claim", lambda worker: None)
    with serving(tmp_path) as client:
        response = client.get(f"/v1/videos/{submit(client)}/stream", params={"codec": "h264"})
    assert (response.status_code, "cannot encode h264" in response.json()["error"]["message"]) == (501, True)


def test_a_server_without_encoders_says_so(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "can_encode", lambda encoder: False)
    response = client.post("/v1/videos", json={"prompt": "a red ball"})
    assert response.status_code == 507
    assert "neither libx264 nor libvpx-vp9" in response.json()["error"]["message"]


def test_a_paused_video_without_a_stream_is_a_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_claim", lambda worker: None)
    with serving(tmp_path) as client:
        video_id = submit(client)
        client.post(f"/v1/videos/{video_id}/pause")
        assert client.get(f"/v1/videos/{video_id}/stream").status_code == 409


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_frames_after_the_end_of_a_stream_do_not_block_the_render(codec: live.Codec) -> None:
    stream = live.LiveStream(build_request({"prompt": "a red ball"}), codec)
    chunk = RenderedChunk(np.zeros((12, 64, 96, 3), np.uint8), None, None)
    stream.push(chunk)
    stream.close()
    rest = threading.Thread(target=lambda: [stream.push(chunk), stream.push(chunk), stream.close()], daemon=True)
    rest.start()
    rest.join(20)
    assert not rest.is_alive()
    assert decode(stream.header + b"".join(stream.fragments._items))[1][-1] == pytest.approx(11 / 8, abs=0.001)
