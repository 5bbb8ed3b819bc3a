"""A file name taken during a run is not overwritten, and changes to a growing file are detected."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from pavdm_cli.errors import OutputError
from pavdm_cli.video import EncoderOptions, VideoWriter, check_output, open_video
from pavdm_cli.video.write import writer as video_writer
from pavdm_cli.video.write.partial import rename_no_replace

FRAMES = np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), np.uint8)


def writer_of(path: Path, force: bool = False) -> VideoWriter:
    writer = VideoWriter(path, 64, 48, 12, {"seed": 1}, EncoderOptions(segment=2), force)
    writer.write(FRAMES)
    writer.flush()
    writer.check()
    return writer


def write_all(writer: VideoWriter, times: int = 1) -> None:
    with writer:
        for _ in range(times):
            writer.write(FRAMES)
        writer.flush()


def no_links(*args: object, **options: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture(params=["links", "no links"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has hard links, and one that has none, as FAT and some network shares."""
    if request.param == "no links":
        monkeypatch.setattr(os, "link", no_links)


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_name_taken_during_the_run_is_never_replaced(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"v{suffix}"
    writer = writer_of(path)
    path.write_bytes(b"another's")
    (tmp_path / f"v-2{suffix}").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="appeared during the run") as excinfo:
        writer.finish()
    other = tmp_path / f"v-3{suffix}"
    assert f"the complete video is {other}; use --force" in excinfo.value.hint
    assert open_video(other).frames == 24
    assert path.read_bytes() == b"another's"
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"v-2{suffix}", f"v-3{suffix}", f"v{suffix}"]


@pytest.mark.usefixtures("file_system")
def test_force_replaces_a_file_created_during_the_run(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    writer = writer_of(path, force=True)
    path.write_bytes(b"another's")
    assert writer.finish() == path
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]
    assert open_video(path).frames == 24


@pytest.mark.usefixtures("file_system")
def test_publishing_leaves_only_the_final_file(tmp_path: Path) -> None:
    assert writer_of(tmp_path / "v.mp4").finish() == tmp_path / "v.mp4"
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]


def test_a_failed_rename_removes_its_placeholder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(FileNotFoundError):
        rename_no_replace(tmp_path / "missing", tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_link_counts_as_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="exists"):
        check_output(tmp_path / "v.mp4")


def delete(partial: Path) -> None:
    partial.unlink()


def replace(partial: Path) -> None:
    other = partial.with_name("other")
    other.write_bytes(b"another's")
    os.replace(other, partial)


def cut(partial: Path) -> None:
    os.truncate(partial, 100)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
@pytest.mark.parametrize(
    ("change", "words"),
    [(delete, "was deleted"), (replace, "was replaced"), (cut, "truncated")],
)
def test_interference_is_detected_at_the_next_chunk(
    change, words: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = tmp_path / f"v.partial{suffix}"
    monkeypatch.setattr(video_writer, "find_ffmpeg", lambda path: "")  # whose file only grows between checks
    writer = writer_of(tmp_path / f"v{suffix}")
    change(partial)
    with pytest.raises(OutputError, match=words) as excinfo:
        writer.check()
    assert "24 frames are lost" in excinfo.value.message
    assert writer.close_partial() is None
    assert partial.exists() == (change is not delete)
    assert change is not cut or f"is kept in {partial}" in excinfo.value.hint
    assert change is not replace or partial.read_bytes() == b"another's"
    assert not (tmp_path / f"v{suffix}").exists()


def test_truncation_is_detected_even_if_the_file_grows_again(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "v.mkv")
    cut(writer.partial)
    with pytest.raises(OutputError, match="another program truncated the file"):
        write_all(writer, 20)
    assert not (tmp_path / "v.mkv").exists()


def test_interference_after_the_last_chunk_is_detected(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "v.mp4")
    replace(writer.partial)
    with pytest.raises(OutputError, match="was replaced"), writer:
        writer.finish()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"another's"]


def test_errors_mention_a_partial_file_only_if_it_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = VideoWriter(tmp_path / "v.mp4", 64, 48, 12)

    def fails(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(writer.encoder, "encode", fails)
    with pytest.raises(OutputError, match="Input/output error") as excinfo:
        write_all(writer)
    assert "the disk or its connection is failing" in excinfo.value.hint
    assert "plays" not in excinfo.value.hint
    assert list(tmp_path.iterdir()) == []
