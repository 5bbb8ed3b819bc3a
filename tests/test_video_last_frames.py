"""The last frames, collected while a video is copied: the same as read from the file, each decoded once."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.clips import ClipSpec, corners, grays, make
from support.command import pavdm
from test_video_read import EVERY_KIND, KINDS, SQUARES

from pavdm_cli.video import FrameReader, LastFrames, open_video, read_last_frames
from pavdm_cli.video.write.extend import ExtensionWriter

WORDS = ("-p", "a red ball", "--frames", "2", "--seed", "1", "--threads", "1", "--steps", "6")


def collected(path: Path, rate: int, count: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """The tail as it is collected while the file is copied."""
    video = open_video(path)
    end = LastFrames(video, Fraction(rate), count, size)
    with ExtensionWriter(video, path.with_name("out.mkv")) as file:
        assert sum(1 for _ in file.copy_input(end.add)) == video.frames
        frames = end.frames()
        file.write([np.zeros((video.height, video.width, 3), np.uint8)])
    return frames


@EVERY_KIND
def test_frames_collected_while_copying_equal_those_read(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / kind, grays(24, 64, 64), KINDS[kind])
    assert (collected(path, 5, 4) == read_last_frames(open_video(path), Fraction(5), 4)).all()


@pytest.mark.parametrize(("rate", "count"), [(5, 9), (40, 4), (10, 1)])
def test_collecting_equals_reading_at_low_frame_rates(tmp_path: Path, rate: int, count: int) -> None:
    path = make(tmp_path / "in.mkv", [*grays(11), corners(64, 96)], ClipSpec(times=SQUARES))
    read = read_last_frames(open_video(path), Fraction(rate), count, (32, 48))
    assert (collected(path, rate, count, (32, 48)) == read).all()


def test_extending_decodes_every_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = count_decoded(monkeypatch)
    make(tmp_path / "in.mp4", grays(12))
    result = pavdm("extend", str(tmp_path / "in.mp4"), *WORDS, "-o", str(tmp_path / "out.mp4"))
    assert (result.code, len(decoded)) == (0, 12)


def test_only_new_reads_the_end_of_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = count_decoded(monkeypatch)
    make(tmp_path / "in.mp4", grays(12))
    result = pavdm("extend", str(tmp_path / "in.mp4"), *WORDS, "--only-new", "-o", str(tmp_path / "out.mp4"))
    assert result.code == 0
    assert 0 < len(decoded) <= 12


def test_a_repeated_frame_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversions: list[object] = []
    show = FrameReader.to_rgb
    monkeypatch.setattr(
        FrameReader, "to_rgb", lambda reader, picture: conversions.append(picture) or show(reader, picture)
    )
    video = open_video(make(tmp_path / "in.mp4", grays(3)))
    assert len(read_last_frames(video, Fraction(100), 21)) == 21  # two tenths of a second
    assert len(conversions) == 3


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every picture that a reader of frames takes from a decoder from now on."""
    frames: list[object] = []
    read = FrameReader._decode

    def counting(reader: FrameReader, since: Fraction | None) -> Iterator[Any]:
        for picture in read(reader, since):
            frames.append(picture[1])
            yield picture

    monkeypatch.setattr(FrameReader, "_decode", counting)
    return frames
