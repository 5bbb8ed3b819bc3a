"""Convert frames to another size, pixel format, color space or chroma location with FFmpeg filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from av.video.plane import VideoPlane

from pavdm_cli.video.color_space import BT709_LIMITED, UNSPECIFIED, ColorSpace

# Without these flags, swscale is off by up to 4 of 255 even on a frame of a single color.
SWSCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
TIME_BASE = Fraction(1, 1000)  # arbitrary: these filters ignore timestamps


@dataclass(frozen=True, slots=True)
class FrameShape:
    """The frame properties that a filter graph is built for."""

    width: int
    height: int
    format: str


class FrameConverter:
    """Converts frames to one shape and color space; the shape of the input may change between frames."""

    def __init__(self, width: int, height: int, pixel_format: str, color_space: ColorSpace = BT709_LIMITED) -> None:
        self._target, self._color_space = FrameShape(width, height, pixel_format), color_space
        self._graph_key: tuple[FrameShape, ColorSpace] | None = None
        self._graph: Graph

    def convert(self, frame: av.VideoFrame, color_space: ColorSpace = BT709_LIMITED) -> av.VideoFrame:
        """Return a converted copy; `color_space` is that of the input and overrides the frame's own tags."""
        shape = FrameShape(frame.width, frame.height, frame.format.name)
        padded_frame = pad_to_chroma_grid(frame)
        if self._graph_key != (shape, color_space):
            self._graph = self._build_graph(shape, padded_frame, color_space)
            self._graph_key = shape, color_space
        self._graph.vpush(padded_frame)
        return self._graph.vpull()

    def _build_graph(self, shape: FrameShape, padded_frame: av.VideoFrame, color_space: ColorSpace) -> Graph:
        target, output = self._target, self._color_space
        output_range = "full" if output.full_range else "limited"
        location = f"in_chroma_loc={color_space.chroma_location}:out_chroma_loc={output.chroma_location}"
        scale = f"flags={SWSCALE_FLAGS}:{location}:out_color_matrix={output.matrix}:out_range={output_range}"
        filters = [
            ("setparams", _input_tags(padded_frame.format, color_space)),
            ("scale", scale),
            ("format", target.format),
        ]
        if (padded_frame.width, padded_frame.height) != (shape.width, shape.height):
            filters += [("crop", f"{shape.width}:{shape.height}:0:0:exact=1")]
        if (shape.width, shape.height) != (target.width, target.height):
            filters += [("scale", f"{target.width}:{target.height}:flags={SWSCALE_FLAGS}"), ("format", target.format)]
        return build_filter_graph(padded_frame, filters)


def _input_tags(pixel_format: av.VideoFormat, color_space: ColorSpace) -> str:
    """Arguments of `setparams`: primaries and transfer are unset, since swscale rejects some that it never converts."""
    automatic = len(pixel_format.components) < 3 or pixel_format.is_rgb  # swscale knows the range of gray and RGB
    value_range = "auto" if automatic else "full" if color_space.full_range else "limited"
    matrix = "auto" if automatic else str(color_space.matrix)
    return f"range={value_range}:color_primaries={UNSPECIFIED}:color_trc={UNSPECIFIED}:colorspace={matrix}"


def pad_to_chroma_grid(frame: av.VideoFrame) -> av.VideoFrame:
    """Repeat the last luma column and row until the size is a multiple of the chroma subsampling.

    Otherwise swscale stretches the chroma planes of odd sizes.
    """
    pixel_format = frame.format
    step_x, step_y = (64 // max(1, size(64)) for size in (pixel_format.chroma_width, pixel_format.chroma_height))
    width, height = -(-frame.width // step_x) * step_x, -(-frame.height // step_y) * step_y
    if (width, height) == (frame.width, frame.height) or len(frame.planes) < 3:
        return frame
    padded_frame = av.VideoFrame(width, height, pixel_format.name)
    for source, target in zip(frame.planes, padded_frame.planes, strict=True):
        _pad_plane(source, target, np.dtype(np.uint16 if pixel_format.components[0].bits > 8 else np.uint8))
    return padded_frame


def _pad_plane(source: VideoPlane, target: VideoPlane, dtype: np.dtype[np.unsignedinteger]) -> None:
    samples = np.frombuffer(bytes(source), dtype).reshape(source.height, -1)[:, : source.width]
    rows = np.zeros((target.height, target.line_size // dtype.itemsize), dtype)
    padding = (0, target.height - source.height), (0, target.width - source.width)
    rows[:, : target.width] = np.pad(samples, padding, mode="edge")
    target.update(rows.tobytes())


def build_filter_graph(
    frame: av.VideoFrame, filters: Sequence[tuple[str, str]], time_base: Fraction = TIME_BASE
) -> Graph:
    """A linear graph of (filter, arguments) for frames of this frame's size and format."""
    graph = Graph()
    graph.threads = 1  # the other cores are busy encoding
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    for name, arguments in [*filters, ("buffersink", "")]:
        node = graph.add(name, arguments or None)
        last.link_to(node)
        last = node
    graph.configure()
    return graph
