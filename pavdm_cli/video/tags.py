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
class Colours:
    """Numbers of ITU-T H.273, the range of values, and the siting of subsampled chroma as FFmpeg names it."""

    primaries: int = 1
    transfer: int = 1
    matrix: int = BT709
    full_range: bool = False
    siting: str = "left"


STANDARD = Colours()


def colours_of(picture: av.VideoFrame, siting: str = "left") -> Colours:
    """The tags of a decoded picture; a matrix that is unspecified or unknown is the one that players assume."""
    untagged = BT709 if picture.height >= HD_HEIGHT else SMPTE170M
    return Colours(
        primaries=picture.color_primaries,
        transfer=picture.color_trc,
        matrix=picture.colorspace if picture.colorspace in MATRICES else untagged,
        full_range=picture.color_range == FULL_RANGE or picture.format.name.startswith("yuvj"),
        siting=siting,
    )


def is_wide(colours: Colours) -> bool:
    """Whether these are colours or brightness that no standard screen shows."""
    return colours.transfer in (PQ, HLG) or colours.primaries == BT2020


def output_colours(colours: Colours, pixel_format: str) -> Colours:
    """The tags of an 8-bit 4:2:0 file that continues pictures with these: their own where such a file can keep them."""
    form = av.VideoFormat(pixel_format)
    grey = len(form.components) < 3 or form.has_palette
    if grey or form.is_rgb or is_wide(colours) or colours.matrix not in (BT709, BT470BG, SMPTE170M):
        return STANDARD
    guess = BT709 if colours.matrix == BT709 else UNSPECIFIED
    primaries = guess if colours.primaries == UNSPECIFIED else colours.primaries
    transfer = guess if colours.transfer == UNSPECIFIED else colours.transfer
    return Colours(primaries, transfer, colours.matrix)


def fits(picture: av.VideoFrame, colours: Colours, siting: str) -> bool:
    """Whether the samples of a decoded picture are those that an 8-bit 4:2:0 file of these colours holds."""
    own = colours_of(picture, siting)
    return (
        picture.format.name == "yuv420p"
        and not own.full_range
        and own.siting == colours.siting
        and (not is_wide(own) and output_colours(own, "yuv420p") == colours)
    )


def siting_of(stream: VideoStream) -> str:
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
