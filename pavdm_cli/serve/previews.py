"""Still images of a video file: a thumbnail for lists, and a spritesheet with frames of the whole video."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path

from PIL import Image

from pavdm_cli.video import Frame, VideoInfo, open_video, read_frames_at

THUMBNAIL_SIDE, CELL_SIDE = 320, 192  # longest sides, in pixels
COLUMNS, MAX_CELLS = 5, 25


def thumbnail(path: Path) -> bytes:
    """The first frame as WebP. Raises: InputError."""
    video = open_video(path)
    (frame,) = read_frames_at(video, [video.start])
    return _encode(_shrink(video, frame, THUMBNAIL_SIDE), "webp")


def spritesheet(path: Path) -> bytes:
    """Up to 25 evenly spaced frames from the first to the last as one JPEG, in rows of five. Raises: InputError."""
    video = open_video(path)
    cells = [_shrink(video, frame, CELL_SIDE) for time in _times(video) for frame in read_frames_at(video, [time])]
    width, height = cells[0].size
    columns = min(COLUMNS, len(cells))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(cells) / columns) * height))
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % columns * width, number // columns * height))
    return _encode(sheet, "jpeg")


def _times(video: VideoInfo) -> list[Fraction]:
    """Times of evenly spaced frames; each is read on its own, so that a long video is not decoded as a whole."""
    times, count = video.times, min(MAX_CELLS, video.frames)
    last = len(times) - 1
    return [times[round(number * last / (count - 1))] if count > 1 else times[0] for number in range(count)]


def _shrink(video: VideoInfo, frame: Frame, side: int) -> Image.Image:
    """A frame with square pixels, whose longest side is at most `side`."""
    height, width = frame.shape[0], max(1, round(frame.shape[1] * video.sample_aspect_ratio))
    scale = min(1.0, side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)


def _encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=85)
    return buffer.getvalue()
