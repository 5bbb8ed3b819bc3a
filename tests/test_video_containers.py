"""Containers other than MP4 and Matroska: recordings of cameras and televisions, and unsupported ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import ClipSpec, grays, make
from support.extending import write_extension

from pavdm_cli.errors import InputError
from pavdm_cli.video import FrameReader, open_video, read_last_frames

NEW = [np.full((48, 64, 3), 200, np.uint8)] * 3
RATE = Fraction(25)
KINDS = {
    "h264.ts": ClipSpec(rate=RATE, audio="aac"),
    "mpeg2.ts": ClipSpec("mpeg2video", rate=RATE, audio="mp2"),
    "ac3.m2ts": ClipSpec(rate=RATE, audio="ac3"),
    "mpeg2.mpg": ClipSpec("mpeg2video", rate=RATE, audio="mp2"),
    "mpeg2.vob": ClipSpec("mpeg2video", rate=RATE, audio="ac3"),
    "h264.flv": ClipSpec(rate=RATE, audio="aac"),
    "wmv2.wmv": ClipSpec("wmv2", rate=RATE, audio="mp2"),
}


def decoded(path: Path) -> np.ndarray:  # (channels, count)
    with av.open(str(path)) as file:
        parts = [frame.to_ndarray() for frame in file.decode(audio=0)]
    return np.concatenate([part / 2.0**15 if part.dtype == np.int16 else part for part in parts], 1)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("kind", KINDS)
def test_recordings_are_extended_with_audio_in_sync(tmp_path: Path, kind: str, suffix: str) -> None:
    video = open_video(make(tmp_path / kind, grays(16), KINDS[kind]))
    assert (video.frames, video.rate) == (16, 25)
    assert [time for _, time in FrameReader(video)] == video.times
    assert read_last_frames(video, Fraction(8), 3).shape == (3, 48, 64, 3)
    write_extension(video, tmp_path / f"out{suffix}", NEW)
    out = open_video(tmp_path / f"out{suffix}")
    steps = np.diff([float(time) for time in out.times])
    assert out.frames == 19
    assert steps == pytest.approx(0.04, abs=0.0011)
    with av.open(str(out.path)) as file:
        assert min(stream.start_time * stream.time_base for stream in file.streams) == 0
    assert np.abs(decoded(out.path) - decoded(video.path)).max() < 1e-4  # layer II is decoded by two decoders


def test_a_cut_recording_starts_with_its_first_decodable_frame(tmp_path: Path) -> None:
    data = make(tmp_path / "whole.ts", grays(40), ClipSpec(rate=RATE, audio="aac")).read_bytes()
    count = len(data) // 188
    (tmp_path / "in.ts").write_bytes(data[188 * (count // 3) + 77 : -90])
    video = open_video(tmp_path / "in.ts")
    assert 8 <= video.frames < 40
    assert [time for _, time in FrameReader(video)] == video.times
    write_extension(video, tmp_path / "out.mp4", NEW)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.start_time == 0
        assert all(packet.decode() for packet in file.demux(audio=0) if packet.size and not packet.is_discard)


@pytest.mark.parametrize("mark", [b"#EXTM3U\n", b"ffconcat version 1.0\n", b"<?xml version='1.0'?>\n<MPD/>"])
def test_a_playlist_is_reported_and_never_followed(tmp_path: Path, mark: bytes) -> None:
    make(tmp_path / "clip.ts", grays(4))
    for name in ("list.ts", "list.m3u8", "list.mpg"):
        (tmp_path / name).write_bytes(mark + b"clip.ts\n" * 400)
        with pytest.raises(InputError, match=r"a playlist|an XML file"):
            open_video(tmp_path / name)


@pytest.mark.parametrize(("name", "words"), [("clip.h264", "a raw H.264 stream"), ("clip.nut", "a NUT file")])
def test_unsupported_formats_are_named_with_a_remux_command(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as excinfo:
        open_video(make(tmp_path / name, grays(4)))
    assert f"ffmpeg -i {name} -c copy x.mkv" in excinfo.value.hint
