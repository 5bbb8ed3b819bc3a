"""Decoded pictures to 8-bit RGB as a standard screen shows it (bt709), whatever they were recorded in."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from pavdm_cli.video.color_space import BT2020, HLG, PQ, frame_color_space
from pavdm_cli.video.convert import Converter
from pavdm_cli.video.write.encode import Frame

WHITE = 203.0  # nits of reference white in HDR (ITU-R BT.2408)
KNEE = 0.7  # of reference white: tones above are rolled off
TO_BT709 = np.array(  # linear light, BT.2020 to BT.709 (ITU-R BT.2087)
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def hdr_format(transfer: int) -> str:
    """PQ, HLG, or nothing, from the transfer characteristic."""
    return {PQ: "PQ", HLG: "HLG"}.get(transfer, "")


def has_transparency(picture: av.VideoFrame) -> bool:
    """Whether any of a picture's pixels is transparent."""
    if not (picture.format.has_palette or any(part.is_alpha for part in picture.format.components)):
        return False
    return bool(picture.reformat(format="rgba").to_ndarray()[..., 3].min() < 255)


class RGBConverter:
    """Turns decoded pictures of one video to RGB, given where the samples of its chroma lie."""

    def __init__(self, width: int, height: int, chroma_location: str = "left") -> None:
        self._siting = chroma_location
        self._eight, self._sixteen = Converter(width, height, "rgb24"), Converter(width, height, "rgb48le")

    def show(self, picture: av.VideoFrame) -> Frame:
        """The picture as RGB (H, W, 3) at the video's size, not yet turned upright; HDR is tone-mapped."""
        if picture.color_trc in (PQ, HLG) or picture.color_primaries == BT2020:
            signal = self._rgb(picture, self._sixteen).astype(np.uint16, copy=False)
            return tone_map(signal, picture.color_trc, picture.color_primaries == BT2020)
        return self._rgb(picture, self._eight).astype(np.uint8, copy=False)

    def _rgb(self, picture: av.VideoFrame, converter: Converter) -> NDArray[np.generic]:
        return converter.convert(picture, frame_color_space(picture, self._siting)).to_ndarray()


def tone_map(signal: NDArray[np.uint16], transfer: int, wide: bool) -> Frame:  # (H, W, 3) uint16 RGB
    """HDR or wide-gamut RGB to bt709: to linear light, tones above the knee rolled off, gamut mapped, gamma 2.4.

    Tones keep their hue: the curve `x -> KNEE + (1 - KNEE) * (1 - exp(-(x - KNEE) / (1 - KNEE)))` is applied to the
    largest of R, G and B (1 is reference white) and scales all three.
    """
    light: NDArray[np.float32] = _light_table(transfer)[signal]
    if transfer == HLG:  # the display's part of the curve, for a screen of 1000 nits (ITU-R BT.2100)
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light *= 1000 / WHITE * np.maximum(luminance, 1e-6)[..., None] ** 0.2
    if transfer in (PQ, HLG):
        light *= _roll_off(light.max(-1, keepdims=True))
    if wide:
        light = light @ TO_BT709.T
    shown: NDArray[np.float32] = np.clip(light, 0, 1) ** (1 / 2.4) * 255
    return shown.round().astype(np.uint8)


def _roll_off(peak: NDArray[np.float32]) -> NDArray[np.float32]:
    above = np.maximum(peak - KNEE, 0) / (1 - KNEE)
    mapped: NDArray[np.float32] = np.minimum(peak, KNEE) - (1 - KNEE) * np.expm1(-above)
    mapped /= np.maximum(peak, 1e-6)
    return mapped


def _light_table(transfer: int) -> NDArray[np.float32]:  # (65536,): signal -> linear light, 1 is reference white
    signal = np.linspace(0, 1, 65536)
    if transfer == PQ:
        light = _pq_nits(signal) / WHITE
    elif transfer == HLG:  # scene light; `to_standard` adds the display's part
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    else:
        light = signal**2.4
    return light.astype(np.float32)


def _pq_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:  # SMPTE ST 2084
    power = signal ** (32 / 2523)
    return 10000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (8192 / 1305)
