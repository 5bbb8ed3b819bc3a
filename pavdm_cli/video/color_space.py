"""Color spaces of video: primaries, transfer, matrix, range and chroma location, read from tags."""

from __future__ import annotations

from dataclasses import dataclass

import av

from pavdm_cli.video.matroska_header import read_integer

UNSPECIFIED = 2  # as primaries, transfer or matrix (ITU-T H.273)
BT709, BT470BG, SMPTE170M, BT2020 = 1, 5, 6, 9  # BT470BG and SMPTE170M are the same matrix, that of BT.601
PQ, HLG = 16, 18  # HDR transfer characteristics
SWSCALE_MATRICES = (BT709, 4, BT470BG, SMPTE170M, 7, BT2020, 10)  # those that swscale can convert
FULL_RANGE = 2  # AVCOL_RANGE_JPEG
HD_HEIGHT = 720  # players assume BT.709 for untagged video of at least this height, BT.601 below

MKV_COLOR, MKV_SITING_X, MKV_SITING_Y = b"\x55\xb0", b"\x55\xb7", b"\x55\xb8"  # EBML element IDs
CHROMA_LOCATIONS = {(1, 2): "left", (2, 2): "center", (1, 1): "topleft", (2, 1): "top"}


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """Code points of ITU-T H.273, the value range, and FFmpeg's name of the chroma sample location."""

    primaries: int = 1
    transfer: int = 1
    matrix: int = BT709
    full_range: bool = False
    chroma_location: str = "left"


BT709_LIMITED = ColorSpace()


def frame_color_space(frame: av.VideoFrame, chroma_location: str = "left") -> ColorSpace:
    """The tags of a decoded frame; an unspecified or unknown matrix becomes the one that players assume."""
    default_matrix = BT709 if frame.height >= HD_HEIGHT else SMPTE170M
    return ColorSpace(
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
        matrix=frame.colorspace if frame.colorspace in SWSCALE_MATRICES else default_matrix,
        full_range=frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj"),
        chroma_location=chroma_location,
    )


def is_hdr_or_wide_gamut(color_space: ColorSpace) -> bool:
    """Whether frames must be tone-mapped or gamut-mapped for a standard (BT.709) screen."""
    return color_space.transfer in (PQ, HLG) or color_space.primaries == BT2020


def output_color_space(color_space: ColorSpace, pixel_format: str) -> ColorSpace:
    """The color space for an 8-bit 4:2:0 file that continues such a video: the same where possible, else BT.709."""
    input_format = av.VideoFormat(pixel_format)
    without_chroma = len(input_format.components) < 3 or input_format.has_palette or input_format.is_rgb
    if without_chroma or is_hdr_or_wide_gamut(color_space) or color_space.matrix not in (BT709, BT470BG, SMPTE170M):
        return BT709_LIMITED
    default = BT709 if color_space.matrix == BT709 else UNSPECIFIED
    primaries = default if color_space.primaries == UNSPECIFIED else color_space.primaries
    transfer = default if color_space.transfer == UNSPECIFIED else color_space.transfer
    return ColorSpace(primaries, transfer, color_space.matrix)


def can_pass_through(frame: av.VideoFrame, output: ColorSpace, chroma_location: str) -> bool:
    """Whether a decoded frame can be encoded into an 8-bit 4:2:0 file of color space `output` without conversion."""
    color_space = frame_color_space(frame, chroma_location)
    return (
        frame.format.name == "yuv420p"
        and not color_space.full_range
        and color_space.matrix == output.matrix
        and color_space.chroma_location == output.chroma_location
        and not is_hdr_or_wide_gamut(color_space)
        and output_color_space(color_space, "yuv420p") == output
    )


def read_chroma_location(header: bytes) -> str:
    """Where the chroma samples of a stream with this Matroska header lie.

    Untagged streams are taken as "left", the default of current codecs.
    """
    size, *color = header.partition(MKV_COLOR)[2] or b"\x80"  # its length takes one byte
    body = bytes(color[: size & 0x7F])
    return CHROMA_LOCATIONS.get((read_integer(body, MKV_SITING_X), read_integer(body, MKV_SITING_Y)), "left")
