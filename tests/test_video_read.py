"""Reading: upright, with correct times and colors, and in bounded memory for any file."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.clips import PARTICULAR, ClipSpec, corners, grays, make
from support.extending import write_extension

from pavdm_cli.video import FrameReader, open_video, read_frames_at, read_last_frames
from pavdm_cli.video.io import frames

KINDS = {
    "h264.mp4": ClipSpec(audio="aac"),
    "h264.mkv": ClipSpec(audio="libopus"),
    "h264.avi": ClipSpec(audio="libmp3lame"),
    "hevc.mov": ClipSpec("hevc"),
    "vp9.webm": ClipSpec("vp9", audio="libopus"),
    "av1.mp4": ClipSpec("av1"),
    "av1.webm": ClipSpec("av1"),
    "mjpeg.avi": ClipSpec("mjpeg", pixels="yuvj420p", color_space=(1, 1, 5), audio="pcm_s16le"),
    "mjpeg.mov": ClipSpec("mjpeg", pixels="yuvj420p", color_space=(1, 1, 5)),
    "mpeg4.avi": ClipSpec("mpeg4", color_space=(2, 2, 2)),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
SQUARES = [Fraction(k * k, 100) for k in range(12)]  # frames further and further apart


def read(path: Path) -> list[np.ndarray]:
    return [frame for frame, _ in FrameReader(open_video(path))]


def close(frame: np.ndarray, expected: np.ndarray, within: int = 6) -> bool:
    """Whether the middles of the four quarters agree: edges ring."""
    height, width = expected.shape[:2]
    spots = [(height * y // 8, width * x // 8) for y in (2, 6) for x in (2, 6)]
    return frame.shape == expected.shape and all(
        np.abs(frame[spot].astype(int) - expected[spot]).max() <= within for spot in spots
    )


def number(frame: np.ndarray) -> int:
    """Which of the frames of `grays` it is."""
    return round((frame.mean() - 20) / 8)


@EVERY_KIND
def test_every_format_is_decoded_completely_with_correct_colors(tmp_path: Path, kind: str) -> None:
    spec = KINDS[kind]
    video = open_video(make(tmp_path / kind, [corners(64, 96)] * 12, spec))
    frames = list(FrameReader(video))
    assert (video.width, video.height, video.frames, video.rate) == (96, 64, 12, 10)
    assert (video.sample_aspect_ratio, video.bit_depth, video.hdr, video.variable_frame_rate) == (1, 8, "", False)
    assert video.codec in (spec.codec, "libdav1d")
    assert len(video.audio_codecs) == bool(spec.audio)
    assert len(frames) == 12
    assert all(close(frame, corners(64, 96)) for frame, _ in frames)
    assert [time for _, time in frames] == video.times
    assert video.duration == Fraction(12, 10)
    assert video.notes() == []


@EVERY_KIND
@pytest.mark.parametrize("count", [1, 2, 3])
def test_clips_of_one_to_three_frames_are_complete(tmp_path: Path, kind: str, count: int) -> None:
    video = open_video(make(tmp_path / kind, grays(count, 64, 64), KINDS[kind]))
    assert video.frames == count
    assert [number(frame) for frame, _ in FrameReader(video)] == list(range(count))
    assert video.rate == 10


# Upright


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_a_rotated_video_is_upright(tmp_path: Path, suffix: str, turn: int, mirrored: bool) -> None:
    spec = ClipSpec(turn=turn, mirrored=mirrored, aspect=Fraction(4, 3))
    video = open_video(make(tmp_path / f"clip{suffix}", [corners()] * 2, spec))
    expected = np.rot90(corners(), turn // 90)
    expected = expected[:, ::-1] if mirrored else expected
    frame = next(iter(FrameReader(video)))[0]
    assert (video.height, video.width) == frame.shape[:2] == expected.shape[:2]
    assert video.sample_aspect_ratio == (Fraction(3, 4) if turn in (90, -90) else Fraction(4, 3))
    assert close(frame, expected)
    assert video.notes() == (["rotated upright"] if turn or mirrored else [])


def add_clean_aperture(path: Path) -> None:
    """Crop an MP4 file, whose index is at its end, by 8, 4, 6 and 2 pixels at the left, top, right and bottom."""
    data = bytearray(path.read_bytes())
    box = b"clap" + struct.pack(">8i", 64, 1, 48, 1, 1, 1, 1, 1)  # size, and distance from the center of 78x54
    start = data.index(b"avc1", data.index(b"stsd")) - 4
    end = start + int.from_bytes(data[start : start + 4])
    data[end:end] = struct.pack(">I", len(box) + 4) + box
    for name in (b"avc1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        position = data.rindex(name, 0, start + 8) - 4
        size = int.from_bytes(data[position : position + 4]) + len(box) + 4
        data[position : position + 4] = size.to_bytes(4)
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_cropping_by_the_container_is_applied(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / "clip.mp4", [np.pad(corners(), ((4, 2), (8, 6), (0, 0)))] * 2, ClipSpec(turn=90))
    add_clean_aperture(path)
    video, upright = open_video(path), np.rot90(corners())
    assert (video.width, video.height) == (48, 64)
    assert video.notes() == ["cropped as the container specifies", "rotated upright"]
    assert close(read(path)[0], upright)
    write_extension(video, tmp_path / f"out{suffix}", [upright] * 2)
    assert all(close(frame, upright) for frame in read(tmp_path / f"out{suffix}"))


@pytest.mark.parametrize("size", [(64, 36), (45, 31), (33, 100)])
def test_portrait_and_odd_sizes_are_preserved(tmp_path: Path, size: tuple[int, int]) -> None:
    path = make(tmp_path / "clip.mkv", [corners(*size)] * 2, ClipSpec("vp9"))
    assert close(read(path)[0], corners(*size))


@pytest.mark.parametrize("left", [2, 24])
def test_cropping_at_the_left_and_the_top_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    monkeypatch.setitem(PARTICULAR, "libx264", {"x264-params": f"crop-rect={left},4,6,2"})
    stored = np.pad(corners(), ((4, 2), (left, 6), (0, 0)))
    video = open_video(make(tmp_path / "clip.mp4", [stored] * 2))
    assert (video.width, video.height) == (64, 48)
    assert close(next(iter(FrameReader(video)))[0], corners())
    write_extension(video, tmp_path / "out.mp4", [corners()])
    assert all(close(frame, corners()) for frame in read(tmp_path / "out.mp4"))


# In time


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate_is_detected_from_timestamps(tmp_path: Path, suffix: str) -> None:
    video = open_video(make(tmp_path / f"clip{suffix}", grays(12), ClipSpec(times=SQUARES)))
    assert [time for _, time in FrameReader(video)] == video.times == SQUARES
    assert video.variable_frame_rate
    assert video.rate == 11 / SQUARES[-1]


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30), Fraction(25, 2)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_the_average_rate_is_exact_where_timestamps_are_rounded(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    video = open_video(make(tmp_path / f"clip{suffix}", grays(17), ClipSpec(rate=rate)))
    assert video.rate == rate
    assert not video.variable_frame_rate


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_last_frames_are_those_displayed_at_their_times(tmp_path: Path, suffix: str) -> None:
    video = open_video(make(tmp_path / f"clip{suffix}", grays(12), ClipSpec(times=SQUARES)))
    for rate, count in itertools.product([Fraction(5), Fraction(10), Fraction(40)], [1, 4, 9]):
        times = [SQUARES[-1] - Fraction(count - 1 - k) / rate for k in range(count)]
        expected = [max((n for n, start in enumerate(SQUARES) if start <= time), default=0) for time in times]
        numbers = [number(frame) for frame in read_last_frames(video, rate, count)]
        assert numbers == expected


@EVERY_KIND
def test_last_frames_end_with_the_last_frame_of_every_format(tmp_path: Path, kind: str) -> None:
    video = open_video(make(tmp_path / kind, grays(24, 64, 64), KINDS[kind]))
    assert [number(frame) for frame in read_last_frames(video, Fraction(5), 4)] == [17, 19, 21, 23]


def test_last_frames_of_a_short_clip_repeat_the_first(tmp_path: Path) -> None:
    video = open_video(make(tmp_path / "clip.mp4", grays(3), ClipSpec()))
    assert [number(frame) for frame in read_last_frames(video, Fraction(10), 6)] == [0, 0, 0, 0, 1, 2]


def test_last_frames_are_scaled_and_cropped(tmp_path: Path) -> None:
    video = open_video(make(tmp_path / "clip.mp4", [corners(96, 64)] * 12, ClipSpec()))
    assert read_last_frames(video, Fraction(8), 5, (32, 48)).shape == (5, 32, 48, 3)


@pytest.mark.integration
def test_memory_does_not_grow_with_the_length_of_the_input(tmp_path: Path) -> None:
    script = """
        import resource, sys
        from fractions import Fraction
        from pavdm_cli.video import FrameReader, open_video, read_last_frames
        video = open_video(sys.argv[1])
        assert read_last_frames(video, Fraction(10), 8, (64, 96)).shape[0] == 8
        assert sum(1 for _ in FrameReader(video)) == video.frames
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    peaks = []
    for seconds in (4, 24):
        picture = corners(360, 640)
        path = make(tmp_path / f"{seconds}.mp4", itertools.repeat(picture, seconds * 10), ClipSpec("mpeg4"))
        command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    assert peaks[1] < 1.1 * peaks[0]  # 200 frames of 640x360 more would be 138 MB


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_frames_at_times_are_those_displayed_then(tmp_path: Path, suffix: str) -> None:
    video = open_video(make(tmp_path / f"clip{suffix}", grays(24, 64, 64), ClipSpec()))
    for numbers in ([0, 2], [7, 7, 8], [19, 23, 23], [3, 17]):
        frames_shown = list(read_frames_at(video, [video.start + Fraction(k, 10) for k in numbers], (32, 48)))
        assert [frame.shape for frame in frames_shown] == [(32, 48, 3)] * len(numbers)
        assert [number(frame) for frame in frames_shown] == numbers


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_no_more_frames_are_decoded_than_those_before_the_last_time(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, decoded = open_video(make(tmp_path / f"clip{suffix}", grays(90, 64, 64), ClipSpec())), list[object]()
    decode = frames.decode_frames
    monkeypatch.setattr(frames, "decode_frames", lambda *args: (decoded.append(1) or frame for frame in decode(*args)))
    for position, most in ((0, 2), (5, 7)):
        decoded.clear()
        list(read_frames_at(video, [video.start, video.start + Fraction(position, 10)]))
        assert len(decoded) <= most
