"""Colors: whatever the source's color space, frames are read as bt709."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.clips import ClipSpec, make

from pavdm_cli.video import FrameReader, open_video


def read(path: Path) -> list[np.ndarray]:
    return [frame for frame, _ in FrameReader(open_video(path))]


@pytest.mark.parametrize("color", [(200, 30, 60), (18, 52, 86), (240, 200, 20), (0, 0, 255), (255, 255, 255)])
@pytest.mark.parametrize(
    "spec",
    [
        ClipSpec(),
        ClipSpec(color_space=(6, 6, 6)),
        ClipSpec(color_space=(2, 2, 2)),
        ClipSpec("mjpeg", pixels="yuvj420p", color_space=(1, 1, 5)),
        ClipSpec("hevc", pixels="yuv420p10le"),
        ClipSpec("vp9", pixels="yuv444p"),
    ],
    ids=["bt709", "bt601", "untagged", "full range", "10 bits", "4:4:4"],
)
def test_colors_are_correct_in_every_color_space(tmp_path: Path, spec: ClipSpec, color: tuple[int, int, int]) -> None:
    path = make(tmp_path / "clip.mkv", [np.full((48, 64, 3), color, np.uint8)] * 2, spec)
    assert np.abs(read(path)[0].astype(int) - color).max() <= 4


def pq(nits: float) -> int:
    power = (nits / 10000) ** (1305 / 8192)
    return round(65535 * ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** (2523 / 32))


@pytest.mark.parametrize(
    ("transfer", "signal", "expected"),
    [
        (16, pq(0), 0),
        (16, pq(10), 72),
        (16, pq(100), 190),
        (16, pq(203), 243),
        (16, pq(1000), 255),
        (16, pq(10000), 255),
        (18, 0, 0),
        (18, round(65535 * 0.75), 243),
        (18, 65535, 255),
    ],
)
def test_hdr_is_tone_mapped(tmp_path: Path, transfer: int, signal: int, expected: int) -> None:
    spec = ClipSpec("hevc", pixels="yuv420p10le", color_space=(9, transfer, 9))
    path = make(tmp_path / "clip.mp4", [np.full((48, 64, 3), signal, np.uint16)] * 2, spec)
    video = open_video(path)
    assert (video.hdr, video.bit_depth) == ("PQ" if transfer == 16 else "HLG", 10)
    assert abs(read(path)[0].mean() - expected) <= 3
    assert video.notes() == [f"{video.hdr} to standard range (bt709), highlights rolled off", "10 bits to 8"]


def test_tone_mapping_is_monotonic_and_keeps_grays(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 16).astype(np.uint16)
    spec = ClipSpec("hevc", pixels="yuv420p10le", color_space=(9, 16, 9))
    path = make(tmp_path / "clip.mp4", [np.full((48, 64, 3), level) for level in levels], spec)
    colors = [frame.reshape(-1, 3).mean(0) for frame in read(path)]
    assert all(np.ptp(color) <= 2 for color in colors)
    assert np.all(np.diff([color.mean() for color in colors]) >= 0)


def test_bt2020_is_converted_to_bt709(tmp_path: Path) -> None:
    green = np.full((48, 64, 3), (0, 40000, 0), np.uint16)
    path = make(tmp_path / "clip.mp4", [green] * 2, ClipSpec("hevc", pixels="yuv420p10le", color_space=(9, 1, 9)))
    video = open_video(path)
    red, high, blue = read(path)[0].reshape(-1, 3).mean(0)
    assert red <= 3
    assert blue <= 3
    assert abs(high - 40000 / 257 * 1.1329 ** (1 / 2.4)) <= 3  # the green of BT.2020 lies outside BT.709
    assert video.notes() == ["colors converted from bt2020 to bt709", "10 bits to 8"]
