"""Pictures to a video file, by the encoders inside PyAV; every container this program writes."""

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

from pavdm_cli.video.color_space import STANDARD, ColorSpace
from pavdm_cli.video.convert import Converter
from pavdm_cli.video.upscale import Scale
from pavdm_cli.video.write.sink import Sink

Frame = NDArray[np.uint8]  # (H, W, 3), RGB, upright

# A file that plays while it grows and after a kill, and is an ordinary MP4 once closed. `delay_moov` writes the header
# with the first group of pictures: without it, B-frames shift every timestamp by two frames.
FRAGMENTED_MP4 = "+hybrid_fragmented+frag_keyframe+delay_moov+use_metadata_tags"
FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".webm": "webm", ".gif": "gif"}
PALETTE = {"stats_mode": "single", "reserve_transparent": "0"}  # one palette a frame: constant memory, true colours
DITHER = {"new": "1", "dither": "sierra2_4a"}
# x264 otherwise chooses what to compute by the CPU; with AVX-512 it takes in memory that nothing has written.
X264_DETERMINISTIC = "cpu-independent=1"
MUXER_BITEXACT = "+bitexact"  # Matroska's muxer draws the numbers of file and tracks otherwise


@dataclass(frozen=True, slots=True)
class Track:
    """The video stream of a file: size in pixels, frames per second, the shape of a pixel, time stamps, colours."""

    width: int
    height: int
    rate: Fraction
    sample_aspect: Fraction = Fraction(1)
    time_base: Fraction | None = None  # seconds; one frame if None
    variable: bool = False  # whether the time between frames varies
    color_space: ColorSpace = STANDARD
    max_rate: Fraction | None = None  # frames per second by the shortest time between frames, if that varies

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height of the coded picture: 4:2:0 has no odd ones."""
        return self.width + self.width % 2, self.height + self.height % 2

    @property
    def tick(self) -> Fraction:
        """The unit of timestamps in seconds."""
        return self.time_base or 1 / self.rate


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """How pictures are encoded; `gop` is the frames between keyframes, the most that a kill can lose."""

    crf: int = 18
    gop: int = 24
    threads: int = 8  # not as many as there are cores: what an encoder decides depends on them
    encoder: str = ""  # an encoder of an external ffmpeg, for example h264_nvenc; empty: those inside PyAV
    ffmpeg: str = ""  # the external ffmpeg; empty: imageio-ffmpeg's or the one on PATH
    scale: Scale = field(default_factory=Scale)  # by which frames are enlarged first


class Encoder(Protocol):
    """A video file that takes frames."""

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append a frame shown from `time`, counted in the track's ticks."""

    def close(self) -> None:
        """Write all that is held back and close the file."""

    def abandon(self) -> None:
        """Close a file that is about to be removed, without encoding what is held back."""


@dataclass
class PyAVEncoder:
    """MP4 and Matroska by libx264, WebM by libvpx-vp9; audio packets may be muxed as they are."""

    path: Path
    track: Track
    encoding: EncoderOptions
    comment: str = ""
    attach: Callable[[OutputContainer], None] | None = None  # adds what is muxed beside the picture
    complete: Callable[[Path], None] | None = None  # adds to the closed file what a muxer cannot

    def __post_init__(self) -> None:
        self._sink = Sink(self.path)
        self._file = av.open(
            self._sink, "w", format=FORMATS[self.path.suffix.lower()], options=_container_options(self.path)
        )
        self._file.metadata["comment"] = self.comment
        self._stream = self._add_video()
        self._converter = Converter(*self.track.coded_size, "yuv420p", self.track.color_space)
        if self.attach:
            self.attach(self._file)

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append a frame of the track's size; odd sizes are padded to even by their last row or column.

        A decoded picture must hold what the file does (4:2:0 of 8 bits in its colours), and is encoded as it is.
        """
        if isinstance(frame, av.VideoFrame):
            picture = frame
            picture.pict_type = PictureType.NONE  # else the encoder repeats the input's choice
            picture.duration = 0  # counted in the input's ticks
        else:
            picture = self._converter.convert(av.VideoFrame.from_ndarray(pad_to_even(frame), format="rgb24"))
        picture.pts, picture.time_base = time, self.track.tick
        self.mux(self._timed(self._stream.encode(picture)))

    def mux(self, packets: Sequence[av.Packet[Any]]) -> None:
        """Append packets as they are; those that are not of the picture belong to a stream that `attach` added."""
        self._file.mux(packets)
        self._sink.check()

    def close(self) -> None:
        """Write what the encoder holds back, then the index."""
        with closing(self._sink):
            with closing(self._file):
                self._file.mux(self._timed(self._stream.encode()))
            self._sink.check()
        if self.complete:
            self.complete(self.path)

    def abandon(self) -> None:
        """Close the file without its last frames."""
        with closing(self._sink), closing(self._file):
            pass

    def _timed(self, packets: Sequence[av.Packet[VideoStream]]) -> Sequence[av.Packet[VideoStream]]:
        """The packets, each as long as a frame at the track's rate: of the last one, that is what a file says."""
        for packet in packets if self.track.max_rate else ():
            packet.duration = round(1 / (self.track.rate * packet.time_base))
        return packets

    def _add_video(self) -> VideoStream:
        options = _codec_options(self.path, self.encoding, self.track)
        rate = self.track.max_rate or self.track.rate  # players may take no frame in for less than its length
        stream = self._file.add_stream(_codec(self.path), rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        self._describe(stream.codec_context)
        return stream

    def _describe(self, codec: VideoCodecContext) -> None:
        codec.width, codec.height = self.track.coded_size
        codec.pix_fmt = "yuv420p"
        codec.time_base = self.track.tick
        codec.sample_aspect_ratio = self.track.sample_aspect
        codec.gop_size = self.encoding.gop
        codec.thread_count, codec.thread_type = self.encoding.threads, ThreadType.FRAME  # slices race in x264
        codec.bit_rate = 0  # libvpx caps the rate otherwise, whatever the CRF
        space = self.track.color_space
        codec.color_primaries, codec.color_trc, codec.colorspace = space.primaries, space.transfer, space.matrix
        codec.color_range = ColorRange.MPEG


class GifEncoder:
    """GIF with a palette a frame, without any external program."""

    def __init__(self, path: Path, track: Track, comment: str = "") -> None:
        self._path, self._track, self._comment = path, track, comment
        self._sink = Sink(path)
        self._file = av.open(self._sink, "w", format="gif", options={"flush_packets": "1"})
        self._stream = self._file.add_stream("gif", rate=track.rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = track.width, track.height, "pal8"
        self._stream.codec_context.time_base = Fraction(1, 100)
        self._graph = _palette_graph(track)

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append an RGB frame; GIF counts in hundredths of a second, so times are rounded to that."""
        assert not isinstance(frame, av.VideoFrame)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = time, self._track.tick
        self._graph.vpush(picture)
        self._drain()
        self._sink.check()

    def close(self) -> None:
        """Write what the filters hold back, then the comment."""
        with closing(self._sink):
            with closing(self._file):
                self._graph.vpush(None)
                self._drain()
                self._file.mux(self._stream.encode())
            self._sink.check()
        append_gif_comment(self._path, self._comment)

    def abandon(self) -> None:
        """Close the file without its last frames."""
        with closing(self._sink), closing(self._file):
            pass

    def _drain(self) -> None:
        while True:
            try:
                picture = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            self._file.mux(self._stream.encode(picture))


def append_gif_comment(path: Path, comment: str) -> None:
    """Put a comment extension before the end of a whole GIF, which FFmpeg's muxer cannot write."""
    text = comment.encode()
    blocks = b"".join(bytes([len(text[i : i + 255])]) + text[i : i + 255] for i in range(0, len(text), 255))
    with path.open("r+b") as file:
        file.seek(-1, 2)
        if text and file.read(1) == b";":
            file.seek(-1, 2)
            file.write(b"\x21\xfe" + blocks + b"\x00;")


def pad_to_even(frame: Frame) -> Frame:  # (H, W, 3) -> (H + H % 2, W + W % 2, 3)
    """Repeat the last row and column where their number is odd: 4:2:0 video has none."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(frame)


def _codec(path: Path) -> str:
    return "libvpx-vp9" if path.suffix.lower() == ".webm" else "libx264"


def _container_options(path: Path) -> dict[str, str]:
    if path.suffix.lower() == ".mp4":
        return {"flush_packets": "1", "movflags": FRAGMENTED_MP4}
    return {"flush_packets": "1", "cluster_time_limit": "1000", "fflags": MUXER_BITEXACT}


def _codec_options(path: Path, encoding: EncoderOptions, track: Track) -> dict[str, str]:
    chroma_location = {"chroma_sample_location": track.color_space.chroma_location}
    if _codec(path) == "libx264":
        steady = {"bf": "0"} if track.variable else {}  # MP4 counts lengths in decoding times: B-frames bend the last
        ahead = str(min(encoding.gop, 40))
        return {
            "crf": str(encoding.crf),
            "rc-lookahead": ahead,
            "x264-params": X264_DETERMINISTIC,
            **steady,
            **chroma_location,
        }
    vp9_crf = round(encoding.crf * 63 / 51)  # libvpx counts to 63
    return {"crf": str(vp9_crf), "deadline": "good", "cpu-used": "4", "row-mt": "1", **chroma_location}


def _palette_graph(track: Track) -> Graph:
    graph = Graph()
    rgb = av.VideoFormat("rgb24")
    source = graph.add_buffer(width=track.width, height=track.height, format=rgb, time_base=track.tick)
    split, sink = graph.add("split"), graph.add("buffersink")
    palette, use = graph.add("palettegen", **PALETTE), graph.add("paletteuse", **DITHER)
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
