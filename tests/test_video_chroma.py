"""Chroma siting: half a chroma sample off is invisible once, and a colored fringe after a few generations."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import ClipSpec, make
from support.extending import write_extension

from pavdm_cli.video import EncoderOptions, ExtensionOptions, FrameReader, VideoWriter, open_video
from pavdm_cli.video.color_space import read_chroma_location
from pavdm_cli.video.matroska_header import matroska_header
from pavdm_cli.video.write.encode import VideoParams
from pavdm_cli.video.write.external import ExternalEncoder, find_ffmpeg

WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}  # of red and blue in luma, by matrix
BESIDE = {"left": (0, 0.5), "center": (0.5, 0.5), "topleft": (0, 0), "top": (0.5, 0)}  # of the first luma sample: x, y
FINE = EncoderOptions(crf=2)


def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:  # (...,) -> (..., 3)
    """A smooth picture in full color, at any place."""
    across, down = 2 * np.pi * x / 32, 2 * np.pi * y / 24
    red = 128 + 60 * np.sin(across) + 30 * np.cos(down)
    green = 128 + 50 * np.cos(across + 0.6) + 20 * np.sin(down)
    return np.stack([red, green, 128 + 60 * np.cos(across + 1.9) + 30 * np.cos(down + 1.3)], -1)


def yuv(rgb: np.ndarray, matrix: int = 1) -> list[np.ndarray]:
    """Y, U and V of limited range, unrounded."""
    red, green, blue = np.moveaxis(np.asarray(rgb, float), -1, 0)
    of_red, of_blue = WEIGHTS[matrix]
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    scale = 224 / 255
    u, v = (blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)
    return [16 + luma * 219 / 255, 128 + u * scale, 128 + v * scale]


def samples(height: int, width: int, step: tuple[int, int], offset: tuple[float, float]) -> np.ndarray:
    """The scene at every `step` (x, y) of luma samples, the first at `offset`."""
    y, x = np.mgrid[: -(-height // step[1]), : -(-width // step[0])].astype(float)
    return scene(x * step[0] + offset[0], y * step[1] + offset[1])


def reference(height: int, width: int, chroma_location: str = "left", matrix: int = 1) -> list[np.ndarray]:
    """Y, U and V of the scene in 4:2:0."""
    luma = yuv(samples(height, width, (1, 1), (0, 0)), matrix)[0]
    return [luma, *yuv(samples(height, width, (2, 2), BESIDE[chroma_location]), matrix)[1:]]


def shift(plane: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """By how many samples a plane is displaced (x, y), by least squares."""
    inner = slice(4, -4), slice(4, -4)
    down, across = np.gradient(expected)
    slopes = np.stack([across[inner].ravel(), down[inner].ravel(), np.ones(down[inner].size)], 1)
    return np.linalg.lstsq(slopes, (expected - plane)[inner].ravel(), rcond=None)[0][:2]


def planes(picture: av.VideoFrame) -> list[np.ndarray]:
    """The samples of each plane in steps of 8 bits."""
    deep = picture.format.components[0].bits > 8
    read = [np.frombuffer(plane, "<u2" if deep else "u1").reshape(plane.height, -1) for plane in picture.planes]
    scale = 1 << picture.format.components[0].bits - 8
    return [lines[:, : plane.width] / scale for lines, plane in zip(read, picture.planes, strict=True)]


def picture_of(values: list[np.ndarray], pixels: str) -> av.VideoFrame:
    picture = av.VideoFrame(values[0].shape[1], values[0].shape[0], pixels)
    bits = picture.format.components[0].bits
    for plane, values_of_plane in zip(picture.planes, values, strict=True):
        rounded = (values_of_plane * (1 << bits - 8)).round().astype("<u2" if bits > 8 else "u1")
        lines = np.zeros((plane.height, plane.line_size // rounded.itemsize), rounded.dtype)
        lines[:, : plane.width] = rounded
        plane.update(lines.tobytes())
    return picture


def write_yuv(
    path: Path, values: list[np.ndarray], pixels: str, chroma_location: str, matrix: int, codec: str = "ffv1"
) -> Path:
    """A lossless clip of two frames with exactly these samples, tagged."""
    tag = {"chroma_sample_location": chroma_location} if chroma_location else {}
    quality = {"crf": "1", "preset": "veryfast"} if codec == "libx264" else {}
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=10, options=tag | quality)
        stream.height, stream.width = values[0].shape
        stream.pix_fmt, stream.codec_context.colorspace, stream.codec_context.color_range = pixels, matrix, 1
        for number in range(2):
            picture = picture_of(values, pixels)
            picture.pts, picture.time_base = number, Fraction(1, 10)
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return path


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as file:
        return [*file.decode(video=0)]


def rgb_scene(height: int, width: int) -> np.ndarray:
    return samples(height, width, (1, 1), (0, 0)).round().clip(0, 255).astype(np.uint8)


def psnr(plane: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((plane - other) ** 2), 1e-9)))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("size", [(96, 128), (95, 127)])
def test_written_videos_have_left_chroma_location(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    with VideoWriter(tmp_path / f"a{suffix}", size[1], size[0], 10, options=FINE) as writer:
        writer.write([rgb_scene(*size)] * 2)
    for plane, expected in list(zip(planes(decoded(writer.path)[0]), reference(*size), strict=True))[1:]:
        assert np.abs(shift(plane, expected)).max() < 0.03
    with av.open(str(writer.path)) as file:
        assert read_chroma_location(matroska_header(file.streams.video[0])) == "left"


@pytest.mark.skipif(not find_ffmpeg(), reason="no external ffmpeg")
def test_an_external_encoder_gets_left_chroma_location(tmp_path: Path) -> None:
    encoding = EncoderOptions(crf=2, encoder="libx264")
    writer = ExternalEncoder(tmp_path / "a.mp4", VideoParams(128, 96, Fraction(10)), encoding)
    for number in range(2):
        writer.encode(rgb_scene(96, 128), number)
    writer.close()
    for plane, expected in list(zip(planes(decoded(tmp_path / "a.mp4")[0]), reference(96, 128), strict=True))[1:]:
        assert np.abs(shift(plane, expected)).max() < 0.03


KINDS = [
    ("yuv420p", (2, 2)),
    ("yuv420p10le", (2, 2)),
    ("yuv422p", (2, 1)),
    ("yuv422p10le", (2, 1)),
    ("yuv444p", (1, 1)),
]


@pytest.mark.parametrize("chroma_location", ["", "left", "center", "topleft"])
@pytest.mark.parametrize("matrix", [1, 6])
@pytest.mark.parametrize(("pixels", "step"), KINDS)
@pytest.mark.parametrize("size", [(96, 128), (95, 127)])
def test_chroma_is_sampled_at_the_tagged_location(
    tmp_path: Path, chroma_location: str, matrix: int, pixels: str, step: tuple[int, int], size: tuple[int, int]
) -> None:
    beside = BESIDE[chroma_location or "left"]
    offset = beside[0] if step[0] == 2 else 0, beside[1] if step[1] == 2 else 0
    chroma = yuv(samples(*size, step, offset), matrix)[1:]
    values = [yuv(samples(*size, (1, 1), (0, 0)), matrix)[0], *chroma]
    path = write_yuv(tmp_path / "a.mkv", values, pixels, chroma_location, matrix)
    frame = next(iter(FrameReader(open_video(path))))[0]
    expected = samples(*size, (1, 1), (0, 0))
    for plane, smooth in list(zip(yuv(frame, matrix), yuv(expected, matrix), strict=True))[1:]:
        assert np.abs(shift(plane, smooth)).max() < 0.06  # of a luma sample, half of one of chroma
    assert np.abs(frame - expected).max() < 30  # at the edges too


@pytest.mark.parametrize("chroma_location", list(BESIDE))
def test_the_chroma_location_is_read_from_the_bitstream(tmp_path: Path, chroma_location: str) -> None:
    path = write_yuv(tmp_path / "a.mp4", reference(96, 128, chroma_location), "yuv420p", chroma_location, 1, "libx264")
    assert open_video(path).color_space.chroma_location == chroma_location


def test_motion_jpeg_has_centered_chroma(tmp_path: Path) -> None:
    spec = ClipSpec("mjpeg", pixels="yuvj420p", color_space=(1, 1, 5))
    assert open_video(make(tmp_path / "a.avi", [rgb_scene(96, 128)] * 2, spec)).color_space.chroma_location == "center"


@pytest.mark.parametrize("chroma_location", ["", "left", "center", "topleft"])
@pytest.mark.parametrize("matrix", [1, 6])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_continued_video_keeps_its_chroma_in_place(
    tmp_path: Path, chroma_location: str, matrix: int, suffix: str
) -> None:
    source = reference(96, 128, chroma_location or "left", matrix)
    video = open_video(write_yuv(tmp_path / "in.mkv", source, "yuv420p", chroma_location, matrix))
    write_extension(video, tmp_path / f"out{suffix}", [rgb_scene(96, 128)] * 2, ExtensionOptions(encoder=FINE))
    pictures = decoded(tmp_path / f"out{suffix}")
    assert len(pictures) == 4
    for picture in (pictures[0], pictures[-1]):
        decoded_planes = planes(picture)
        for plane, expected in zip(decoded_planes, reference(96, 128, matrix=picture.colorspace), strict=True):
            assert np.abs(shift(plane, expected)).max() < 0.03
            assert psnr(plane, expected) > 44


def test_three_generations_degrade_chroma_no_more_than_luma(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "0.mp4", 128, 96, 10, options=EncoderOptions(crf=16)) as writer:
        writer.write([rgb_scene(96, 128)] * 8)
    first = planes(decoded(tmp_path / "0.mp4")[4])
    for number in range(3):
        write_extension(open_video(tmp_path / f"{number}.mp4"), tmp_path / f"{number + 1}.mp4", [rgb_scene(96, 128)])
    last = planes(decoded(tmp_path / "3.mp4")[4])
    luma, *chroma = (psnr(plane, other) for plane, other in zip(first, last, strict=True))
    assert min(chroma) > luma - 4
    for plane, expected in zip(last[1:], first[1:], strict=True):
        assert np.abs(shift(plane, expected)).max() < 0.03
