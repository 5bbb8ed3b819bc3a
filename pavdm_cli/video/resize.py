"""Frames to another size by swscale's bicubic filter, which neither aliases nor shifts."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from pavdm_cli.video.write.encode import Frame

BICUBIC = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
MARGIN = 8  # pixels around what is shown, for the filter


@dataclass(frozen=True, slots=True)
class Axis:
    """Of rows or columns the middle `inside` are scaled to `scaled`, of which the middle is shown.

    Both cuts leave an even number out, so that the middle stays in the middle.
    """

    inside: int
    scaled: int


def fit(frame: Frame, size: tuple[int, int], sample_aspect: Fraction = Fraction(1)) -> Frame:
    """What the model sees of an upright frame: scaled to cover `size` (height, width), centre-cropped, square pixels.

    `sample_aspect` is the width of the frame's pixels over their height.
    """
    return _cover(frame, size, sample_aspect)


def unfit(frame: Frame, width: int, height: int, sample_aspect: Fraction = Fraction(1)) -> Frame:
    """The model's frame at the input's size: scaled to cover it and centre-cropped, so that nothing is distorted."""
    return _cover(frame, (height, width), 1 / sample_aspect)


def _cover(frame: Frame, size: tuple[int, int], aspect: Fraction) -> Frame:
    """Scale and crop, where a pixel going in is `aspect` times as wide as one coming out (both of one height)."""
    height, width = frame.shape[:2]
    scale = max(Fraction(size[0], height), size[1] / (width * aspect))
    rows, columns = _axis(height, scale, size[0]), _axis(width, scale * aspect, size[1])
    inside = _middle(frame, rows.inside, columns.inside)
    return np.ascontiguousarray(_middle(_scale(inside, rows.scaled, columns.scaled), *size))


def _axis(count: int, scale: Fraction, out: int) -> Axis:
    """The cut is made where pixels are smaller: before shrinking, after enlarging."""
    if scale < 1:
        return Axis(_near(out / scale, count), out)
    inside = min(count, _near(out / scale + 2 * MARGIN, count))
    return Axis(inside, max(out, _near(inside * scale, out)))


def _near(length: Fraction, like: int) -> int:
    """The nearest positive integer that differs from `like` by an even number."""
    return max(2 - like % 2, like + 2 * round((length - like) / 2))


def _middle(frame: Frame, height: int, width: int) -> Frame:
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    return frame[top : top + height, left : left + width]


def _scale(frame: Frame, height: int, width: int) -> Frame:
    """Red, green and blue each by itself, as the planes of a picture, which keeps every plain colour exactly."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(2, 0, 1)), format="yuv444p")
    scaled = VideoReformatter().reformat(picture, width=width, height=height, interpolation=BICUBIC, threads=1)
    planes: Frame = scaled.to_ndarray().astype(np.uint8, copy=False)
    return planes.transpose(1, 2, 0)
