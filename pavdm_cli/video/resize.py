"""Scale frames with swscale's bicubic filter, which neither aliases nor shifts, and crop them to a size."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from pavdm_cli.video.upscale import Frame

BICUBIC = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
MARGIN = 8  # pixels kept around the crop for the filter's support


@dataclass(frozen=True, slots=True)
class AxisResize:
    """Crop an axis to its middle `cropped` pixels, then scale those to `scaled`; the output is the middle of that.

    Both crops remove an even number of pixels, so the center stays in place.
    """

    cropped: int
    scaled: int


def scale_to_cover(frame: Frame, size: tuple[int, int], pixel_aspect: Fraction = Fraction(1)) -> Frame:
    """Scale a frame until it covers `size` (height, width), keeping its aspect ratio, and crop the center.

    `pixel_aspect` is the sample aspect ratio of the input over that of the output.
    """
    height, width = frame.shape[:2]
    scale = max(Fraction(size[0], height), size[1] / (width * pixel_aspect))
    rows, columns = _plan_axis(height, scale, size[0]), _plan_axis(width, scale * pixel_aspect, size[1])
    crop = _crop_center(frame, rows.cropped, columns.cropped)
    return np.ascontiguousarray(_crop_center(_scale(crop, rows.scaled, columns.scaled), *size))


def _plan_axis(length: int, scale: Fraction, target: int) -> AxisResize:
    """Crop at the lower resolution: before upscaling (with a margin), or at once where scaling down."""
    if scale < 1:
        return AxisResize(_round_to_parity(target / scale, length), target)
    crop_length = min(length, _round_to_parity(target / scale + 2 * MARGIN, length))
    return AxisResize(crop_length, max(target, _round_to_parity(crop_length * scale, target)))


def _round_to_parity(length: Fraction, reference: int) -> int:
    """The nearest positive integer that differs from `reference` by an even number."""
    return max(2 - reference % 2, reference + 2 * round((length - reference) / 2))


def _crop_center(frame: Frame, height: int, width: int) -> Frame:
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    return frame[top : top + height, left : left + width]


def _scale(frame: Frame, height: int, width: int) -> Frame:
    """Scale R, G and B as the planes of a 4:4:4 frame, which preserves flat colors exactly."""
    planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(2, 0, 1)), format="yuv444p")
    scaled_frame = VideoReformatter().reformat(planes, width=width, height=height, interpolation=BICUBIC, threads=1)
    channels: Frame = scaled_frame.to_ndarray().astype(np.uint8, copy=False)
    return channels.transpose(1, 2, 0)
