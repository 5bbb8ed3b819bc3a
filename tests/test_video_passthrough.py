"""Copied frames that need no conversion reach the encoder as decoded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.clips import ClipSpec, corners, make
from support.extending import write_extension
from test_video_chroma import decoded, planes

from pavdm_cli.video import EncoderOptions, ExtensionOptions, VideoInfo, open_video
from pavdm_cli.video.color_space import frame_color_space

LOSSLESS = ExtensionOptions(encoder=EncoderOptions(crf=0))


def noise(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


def clip(folder: Path, spec: ClipSpec | None = None, frames: list[np.ndarray] | None = None) -> VideoInfo:
    return open_video(make(folder / "in.mkv", frames or noise(9), spec))


def lost(video: VideoInfo, suffix: str = ".mp4") -> int:
    """The largest difference between the samples of the input and those of a lossless continuation."""
    out = video.path.with_name(f"out{suffix}")
    write_extension(video, out, noise(2), LOSSLESS)
    pairs = list(zip(decoded(video.path), decoded(out), strict=False))
    assert len(pairs) == video.frames
    assert all(frame.width == other.width for frame, other in pairs)
    return max(int(np.abs(a - b).max()) for pair in pairs for a, b in zip(*map(planes, pair), strict=True))


@pytest.mark.parametrize("color_space", [(1, 1, 1), (6, 6, 6), (5, 5, 5), (2, 2, 2), (12, 13, 1)])
@pytest.mark.parametrize("codec", ["h264", "vp9", "mpeg4"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_compatible_frames_pass_through_unchanged(
    tmp_path: Path, color_space: tuple[int, int, int], codec: str, suffix: str
) -> None:
    assert lost(clip(tmp_path, ClipSpec(codec, color_space=color_space)), suffix) == 0


@pytest.mark.parametrize(
    "spec", [ClipSpec(times=[Fraction(k * k, 100) for k in range(9)]), ClipSpec(aspect=Fraction(4, 3))]
)
def test_pass_through_keeps_timestamps_and_aspect_ratio(tmp_path: Path, spec: ClipSpec) -> None:
    assert lost(clip(tmp_path, spec)) == 0


@pytest.mark.parametrize("color_space", [(1, 1, 1), (6, 6, 6), (5, 6, 5), (12, 13, 1)])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_color_tags_are_preserved(tmp_path: Path, color_space: tuple[int, int, int], suffix: str) -> None:
    video = clip(tmp_path, ClipSpec(color_space=color_space))
    write_extension(video, tmp_path / f"out{suffix}", noise(2))
    out = open_video(tmp_path / f"out{suffix}").color_space
    assert out.matrix == color_space[2]
    assert (out.primaries, out.transfer) == color_space[:2] or suffix == ".webm"
    assert not out.full_range


@pytest.mark.parametrize("color_space", [(1, 1, 1), (6, 6, 6), (2, 2, 2)])
def test_new_frames_match_the_colors_of_the_input(tmp_path: Path, color_space: tuple[int, int, int]) -> None:
    video = clip(tmp_path, ClipSpec(color_space=color_space), [corners()] * 3)
    write_extension(video, tmp_path / "out.mp4", [corners()] * 2, ExtensionOptions(encoder=EncoderOptions(crf=2)))
    before, *_, after = decoded(tmp_path / "out.mp4")
    assert frame_color_space(before).matrix == frame_color_space(after).matrix
    for plane, other in zip(planes(before), planes(after), strict=True):
        assert np.median(np.abs(plane - other)) <= 1


@pytest.mark.parametrize(
    "spec",
    [
        ClipSpec("hevc", pixels="yuv420p10le"),
        ClipSpec("mjpeg", pixels="yuvj420p", color_space=(1, 1, 5)),
        ClipSpec("vp9", pixels="yuv444p"),
        ClipSpec("hevc", color_space=(9, 16, 9)),
        ClipSpec(color_space=(1, 1, 9)),
        ClipSpec(color_space=(2, 2, 4)),
        ClipSpec(turn=180),
        ClipSpec(turn=90, aspect=Fraction(4, 3)),
    ],
    ids=["10 bits", "full range", "4:4:4", "HDR of 8 bits", "BT.2020 matrix", "FCC matrix", "upside down", "turned"],
)
def test_incompatible_frames_are_converted(tmp_path: Path, spec: ClipSpec) -> None:
    path = make(tmp_path / ("in.mov" if spec.turn else "in.mkv"), [corners(64, 64)] * 3, spec)
    video = open_video(path)
    write_extension(video, tmp_path / "out.mp4", [corners(64, 64)] * 2, ExtensionOptions(encoder=EncoderOptions(crf=2)))
    out = open_video(tmp_path / "out.mp4")
    assert (out.bit_depth, out.hdr, out.orientation.note(), out.color_space.full_range) == (8, "", "", False)
    assert (out.width, out.height, out.frames) == (video.width, video.height, 5)
    before, *_, after = (picture.to_ndarray(format="rgb24", threads=1).astype(int) for picture in decoded(out.path))
    turned = np.rot90(corners(64, 64), spec.turn // 90)
    spots = [(y, x) for y in (8, -8) for x in (8, -8)]
    assert max(np.abs(after[spot] - corners(64, 64)[spot]).max() for spot in spots) <= 8
    assert video.hdr or max(np.abs(before[spot] - turned[spot]).max() for spot in spots) <= 8
