"""Probe and decode the video stream of an untrusted file."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from pavdm_cli.errors import InputError
from pavdm_cli.video.color_space import BT2020, HLG, PQ, ColorSpace, frame_color_space, read_chroma_location
from pavdm_cli.video.io.cropping import Cropping, read_cropping
from pavdm_cli.video.io.input import HINT, Limits, check_input, open_input
from pavdm_cli.video.io.orientation import Orientation, read_orientation
from pavdm_cli.video.io.timing import frame_rate, last_frame_duration, scan_packets
from pavdm_cli.video.matroska_header import matroska_header

TOO_LARGE = "cut or shrink it first"


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A readable video. Sizes are those after cropping and rotation; times are seconds on the file's own clock."""

    path: Path
    width: int
    height: int
    sample_aspect_ratio: Fraction
    rate: Fraction  # frames per second, by the most common gap
    codec: str
    pixel_format: str
    bit_depth: int
    hdr: str  # PQ, HLG or empty
    wide_gamut: bool  # BT.2020 primaries
    color_space: ColorSpace  # of the first frame
    cropping: Cropping
    orientation: Orientation
    audio_codecs: tuple[str, ...]
    other_streams: int  # neither this video stream nor audio
    in_decode_order: bool  # AVI: frames have no timestamps and are presented in the order of their packets
    time_base: Fraction
    limits: Limits
    timestamps: array[int] = field(repr=False, compare=False)  # of every frame, in ticks of `time_base`
    last_duration: Fraction = Fraction(0)  # seconds of the last frame

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.timestamps)

    @property
    def times(self) -> list[Fraction]:
        """Presentation times of all frames."""
        return [timestamp * self.time_base for timestamp in self.timestamps]

    @property
    def start(self) -> Fraction:
        """The presentation time of the first frame."""
        return self.timestamps[0] * self.time_base

    @property
    def end(self) -> Fraction:
        """The time at which the last frame ends."""
        return self.timestamps[-1] * self.time_base + self.last_duration

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame to the end of the last."""
        return self.end - self.start

    @property
    def variable_frame_rate(self) -> bool:
        """Whether gaps between frames differ by more than rounding."""
        gaps = self._gaps()
        return bool(gaps) and max(gaps) - min(gaps) > 1

    @property
    def shortest_frame(self) -> Fraction:
        """The smallest gap between frames, in seconds."""
        return min(self._gaps(), default=0) * self.time_base or self.last_duration

    @property
    def longest_frame(self) -> Fraction:
        """The longest time that a frame is displayed, in seconds."""
        return max(max(self._gaps(), default=0) * self.time_base, self.last_duration)

    def _gaps(self) -> list[int]:
        return [after - before for before, after in itertools.pairwise(self.timestamps)]

    def notes(self) -> list[str]:
        """What the conversion to upright 8-bit BT.709 RGB changes, one line each."""
        tone_mapping = f"{self.hdr} to standard range (bt709), highlights rolled off" if self.hdr else ""
        gamut = "colors converted from bt2020 to bt709" if self.wide_gamut and not self.hdr else ""
        depth = f"{self.bit_depth} bits to 8" if self.bit_depth > 8 else ""
        return [note for note in (self.cropping.note(), self.orientation.note(), tone_mapping, gamut, depth) if note]


def open_video(path: str | os.PathLike[str], limits: Limits | None = None) -> VideoInfo:
    """Probe a video file; its frame size is checked before anything is decoded. Raises: InputError."""
    limits, file = limits or Limits(), check_input(path)
    with open_input(file, limits) as source:
        stream = video_stream(source, file)
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > limits.pixels:
            raise InputError(f"{file} has frames of {width}x{height}, more than fits in memory", TOO_LARGE)
        info = _probe(source, stream, file, limits)
    with open_input(file, limits) as source:
        return _with_timestamps(info, source, video_stream(source, file))


def video_stream(source: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is not cover art. Raises: InputError."""
    for stream in source.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    raise InputError(f"{path} has no video stream{', only audio' if source.streams.audio else ''}", HINT)


def decode_frames(source: InputContainer, stream: VideoStream, limits: Limits) -> Iterator[av.VideoFrame | None]:
    """Decode all frames in presentation order, including those flushed at the end; None for each damaged packet."""
    stream.codec_context.options = {"max_pixels": str(limits.pixels)}  # frames may be larger than the header says
    stream.codec_context.flags |= Flags.unaligned  # otherwise columns cropped at the left stay
    stream.thread_type = "SLICE"  # with frame threads, a damaged packet also loses good frames
    for packet in _demux(source, stream):
        if packet.size or packet.dts is None:  # an empty packet without a timestamp flushes the decoder
            try:
                yield from stream.decode(packet)
            except av.FFmpegError:
                yield None


def _demux(source: InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
    """The stream's packets, including empty ones, which repeat a frame in AVI; a damaged container ends early."""
    is_gif = stream.codec_context.name == "gif"
    try:
        for packet in source.demux(stream):
            if not (is_gif and _has_no_image(bytes(packet))):
                yield packet
    except av.FFmpegError:
        return


def _has_no_image(blocks: bytes) -> bool:
    """Whether a GIF packet consists of extension blocks only, such as a comment at the end of the file."""
    position = 0
    while blocks[position : position + 1] == b"!":
        position += 2
        while blocks[position : position + 1] not in (b"", b"\0"):
            position += blocks[position] + 1
        position += 1
    return position > 0 and blocks[position : position + 1] != b","


def _probe(source: InputContainer, stream: VideoStream, path: Path, limits: Limits) -> VideoInfo:
    """Everything but the timestamps, from the headers and the first frame that can be decoded."""
    frame = next((frame for frame in decode_frames(source, stream, limits) if frame is not None), None)
    if frame is None:
        raise InputError(f"{path} has no frame of up to {limits.pixels} pixels that can be decoded", HINT)
    orientation = read_orientation(frame)
    aspect = _sample_aspect_ratio(stream)
    header = matroska_header(stream)
    cropping = read_cropping(header, frame.height, frame.width)
    height, width = cropping.displayed_size(frame.height, frame.width)
    size = (height, width) if orientation.transposed else (width, height)
    return VideoInfo(
        path=path,
        width=size[0],
        height=size[1],
        sample_aspect_ratio=1 / aspect if orientation.transposed else aspect,
        rate=stream.average_rate or Fraction(25),
        codec=_codec_name(stream),
        pixel_format=frame.format.name,
        bit_depth=frame.format.components[0].bits,
        hdr={PQ: "PQ", HLG: "HLG"}.get(frame.color_trc, ""),
        wide_gamut=frame.color_primaries == BT2020,
        color_space=frame_color_space(frame, read_chroma_location(header)),
        cropping=cropping,
        orientation=orientation,
        audio_codecs=tuple(_codec_name(audio) for audio in source.streams.audio),
        other_streams=len(source.streams) - 1 - len(source.streams.audio),
        in_decode_order=source.format.name == "avi",
        time_base=stream.time_base or Fraction(1, 1000),
        limits=limits,
        timestamps=array("q", [] if frame.pts is None else [frame.pts]),
    )


def _codec_name(stream: Stream) -> str:
    """The name of the codec rather than of the decoder: h264, av1, mp3."""
    return stream.codec_context.codec.canonical_name if stream.codec_context is not None else "unknown"


def _sample_aspect_ratio(stream: VideoStream) -> Fraction:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if Fraction(1, 16) <= aspect <= 16 else Fraction(1)


def _with_timestamps(info: VideoInfo, source: InputContainer, stream: VideoStream) -> VideoInfo:
    """Add the timestamps of all frames, starting with the first that can be decoded. Raises: InputError."""
    first = None if info.in_decode_order or not info.timestamps else info.timestamps[0]
    times = scan_packets(_demux(source, stream), info.in_decode_order, info.limits.frames, first)
    if len(times.timestamps) + times.untimed > info.limits.frames:
        raise InputError(f"{info.path} has more than {info.limits.frames} frames", TOO_LARGE)
    rate = frame_rate(times.timestamps, info.time_base, stream)
    gap = max(1, round(1 / (rate * info.time_base)))
    before = (times.timestamps[0] - gap * number for number in range(times.untimed, 0, -1))
    last_duration = last_frame_duration(times, rate, stream, source)
    timestamps = array("q", [*before, *times.timestamps])
    timed_info = replace(info, timestamps=timestamps, rate=rate, last_duration=last_duration)
    if timed_info.duration > info.limits.seconds:
        hours = round(timed_info.duration / 3600)
        raise InputError(f"{info.path} lasts {hours} hours, more than {info.limits.seconds // 3600}", TOO_LARGE)
    return timed_info
