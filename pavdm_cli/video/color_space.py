"""Colour tags: how the numbers of a YUV picture are meant, and where its chroma samples lie."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
from av.video.stream import VideoStream

UNSPECIFIED = 2  # of primaries, transfer and matrix: the number that says nothing
BT709, BT470BG, SMPTE170M, BT2020 = 1, 5, 6, 9  # the middle two are both the matrix of BT.601
PQ, HLG = 16, 18  # transfers of HDR
MATRICES = (BT709, 4, BT470BG, SMPTE170M, 7, BT2020, 10)  # those that swscale can convert
FULL_RANGE = 2  # AVCOL_RANGE_JPEG
HD_HEIGHT = 720  # players take untagged pictures of this height and above for BT.709, smaller ones for BT.601

COLOUR, HORIZONTAL, VERTICAL = b"\x55\xb0", b"\x55\xb7\x81", b"\x55\xb8\x81"  # Matroska: a master, two of its numbers
SITINGS = {(1, 2): "left", (2, 2): "center", (1, 1): "topleft", (2, 1): "top"}


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """Numbers of ITU-T H.273, the range of values, and the siting of subsampled chroma as FFmpeg names it."""

    primaries: int = 1
    transfer: int = 1
    matrix: int = BT709
    full_range: bool = False
    chroma_location: str = "left"


STANDARD = ColorSpace()


def frame_color_space(picture: av.VideoFrame, chroma_location: str = "left") -> ColorSpace:
    """The tags of a decoded picture; a matrix that is unspecified or unknown is the one that players assume."""
    untagged = BT709 if picture.height >= HD_HEIGHT else SMPTE170M
    return ColorSpace(
        primaries=picture.color_primaries,
        transfer=picture.color_trc,
        matrix=picture.colorspace if picture.colorspace in MATRICES else untagged,
        full_range=picture.color_range == FULL_RANGE or picture.format.name.startswith("yuvj"),
        chroma_location=chroma_location,
    )


def is_wide(color_space: ColorSpace) -> bool:
    """Whether these are colours or brightness that no standard screen shows."""
    return color_space.transfer in (PQ, HLG) or color_space.primaries == BT2020


def output_color_space(color_space: ColorSpace, pixel_format: str) -> ColorSpace:
    """The tags of an 8-bit 4:2:0 file that continues pictures with these: their own where such a file can keep them."""
    form = av.VideoFormat(pixel_format)
    grey = len(form.components) < 3 or form.has_palette
    if grey or form.is_rgb or is_wide(color_space) or color_space.matrix not in (BT709, BT470BG, SMPTE170M):
        return STANDARD
    guess = BT709 if color_space.matrix == BT709 else UNSPECIFIED
    primaries = guess if color_space.primaries == UNSPECIFIED else color_space.primaries
    transfer = guess if color_space.transfer == UNSPECIFIED else color_space.transfer
    return ColorSpace(primaries, transfer, color_space.matrix)


def fits(picture: av.VideoFrame, color_space: ColorSpace, chroma_location: str) -> bool:
    """Whether the samples of a decoded picture are those that an 8-bit 4:2:0 file of these colours holds."""
    own = frame_color_space(picture, chroma_location)
    return (
        picture.format.name == "yuv420p"
        and not own.full_range
        and own.chroma_location == color_space.chroma_location
        and (not is_wide(own) and output_color_space(own, "yuv420p") == color_space)
    )


def read_chroma_location(stream: VideoStream) -> str:
    """Where the stream's chroma samples lie; left, the default of every codec of today, where nothing says it.

    PyAV does not expose the tag, but a Matroska header written for the stream spells it out.
    """
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska", options={"fflags": "+bitexact"}) as file:
            file.add_stream_from_template(stream, opaque=True)
            file.start_encoding()
    except (ValueError, av.FFmpegError):  # raw video, which Matroska does not take
        return "left"
    colour = header.getvalue().partition(COLOUR)[2]
    return SITINGS.get((_number(colour, HORIZONTAL), _number(colour, VERTICAL)), "left")


def _number(master: bytes, name: bytes) -> int:
    """The one-byte number of this name in a Colour master of one-byte length, 0 where it has none."""
    inside = master[1 : 1 + (master[:1] or b"\0")[0] & 0x7F]
    value = inside.partition(name)[2][:1]
    return value[0] if value else 0
