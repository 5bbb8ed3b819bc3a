"""Encode GIF files with the encoder inside PyAV."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.filter import Graph

from pavdm_cli.video.frame import Frame
from pavdm_cli.video.write.encode import VideoParams, WholeFileEncoder
from pavdm_cli.video.write.sink import Sink

GIF_PALETTE = {"stats_mode": "single", "reserve_transparent": "0"}  # one palette per frame: constant memory
GIF_DITHER = {"new": "1", "dither": "sierra2_4a"}


class GifEncoder(WholeFileEncoder):
    """GIF with one palette per frame, without an external program."""

    def __init__(self, path: Path, params: VideoParams, comment: str = "") -> None:
        self.path, self._params, self.comment = path, params, comment
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
        append_gif_comment(self.path, self.comment)

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
