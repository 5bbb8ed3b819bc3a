"""Interlaced, transparent and high-bit-depth sources: deinterlaced or converted, with a note."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.clips import ClipSpec, corners, grays, make
from support.extending import write_extension

from pavdm_cli.video import FrameReader, open_video, read_last_frames

HEIGHT, WIDTH = 64, 96


def bar(time: float) -> np.ndarray:  # (H, W)
    """A bright bar that moves eight pixels a frame."""
    x = np.arange(WIDTH)
    return np.broadcast_to(40 + 160 * (np.abs(x - 12 - 8 * time) < 6), (HEIGHT, WIDTH)).astype(np.uint8)


def woven(number: int, interlaced: bool) -> np.ndarray:  # (H, W, 3)
    """A frame whose odd lines were recorded half a frame later."""
    frame = bar(number).copy()
    if interlaced:
        frame[1::2] = bar(number + 0.5)[1::2]
    return np.repeat(frame[..., None], 3, -1)


def write(path: Path, kinds: list[bool], codec: str = "libx264") -> Path:
    options = {"flags": "+ildct+ilme", "crf": "4"} | ({"x264-params": "tff=1"} if codec == "libx264" else {})
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=10, options=options if any(kinds) else {"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.bit_rate = 8_000_000
        for number, interlaced in enumerate(kinds):
            picture = av.VideoFrame.from_ndarray(woven(number, interlaced), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return path


def combing(frame: np.ndarray) -> float:
    """How much more neighboring lines differ than lines of the same field."""
    light = frame[8:-8, :, 0].astype(float)
    return float(np.abs(light[1:] - light[:-1]).mean() - np.abs(light[2:] - light[:-2]).mean())


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("count", [2, 7])
def test_interlaced_frames_are_deinterlaced_with_a_note(tmp_path: Path, codec: str, count: int) -> None:
    video = open_video(write(tmp_path / "in.mkv", [True] * count, codec))
    notes = write_extension(video, tmp_path / "out.mp4", [woven(9, False)] * 2)
    frames = list(FrameReader(open_video(tmp_path / "out.mp4")))
    assert [time for _, time in frames] == [Fraction(number, 10) for number in range(count + 2)]
    assert max(combing(frame) for frame, _ in frames) < 2 < combing(woven(3, True))
    first = np.abs(frames[0][0].astype(int) - woven(0, True))
    assert min(first[::2].mean(), first[1::2].mean()) < 4  # the lines of one field stay as they are
    assert notes == [f"{count} interlaced frames deinterlaced (bwdif)"]


def test_the_model_gets_deinterlaced_frames(tmp_path: Path) -> None:
    video = open_video(write(tmp_path / "in.mkv", [True] * 6))
    assert max(combing(frame) for frame in read_last_frames(video, Fraction(10), 3)) < 2


def test_progressive_frames_are_unchanged(tmp_path: Path) -> None:
    video = open_video(make(tmp_path / "in.mp4", grays(5), ClipSpec()))
    assert write_extension(video, tmp_path / "out.mp4", grays(1)) == []


@pytest.mark.parametrize("transparent", [True, False])
@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"), [("prores_ks", "yuva444p10le", ".mov"), ("png", "rgba", ".mov")]
)
def test_dropped_transparency_is_reported(
    tmp_path: Path, codec: str, pixels: str, suffix: str, transparent: bool
) -> None:
    picture = np.dstack([corners(HEIGHT, WIDTH), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    picture[20:40, 20:40, 3] = 0 if transparent else 255
    with av.open(str(tmp_path / "in.mov"), "w") as file:
        stream = file.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixels
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=pixels)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    notes = write_extension(open_video(tmp_path / "in.mov"), tmp_path / "out.mp4", [picture[..., :3]])
    assert any("transparency dropped" in note for note in notes) == transparent


@pytest.mark.parametrize("transparent", [True, False])
def test_transparency_of_a_gif_is_reported(tmp_path: Path, transparent: bool) -> None:
    pictures = [Image.new("RGBA", (64, 48), (9 * k, 90, 200, 255)) for k in range(3)]
    for picture in pictures if transparent else []:
        picture.paste((0, 0, 0, 0), (8, 8, 24, 24))
    pictures[0].save(tmp_path / "in.gif", save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    notes = write_extension(open_video(tmp_path / "in.gif"), tmp_path / "out.mp4", [corners()])
    assert any("transparency dropped" in note for note in notes) == transparent


def test_alpha_of_a_webm_is_reported(tmp_path: Path) -> None:
    path = make(tmp_path / "a.webm", grays(3), ClipSpec("vp9"))
    with av.open(str(path)) as source, av.open(str(tmp_path / "in.webm"), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        stream.metadata["alpha_mode"] = "1"
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)
    notes = write_extension(open_video(tmp_path / "in.webm"), tmp_path / "out.mp4", grays(1))
    assert any("transparency dropped" in note for note in notes)
