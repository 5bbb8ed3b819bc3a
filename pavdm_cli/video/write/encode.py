"""Encode frames into a video file with the encoders inside PyAV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.codec.context import ThreadType
from av.container import OutputContainer
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pavdm_cli.video.color_space import BT709_LIMITED, ColorSpace
from pavdm_cli.video.convert import FrameConverter
from pavdm_cli.video.upscale import Scale
from pavdm_cli.video.write.sink import Sink

Frame = NDArray[np.uint8]  # (H, W, 3), RGB, upright

# Plays while it grows and after a kill; closing turns it into a regular MP4. `delay_moov` writes the header with the
# first GOP: without it, B-frames shift every timestamp by two frames.
FRAGMENTED_MP4 = "+hybrid_fragmented+frag_keyframe+delay_moov+use_metadata_tags"
MUXERS = {".mp4": "mp4", ".mkv": "matroska", ".webm": "webm", ".gif": "gif"}
GIF_PALETTE = {"stats_mode": "single", "reserve_transparent": "0"}  # one palette per frame: constant memory
GIF_DITHER = {"new": "1", "dither": "sierra2_4a"}
# x264 otherwise selects algorithms by CPU, and its AVX-512 code reads uninitialized memory.
X264_DETERMINISTIC = "cpu-independent=1"
MUXER_BITEXACT = "+bitexact"  # Matroska's muxer otherwise assigns random IDs to the file and its tracks


@dataclass(frozen=True, slots=True)
class VideoParams:
    """Parameters of an output video stream."""

    width: int
    height: int
    rate: Fraction  # frames per second
    sample_aspect_ratio: Fraction = Fraction(1)
    time_base: Fraction | None = None  # seconds; one frame if None
    variable_frame_rate: bool = False
    color_space: ColorSpace = BT709_LIMITED
    max_rate: Fraction | None = None  # fps at the shortest gap between frames, if the frame rate varies

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height, padded to even numbers for 4:2:0."""
        return self.width + self.width % 2, self.height + self.height % 2

    @property
    def tick(self) -> Fraction:
        """The unit of timestamps, in seconds."""
        return self.time_base or 1 / self.rate


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """Rate control and choice of the encoder."""

    crf: int = 18
    gop: int = 24  # frames between keyframes, the most that a kill can lose
    threads: int = 8  # fixed, since the output depends on it
    encoder: str = ""  # of an external ffmpeg, such as h264_nvenc; empty: those inside PyAV
    ffmpeg: str = ""  # path of the external ffmpeg; empty: imageio-ffmpeg's, or the one on PATH
    scale: Scale = field(default_factory=Scale)  # applied to frames before encoding


class Encoder(Protocol):
    """A video file that frames are appended to."""

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append a frame with its timestamp in ticks."""

    def close(self) -> None:
        """Flush the encoder and close the file."""

    def abort(self) -> None:
        """Close a file that is about to be deleted, without flushing."""


@dataclass
class PyAVEncoder:
    """MP4 and Matroska with libx264, WebM with libvpx-vp9; packets of other streams can be muxed alongside."""

    path: Path
    params: VideoParams
    options: EncoderOptions
    comment: str = ""
    add_streams: Callable[[OutputContainer], None] | None = None  # adds further streams, after the video stream
    finish_file: Callable[[Path], None] | None = None  # adds what a muxer cannot write to the closed file

    def __post_init__(self) -> None:
        self._sink = Sink(self.path)
        muxer, options = MUXERS[self.path.suffix.lower()], _muxer_options(self.path)
        self._container = av.open(self._sink, "w", format=muxer, options=options)
        self._container.metadata["comment"] = self.comment
        self._stream = self._add_video_stream()
        self._converter = FrameConverter(*self.params.coded_size, "yuv420p", self.params.color_space)
        self._rgb: Frame | None = None  # the last frame that was converted to
        self._yuv: av.VideoFrame
        if self.add_streams:
            self.add_streams(self._container)

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append a frame of the stream's size; odd sizes are padded by repeating the last row and column.

        A decoded frame (`av.VideoFrame`) is encoded without conversion: it must be 8-bit 4:2:0 in the output's color
        space.
        """
        if isinstance(frame, av.VideoFrame):
            yuv = frame
            yuv.pict_type = PictureType.NONE  # otherwise the encoder repeats the input's frame types
            yuv.duration = 0  # it is in the input's time base
        else:
            yuv = self._to_yuv(frame)
        yuv.pts, yuv.time_base = time, self.params.tick
        self.mux(self._with_duration(self._stream.encode(yuv)))

    def mux(self, packets: Sequence[av.Packet[Any]]) -> None:
        """Mux packets of the video stream or of a stream that `add_streams` added."""
        self._container.mux(packets)
        self._sink.check()

    def close(self) -> None:
        """Flush the encoder and write the index."""
        with closing(self._sink):
            with closing(self._container):
                self._container.mux(self._with_duration(self._stream.encode()))
            self._sink.check()
        if self.finish_file:
            self.finish_file(self.path)

    def abort(self) -> None:
        """Close the file without its last frames."""
        with closing(self._sink), closing(self._container):
            pass

    def _to_yuv(self, frame: Frame) -> av.VideoFrame:
        """Convert an RGB frame, once if the same object is repeated."""
        if frame is not self._rgb:
            rgb = av.VideoFrame.from_ndarray(pad_to_even(frame), format="rgb24")
            self._rgb, self._yuv = frame, self._converter.convert(rgb)
        return self._yuv

    def _with_duration(self, packets: Sequence[av.Packet[VideoStream]]) -> Sequence[av.Packet[VideoStream]]:
        """Set the nominal frame duration, which the container stores for the last packet."""
        for packet in packets if self.params.max_rate else ():
            packet.duration = round(1 / (self.params.rate * packet.time_base))
        return packets

    def _add_video_stream(self) -> VideoStream:
        options = _codec_options(self.path, self.options, self.params)
        rate = self.params.max_rate or self.params.rate  # players may drop frames that are closer than the rate says
        stream = self._container.add_stream(_codec_name(self.path), rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        self._configure(stream.codec_context)
        return stream

    def _configure(self, codec: VideoCodecContext) -> None:
        codec.width, codec.height = self.params.coded_size
        codec.pix_fmt = "yuv420p"
        codec.time_base = self.params.tick
        codec.sample_aspect_ratio = self.params.sample_aspect_ratio
        codec.gop_size = self.options.gop
        codec.thread_count, codec.thread_type = self.options.threads, ThreadType.FRAME  # x264's slice threads race
        codec.bit_rate = 0  # otherwise libvpx caps the bit rate regardless of the CRF
        space = self.params.color_space
        codec.color_primaries, codec.color_trc, codec.colorspace = space.primaries, space.transfer, space.matrix
        codec.color_range = ColorRange.MPEG


class GifEncoder:
    """GIF with one palette per frame, without an external program."""

    def __init__(self, path: Path, params: VideoParams, comment: str = "") -> None:
        self._path, self._params, self._comment = path, params, comment
        self._sink = Sink(path)
        self._container = av.open(self._sink, "w", format="gif", options={"flush_packets": "1"})
        self._stream = self._container.add_stream("gif", rate=params.rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = params.width, params.height, "pal8"
        self._stream.codec_context.time_base = Fraction(1, 100)
        self._graph = _palette_graph(params)

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append an RGB frame; GIF rounds times to hundredths of a second."""
        assert not isinstance(frame, av.VideoFrame)
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        rgb.pts, rgb.time_base = time, self._params.tick
        self._graph.vpush(rgb)
        self._drain()
        self._sink.check()

    def close(self) -> None:
        """Flush the filters and append the comment."""
        with closing(self._sink):
            with closing(self._container):
                self._graph.vpush(None)
                self._drain()
                self._container.mux(self._stream.encode())
            self._sink.check()
        append_gif_comment(self._path, self._comment)

    def abort(self) -> None:
        """Close the file without its last frames."""
        with closing(self._sink), closing(self._container):
            pass

    def _drain(self) -> None:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            self._container.mux(self._stream.encode(frame))


def append_gif_comment(path: Path, comment: str) -> None:
    """Insert a comment extension before the trailer of a GIF, which FFmpeg's muxer cannot write."""
    text = comment.encode()
    blocks = b"".join(bytes([len(text[i : i + 255])]) + text[i : i + 255] for i in range(0, len(text), 255))
    with path.open("r+b") as file:
        file.seek(-1, 2)
        if text and file.read(1) == b";":
            file.seek(-1, 2)
            file.write(b"\x21\xfe" + blocks + b"\x00;")


def pad_to_even(frame: Frame) -> Frame:  # (H, W, 3) -> (H + H % 2, W + W % 2, 3)
    """Repeat the last row and column of odd sizes, for 4:2:0."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(frame)


def _codec_name(path: Path) -> str:
    return "libvpx-vp9" if path.suffix.lower() == ".webm" else "libx264"


def _muxer_options(path: Path) -> dict[str, str]:
    if path.suffix.lower() == ".mp4":
        return {"flush_packets": "1", "movflags": FRAGMENTED_MP4}
    return {"flush_packets": "1", "cluster_time_limit": "1000", "fflags": MUXER_BITEXACT}


def _codec_options(path: Path, options: EncoderOptions, params: VideoParams) -> dict[str, str]:
    location = {"chroma_sample_location": params.color_space.chroma_location}
    if _codec_name(path) == "libx264":
        # MP4 derives durations from decoding times: with B-frames, the last one would be wrong.
        b_frames = {"bf": "0"} if params.variable_frame_rate else {}
        x264 = {"rc-lookahead": str(min(options.gop, 40)), "x264-params": X264_DETERMINISTIC}
        return {"crf": str(options.crf), **x264, **b_frames, **location}
    vp9_crf = round(options.crf * 63 / 51)  # libvpx's scale ends at 63
    return {"crf": str(vp9_crf), "deadline": "good", "cpu-used": "4", "row-mt": "1", **location}


def _palette_graph(params: VideoParams) -> Graph:
    graph = Graph()
    rgb = av.VideoFormat("rgb24")
    source = graph.add_buffer(width=params.width, height=params.height, format=rgb, time_base=params.tick)
    split, sink = graph.add("split"), graph.add("buffersink")
    palette, use = graph.add("palettegen", **GIF_PALETTE), graph.add("paletteuse", **GIF_DITHER)
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
