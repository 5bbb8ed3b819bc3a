"""Convert decoded frames to 8-bit BT.709 RGB, tone-mapping HDR."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from pavdm_cli.video.color_space import BT2020, HLG, PQ, frame_color_space, is_hdr_or_wide_gamut
from pavdm_cli.video.convert import FrameConverter
from pavdm_cli.video.frame import Frame

REFERENCE_WHITE = 203.0  # nits (ITU-R BT.2408)
KNEE = 0.7  # fraction of reference white above which highlights are rolled off
BT2020_TO_BT709 = np.array(  # of linear light (ITU-R BT.2087)
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def has_transparency(frame: av.VideoFrame) -> bool:
    """Whether any pixel of the frame is not opaque."""
    if not (frame.format.has_palette or any(component.is_alpha for component in frame.format.components)):
        return False
    return bool(frame.reformat(format="rgba").to_ndarray()[..., 3].min() < 255)


class RGBConverter:
    """Converts the decoded frames of one video to RGB of its coded size."""

    def __init__(self, width: int, height: int, chroma_location: str = "left") -> None:
        self._chroma_location = chroma_location
        self._to_rgb24, self._to_rgb48 = (FrameConverter(width, height, name) for name in ("rgb24", "rgb48le"))

    def convert(self, frame: av.VideoFrame) -> Frame:
        """RGB (H, W, 3), before the display rotation."""
        color_space = frame_color_space(frame, self._chroma_location)
        if is_hdr_or_wide_gamut(color_space):
            signal = self._to_rgb48.convert(frame, color_space).to_ndarray().astype(np.uint16, copy=False)
            return tone_map(signal, color_space.transfer, color_space.primaries == BT2020)
        return self._to_rgb24.convert(frame, color_space).to_ndarray().astype(np.uint8, copy=False)


def tone_map(signal: NDArray[np.uint16], transfer: int, wide_gamut: bool) -> Frame:  # (H, W, 3) RGB
    """Map HDR or wide-gamut RGB to BT.709: linearize, roll off highlights, convert primaries, apply gamma 2.4.

    The curve `x -> KNEE + (1 - KNEE) * (1 - exp(-(x - KNEE) / (1 - KNEE)))` is applied to the largest of R, G and B
    (1 is reference white) and scales all three, which keeps the hue.
    """
    light: NDArray[np.float32] = _linearization_table(transfer)[signal]
    if transfer == HLG:  # OOTF of a 1000-nit display (ITU-R BT.2100)
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light *= 1000 / REFERENCE_WHITE * np.maximum(luminance, 1e-6)[..., None] ** 0.2
    if transfer in (PQ, HLG):
        light *= _roll_off(light.max(-1, keepdims=True))
    if wide_gamut:
        light = light @ BT2020_TO_BT709.T
    pixels: NDArray[np.float32] = np.clip(light, 0, 1) ** (1 / 2.4) * 255
    return pixels.round().astype(np.uint8)


def _roll_off(peak: NDArray[np.float32]) -> NDArray[np.float32]:
    """The gain for pixels whose largest channel is `peak`."""
    above = np.maximum(peak - KNEE, 0) / (1 - KNEE)
    gain: NDArray[np.float32] = np.minimum(peak, KNEE) - (1 - KNEE) * np.expm1(-above)
    gain /= np.maximum(peak, 1e-6)
    return gain


def _linearization_table(transfer: int) -> NDArray[np.float32]:  # (65536,), in units of reference white
    signal = np.linspace(0, 1, 65536)
    if transfer == PQ:
        light = _pq_to_nits(signal) / REFERENCE_WHITE
    elif transfer == HLG:  # scene light; `tone_map` applies the OOTF
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    else:
        light = signal**2.4
    return light.astype(np.float32)


def _pq_to_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:  # SMPTE ST 2084
    power = signal ** (32 / 2523)
    return 10000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (8192 / 1305)
