"""Thumbnails and spritesheets of videos on a server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.serving import serving, submit, wait_for

from pavdm_cli.serve.previews import CELL_SIDE, THUMBNAIL_SIDE, spritesheet, thumbnail
from pavdm_cli.serve.routes import videos
from pavdm_cli.serve.worker import Worker
from pavdm_cli.video import VideoWriter
from pavdm_cli.video.paths import partial_path


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(tmp_path_factory.mktemp("previews")) as client:
        yield client


def gray_video(path: Path, frames: int, size: tuple[int, int] = (64, 96)) -> Path:
    """A video whose frames have gray levels from 0 to 250, evenly spaced."""
    levels = np.linspace(0, 250 if frames > 1 else 0, frames)
    with VideoWriter(path, size[1], size[0], Fraction(8)) as writer:
        writer.write(np.full((*size, 3), round(level), np.uint8) for level in levels)
    return path


def open_image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_thumbnail_is_the_first_frame(tmp_path: Path) -> None:
    image = open_image(thumbnail(gray_video(tmp_path / "a.mp4", 3)))
    assert (image.format, image.size) == ("WEBP", (96, 64))
    assert np.asarray(image).max() < 6


@pytest.mark.parametrize(("frames", "grid"), [(1, (1, 1)), (3, (3, 1)), (7, (5, 2)), (80, (5, 5))])
def test_a_spritesheet_has_frames_from_first_to_last(tmp_path: Path, frames: int, grid: tuple[int, int]) -> None:
    image = open_image(spritesheet(gray_video(tmp_path / "a.mp4", frames)))
    assert (image.format, image.size) == ("JPEG", (96 * grid[0], 64 * grid[1]))
    cells = np.asarray(image.convert("L")).reshape(grid[1], 64, grid[0], 96).mean((1, 3)).ravel()
    count = min(frames, 25)
    assert cells[:count] == pytest.approx(np.linspace(0, 250 if frames > 1 else 0, count), abs=6)


def test_images_of_large_videos_are_small(tmp_path: Path) -> None:
    path = gray_video(tmp_path / "a.mp4", 2, (360, 640))
    assert open_image(thumbnail(path)).size == (THUMBNAIL_SIDE, 180)
    assert open_image(spritesheet(path)).size == (2 * CELL_SIDE, 108)


@pytest.mark.integration
def test_a_video_has_its_variants_and_a_partial_one_a_thumbnail(client: TestClient) -> None:
    video_id = submit(client, frames=50)
    address = f"/v1/videos/{video_id}/content"
    wait_for(client, video_id, "rendering", "completed", frames=24)
    early = client.get(address, params={"variant": "thumbnail"})
    assert (early.status_code, early.headers["content-type"]) == (200, "image/webp")
    wait_for(client, video_id, "completed")
    late = client.get(address, params={"variant": "thumbnail"})
    assert late.content == early.content
    sheet = client.get(address, params={"variant": "spritesheet"})
    assert (sheet.headers["content-type"], open_image(sheet.content).size) == ("image/jpeg", (480, 320))
    assert client.get(address, params={"variant": "poster"}).status_code == 422


def test_what_has_no_frames_has_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_claim", lambda worker: None)
    with serving(tmp_path) as client:
        address = f"/v1/videos/{submit(client)}/content"
        for variant in ("thumbnail", "spritesheet"):
            assert client.get(address, params={"variant": variant}).status_code == 409


def test_a_thumbnail_is_found_while_its_file_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_claim", lambda worker: None)
    with serving(tmp_path) as client:
        video_id = submit(client)
        path = gray_video(client.app.state.service.settings.path(f"{video_id}.mp4"), 3)  # type: ignore[attr-defined]
        partial = partial_path(path)
        expected, read = thumbnail(path), videos.thumbnail
        path.rename(partial)

        def renaming(file: Path) -> bytes:
            if partial.exists():
                partial.rename(path)
            return read(file)

        monkeypatch.setattr(videos, "thumbnail", renaming)
        for _ in range(2):  # renamed in between, and before the state is stored
            response = client.get(f"/v1/videos/{video_id}/content", params={"variant": "thumbnail"})
            assert (response.status_code, response.content) == (200, expected)


def test_a_thumbnail_waits_for_a_file_that_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_claim", lambda worker: None)
    with serving(tmp_path) as client:
        service, video_id = client.app.state.service, submit(client)  # type: ignore[attr-defined]
        path = gray_video(service.settings.path(f"{video_id}.mp4"), 3)
        expected, written = thumbnail(path), path.rename(tmp_path / "written.mp4")
        partial = partial_path(path)
        partial.write_bytes(b"")
        monkeypatch.setattr(videos.time, "sleep", lambda seconds: written.replace(partial))
        address = f"/v1/videos/{video_id}/content"
        assert client.get(address, params={"variant": "thumbnail"}).status_code == 409  # of a queued one, at once
        service.store.update(video_id, state="rendering", frames=2)
        response = client.get(address, params={"variant": "thumbnail"})
        assert (response.status_code, response.content) == (200, expected)
        partial.write_bytes(b"")
        monkeypatch.setattr(videos.time, "sleep", lambda seconds: None)
        assert client.get(address, params={"variant": "thumbnail"}).status_code == 409  # not forever
