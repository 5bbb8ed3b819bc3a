"""Decoded pictures to 8-bit RGB as a standard screen shows it (bt709), whatever they were recorded in."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from pavdm_cli.video.encode import EXACT, Frame

PQ, HLG, BT2020 = 16, 18, 9  # AVCOL_TRC_SMPTE2084, AVCOL_TRC_ARIB_STD_B67, AVCOL_PRI_BT2020
WHITE = 203.0  # nits of reference white in HDR (ITU-R BT.2408)
KNEE = 0.7  # of reference white: tones above are rolled off
TO_BT709 = np.array(  # linear light, BT.2020 to BT.709 (ITU-R BT.2087)
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601} | {
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


def hdr_kind(transfer: int) -> str:
    """PQ, HLG, or nothing, from the transfer characteristic."""
    return {PQ: "PQ", HLG: "HLG"}.get(transfer, "")


class Screen:
    """Turns decoded pictures to RGB, one after another of one video."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._scaler = VideoReformatter()

    def show(self, picture: av.VideoFrame) -> Frame:
        """The picture as RGB (H, W, 3) at the video's size, not yet turned upright; HDR is tone-mapped."""
        if picture.color_trc in (PQ, HLG) or picture.color_primaries == BT2020:
            signal = self._rgb(picture, "rgb48le").astype(np.uint16, copy=False)
            return to_standard(signal, picture.color_trc, picture.color_primaries == BT2020)
        return self._rgb(picture, "rgb24").astype(np.uint8, copy=False)

    def _rgb(self, picture: av.VideoFrame, form: str) -> NDArray[np.generic]:
        untagged = Colorspace.ITU709 if picture.height >= 720 else Colorspace.ITU601  # as players guess
        return self._scaler.reformat(
            picture,
            width=self._width,
            height=self._height,
            format=form,
            src_colorspace=MATRICES.get(picture.colorspace, untagged),
            dst_color_range=ColorRange.JPEG,
            interpolation=EXACT,
        ).to_ndarray()


def to_standard(signal: NDArray[np.uint16], transfer: int, wide: bool) -> Frame:  # (H, W, 3) uint16 RGB
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
