"""Containers beside MP4 and Matroska: recordings of cameras and televisions, and those that are named and refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import Recipe, greys, make

from pavdm_cli.errors import InputError
from pavdm_cli.video import frames, open_video, read_last_frames, splice

NEW = [np.full((48, 64, 3), 200, np.uint8)] * 3
RATE = Fraction(25)
KINDS = {
    "h264.ts": Recipe(rate=RATE, audio="aac"),
    "mpeg2.ts": Recipe("mpeg2video", rate=RATE, audio="mp2"),
    "ac3.m2ts": Recipe(rate=RATE, audio="ac3"),
    "mpeg2.mpg": Recipe("mpeg2video", rate=RATE, audio="mp2"),
    "mpeg2.vob": Recipe("mpeg2video", rate=RATE, audio="ac3"),
    "h264.flv": Recipe(rate=RATE, audio="aac"),
    "wmv2.wmv": Recipe("wmv2", rate=RATE, audio="mp2"),
}


def decoded(path: Path) -> np.ndarray:  # (channels, count)
    with av.open(str(path)) as file:
        parts = [frame.to_ndarray() for frame in file.decode(audio=0)]
    return np.concatenate([part / 2.0**15 if part.dtype == np.int16 else part for part in parts], 1)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("kind", KINDS)
def test_recordings_are_continued_in_time_with_their_sound(tmp_path: Path, kind: str, suffix: str) -> None:
    video = open_video(make(tmp_path / kind, greys(16), KINDS[kind]))
    assert (video.frames, video.rate) == (16, 25)
    assert [time for _, time in frames(video)] == video.times
    assert read_last_frames(video, Fraction(8), 3).shape == (3, 48, 64, 3)
    splice(video, tmp_path / f"out{suffix}", NEW)
    out = open_video(tmp_path / f"out{suffix}")
    steps = np.diff([float(time) for time in out.times])
    assert out.frames == 19
    assert steps == pytest.approx(0.04, abs=0.0011)
    with av.open(str(out.path)) as file:
        assert min(one.start_time * one.time_base for one in file.streams) == 0
    assert np.abs(decoded(out.path) - decoded(video.path)).max() < 1e-4  # layer II is decoded by two decoders


def test_a_recording_cut_anywhere_begins_with_its_first_whole_picture(tmp_path: Path) -> None:
    data = make(tmp_path / "whole.ts", greys(40), Recipe(rate=RATE, audio="aac")).read_bytes()
    count = len(data) // 188
    (tmp_path / "in.ts").write_bytes(data[188 * (count // 3) + 77 : -90])
    video = open_video(tmp_path / "in.ts")
    assert 8 <= video.frames < 40
    assert [time for _, time in frames(video)] == video.times
    splice(video, tmp_path / "out.mp4", NEW)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.start_time == 0
        assert all(packet.decode() for packet in file.demux(audio=0) if packet.size and not packet.is_discard)


@pytest.mark.parametrize("mark", [b"#EXTM3U\n", b"ffconcat version 1.0\n", b"<?xml version='1.0'?>\n<MPD/>"])
def test_a_playlist_is_named_and_never_followed(tmp_path: Path, mark: bytes) -> None:
    make(tmp_path / "clip.ts", greys(4))
    for name in ("list.ts", "list.m3u8", "list.mpg"):
        (tmp_path / name).write_bytes(mark + b"clip.ts\n" * 400)
        with pytest.raises(InputError, match=r"a playlist|an XML file"):
            open_video(tmp_path / name)


@pytest.mark.parametrize(("name", "words"), [("clip.h264", "a bare H.264 stream"), ("clip.nut", "a NUT file")])
def test_a_kind_that_is_not_read_is_named_with_the_way_to_remux_it(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        open_video(make(tmp_path / name, greys(4)))
    assert f"ffmpeg -i {name} -c copy x.mkv" in caught.value.hint
