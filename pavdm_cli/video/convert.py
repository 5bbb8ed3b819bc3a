"""Pictures to another pixel format, size, matrix, range or chroma siting, by FFmpeg's filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from av.video.plane import VideoPlane

from pavdm_cli.video.color_space import STANDARD, UNSPECIFIED, ColorSpace

# Without these, swscale is off by up to 4 of 255 even on a picture of one colour.
EXACT = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
TICK = Fraction(1, 1000)  # no filter here looks at time


@dataclass(frozen=True, slots=True)
class Shape:
    """What a graph of filters is built for."""

    width: int
    height: int
    format: str


class Converter:
    """Converts pictures one by one to one shape and one kind of colours; those that go in may change."""

    def __init__(self, width: int, height: int, pixel_format: str, color_space: ColorSpace = STANDARD) -> None:
        self._target, self._colours = Shape(width, height, pixel_format), color_space
        self._built: tuple[Shape, ColorSpace] | None = None
        self._graph: Graph

    def convert(self, picture: av.VideoFrame, color_space: ColorSpace = STANDARD) -> av.VideoFrame:
        """The picture, whose colours are said to be `colours`, as a new one; its own tags are not looked at."""
        shape = Shape(picture.width, picture.height, picture.format.name)
        padded = pad_to_chroma_grid(picture)
        if self._built != (shape, color_space):
            self._graph = self._chain(shape, padded, color_space)
            self._built = shape, color_space
        self._graph.vpush(padded)
        return self._graph.vpull()

    def _chain(self, shape: Shape, padded: av.VideoFrame, color_space: ColorSpace) -> Graph:
        target = self._target
        scale = f"flags={EXACT}:in_chroma_loc={color_space.chroma_location}:{self._out()}"
        steps = [("setparams", _params(padded.format, color_space)), ("scale", scale), ("format", target.format)]
        if (padded.width, padded.height) != (shape.width, shape.height):
            steps += [("crop", f"{shape.width}:{shape.height}:0:0:exact=1")]
        if (shape.width, shape.height) != (target.width, target.height):
            steps += [("scale", f"{target.width}:{target.height}:flags={EXACT}"), ("format", target.format)]
        return link(padded, steps)

    def _out(self) -> str:
        matrix, chroma_location = self._colours.matrix, self._colours.chroma_location
        value_range = "full" if self._colours.full_range else "limited"
        return f"out_color_matrix={matrix}:out_range={value_range}:out_chroma_loc={chroma_location}"


def _params(form: av.VideoFormat, color_space: ColorSpace) -> str:
    """Tags for swscale to convert by; primaries and transfers are not converted, and some would be refused."""
    grey = len(form.components) < 3  # swscale knows its range
    value_range = "auto" if grey or form.is_rgb else "full" if color_space.full_range else "limited"
    matrix = "auto" if grey or form.is_rgb else str(color_space.matrix)
    return f"range={value_range}:color_primaries={UNSPECIFIED}:color_trc={UNSPECIFIED}:colorspace={matrix}"


def pad_to_chroma_grid(picture: av.VideoFrame) -> av.VideoFrame:
    """Repeat the last column and row of luma up to the end of the last chroma samples.

    swscale stretches the chroma of an odd size over too few lines otherwise.
    """
    form = picture.format
    across, down = (64 // max(1, size(64)) for size in (form.chroma_width, form.chroma_height))
    width, height = -(-picture.width // across) * across, -(-picture.height // down) * down
    if (width, height) == (picture.width, picture.height) or len(picture.planes) < 3:
        return picture
    padded = av.VideoFrame(width, height, form.name)
    for old, new in zip(picture.planes, padded.planes, strict=True):
        _pad_plane(old, new, 2 if form.components[0].bits > 8 else 1)
    return padded


def _pad_plane(old: VideoPlane, new: VideoPlane, size: int) -> None:  # size: bytes of a sample
    sample = np.uint16 if size == 2 else np.uint8
    inside = np.frombuffer(bytes(old), sample).reshape(old.height, -1)[:, : old.width]
    lines = np.zeros((new.height, new.line_size // size), sample)
    gap = (0, new.height - old.height), (0, new.width - old.width)
    lines[:, : new.width] = np.pad(inside, gap, mode="edge")
    new.update(lines.tobytes())


def link(picture: av.VideoFrame, filters: Sequence[tuple[str, str]], tick: Fraction = TICK) -> Graph:
    """A chain of filters, each with its arguments, for pictures of this one's size and format."""
    graph = Graph()
    graph.threads = 1  # other frames keep the other cores busy
    last = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base=tick)
    for name, arguments in [*filters, ("buffersink", "")]:
        following = graph.add(name, arguments or None)
        last.link_to(following)
        last = following
    graph.configure()
    return graph
