"""What a video file holds, found out without trusting it."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from pavdm_cli.errors import InputError
from pavdm_cli.video.color_space import BT2020, ColorSpace, frame_color_space, read_chroma_location
from pavdm_cli.video.io.input import HINT, Limits, check_input, open_input
from pavdm_cli.video.io.orientation import Orientation, orientation
from pavdm_cli.video.io.rgb import hdr_format
from pavdm_cli.video.io.timing import frame_rate, last_frame_duration, scan

TOO_LARGE = "cut or shrink it first"


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A readable video; sizes are those of the upright picture, times are seconds as the file counts them."""

    path: Path
    width: int
    height: int
    sample_aspect: Fraction  # width of a pixel over its height
    rate: Fraction  # frames per second, by the most common gap
    codec: str
    pixel_format: str
    bits: int  # per colour
    hdr: str  # PQ, HLG or empty
    wide: bool  # colours of BT.2020
    color_space: ColorSpace  # tags of the first picture
    orientation: Orientation
    audio: tuple[str, ...]  # codecs
    others: int  # streams that are neither this picture nor sound
    in_order: bool  # AVI: frames have no timestamps but follow each other
    time_base: Fraction
    limits: Limits
    stamps: array[int] = field(repr=False, compare=False)  # when each frame is shown, in ticks of `time_base`
    hold: Fraction = Fraction(0)  # seconds that the last frame is shown

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.stamps)

    @property
    def times(self) -> list[Fraction]:
        """When each frame is shown."""
        return [stamp * self.time_base for stamp in self.stamps]

    @property
    def start(self) -> Fraction:
        """When the first frame is shown."""
        return self.stamps[0] * self.time_base

    @property
    def end(self) -> Fraction:
        """When the last frame has been shown as long as the file says."""
        return self.stamps[-1] * self.time_base + self.hold

    @property
    def duration(self) -> Fraction:
        """How long the picture is shown."""
        return self.end - self.start

    @property
    def variable(self) -> bool:
        """Whether the time between frames varies by more than rounding."""
        gaps = self._gaps()
        return bool(gaps) and max(gaps) - min(gaps) > 1

    @property
    def shortest_frame(self) -> Fraction:
        """Seconds from one frame to the next, at least."""
        return min(self._gaps(), default=0) * self.time_base or self.hold

    @property
    def longest_frame(self) -> Fraction:
        """Seconds that a frame is shown, at most."""
        return max(max(self._gaps(), default=0) * self.time_base, self.hold)

    def _gaps(self) -> list[int]:
        return [after - before for before, after in itertools.pairwise(self.stamps)]

    def notes(self) -> list[str]:
        """What reading it as upright 8-bit bt709 RGB changes, one line each."""
        light = f"{self.hdr} to standard range (bt709), highlights rolled off" if self.hdr else ""
        wide = "colours of bt2020 to bt709" if self.wide and not self.hdr else ""
        depth = f"{self.bits} bits to 8" if self.bits > 8 else ""
        return [note for note in (self.orientation.note(), light, wide, depth) if note]


def open_video(path: str | os.PathLike[str], limits: Limits | None = None) -> VideoInfo:
    """Find out what a video file holds; no picture is decoded before its size is known to be bearable.

    Raises: InputError, with one line that says what is wrong.
    """
    limits, file = limits or Limits(), check_input(path)
    with open_input(file, limits) as source:
        stream = video_stream(source, file)
        size = stream.codec_context.width, stream.codec_context.height
        if size[0] * size[1] > limits.pixels:
            raise InputError(f"{file} has pictures of {size[0]}x{size[1]}, more than can be held", TOO_LARGE)
        info = _describe(source, stream, file, limits)
    with open_input(file, limits) as source:
        return _time(info, source, video_stream(source, file))


def video_stream(source: InputContainer, path: Path) -> VideoStream:
    """The first stream that is a moving picture, not the cover of an album. Raises: InputError."""
    for stream in source.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    raise InputError(f"{path} has no picture{', only sound' if source.streams.audio else ''}", HINT)


def pictures(source: InputContainer, stream: VideoStream, limits: Limits) -> Iterator[av.VideoFrame | None]:
    """The stream's pictures in the order they are shown, those at the flush included; None for each damaged packet."""
    stream.codec_context.options = {"max_pixels": str(limits.pixels)}  # a picture may be larger than the header says
    stream.thread_type = "SLICE"  # by whole frames, a damaged packet would take good ones with it
    for packet in packets(source, stream):
        try:
            yield from stream.decode(packet)
        except av.FFmpegError:
            yield None


def packets(source: InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
    """The stream's packets that hold a frame, and the flush at the end; a damaged container ends early."""
    return (packet for packet in _all_packets(source, stream) if packet.size or packet.dts is None)


def _all_packets(source: InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
    """As `packets`, with the empty ones by which AVI repeats a frame."""
    gif = stream.codec_context.name == "gif"
    try:
        for packet in source.demux(stream):
            if not (gif and _only_words(bytes(packet))):
                yield packet
    except av.FFmpegError:
        return


def _only_words(blocks: bytes) -> bool:
    """Whether a packet of a GIF holds extensions, as the comment at its end, and no picture after them."""
    at = 0
    while blocks[at : at + 1] == b"!":
        at += 2
        while blocks[at : at + 1] not in (b"", b"\0"):
            at += blocks[at] + 1
        at += 1
    return at > 0 and blocks[at : at + 1] != b","


def _describe(source: InputContainer, stream: VideoStream, path: Path, limits: Limits) -> VideoInfo:
    picture = next((one for one in pictures(source, stream, limits) if one is not None), None)
    if picture is None:
        raise InputError(f"{path} has no picture of up to {limits.pixels} pixels that can be decoded", HINT)
    way = orientation(picture)
    aspect = _aspect(stream)
    upright = (picture.height, picture.width) if way.turned else (picture.width, picture.height)
    return VideoInfo(
        path=path,
        width=upright[0],
        height=upright[1],
        sample_aspect=1 / aspect if way.turned else aspect,
        rate=stream.average_rate or Fraction(25),
        codec=_codec_name(stream),
        pixel_format=picture.format.name,
        bits=picture.format.components[0].bits,
        hdr=hdr_format(picture.color_trc),
        wide=picture.color_primaries == BT2020,
        color_space=frame_color_space(picture, read_chroma_location(stream)),
        orientation=way,
        audio=tuple(_codec_name(one) for one in source.streams.audio),
        others=len(source.streams) - 1 - len(source.streams.audio),
        in_order=source.format.name == "avi",
        time_base=stream.time_base or Fraction(1, 1000),
        limits=limits,
        stamps=array("q", [] if picture.pts is None else [picture.pts]),
    )


def _codec_name(stream: Stream) -> str:
    """The codec, not the decoder: h264, av1, mp3."""
    return stream.codec_context.codec.canonical_name if stream.codec_context is not None else "unknown"


def _aspect(stream: VideoStream) -> Fraction:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if Fraction(1, 16) <= aspect <= 16 else Fraction(1)


def _time(info: VideoInfo, source: InputContainer, stream: VideoStream) -> VideoInfo:
    """With the times of all frames, from the first that can be decoded. Raises: InputError."""
    first = None if info.in_order or not info.stamps else info.stamps[0]
    times = scan(_all_packets(source, stream), info.in_order, info.limits.frames, first)
    if len(times.stamps) + times.unknown > info.limits.frames:
        raise InputError(f"{info.path} has more than {info.limits.frames} frames", TOO_LARGE)
    rate = frame_rate(times.stamps, info.time_base, stream)
    gap = max(1, round(1 / (rate * info.time_base)))
    before = (times.stamps[0] - gap * number for number in range(times.unknown, 0, -1))
    hold = last_frame_duration(times, rate, stream, source)
    timed = replace(info, stamps=array("q", [*before, *times.stamps]), rate=rate, hold=hold)
    if timed.duration > info.limits.seconds:
        hours = round(timed.duration / 3600)
        raise InputError(f"{info.path} lasts {hours} hours, more than {info.limits.seconds // 3600}", TOO_LARGE)
    return timed
