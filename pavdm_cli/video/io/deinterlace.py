"""Deinterlace frames with FFmpeg's bwdif, keeping their number and timestamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
from av.filter import Graph

from pavdm_cli.video.convert import build_filter_graph

TimedFrame = tuple[av.VideoFrame, Fraction]
BWDIF = "mode=send_frame:deint=interlaced"  # one output frame for each input frame; progressive frames are unchanged
MIN_SIDE = 4  # pixels that the filter needs


class Deinterlacer:
    """Passes frames through until the first interlaced one, then filters them with a delay of one frame."""

    def __init__(self) -> None:
        self.interlaced_count = 0
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None
        self._times: deque[Fraction] = deque()

    def run(self, frames: Iterable[TimedFrame]) -> Iterator[TimedFrame]:
        """Yield the frames with their times, in the same order."""
        for frame, time in frames:
            shape = frame.width, frame.height, frame.format.name
            if self._graph is not None and shape != self._shape:
                yield from self._drain(end=True)
            is_interlaced = frame.interlaced_frame and min(shape[:2]) >= MIN_SIDE
            self.interlaced_count += is_interlaced
            if self._graph is None and is_interlaced:
                self._graph, self._shape = build_filter_graph(frame, [("bwdif", BWDIF)]), shape
            if self._graph is None:
                yield frame, time
            else:
                self._times.append(time)
                self._graph.vpush(frame)
                yield from self._drain()
        yield from self._drain(end=True)

    def _drain(self, end: bool = False) -> Iterator[TimedFrame]:
        if self._graph is None:
            return
        if end:
            self._graph.vpush(None)
        try:
            while True:
                yield self._graph.vpull(), self._times.popleft()
        except (av.error.BlockingIOError, av.error.EOFError):
            pass
        if end:
            self._graph = None
