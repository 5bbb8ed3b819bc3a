"""Interlaced pictures to progressive ones, as many and at the same times, by FFmpeg's bwdif."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
from av.filter import Graph

from pavdm_cli.video.convert import link

TimedFrame = tuple[av.VideoFrame, Fraction]
BWDIF = "mode=send_frame:deint=interlaced"  # one picture for each; those that say they are progressive stay as they are
SMALLEST = 4  # lines and columns that the filter takes


class Deinterlacer:
    """Passes pictures on; from the first interlaced one on, through a filter that holds one back."""

    def __init__(self) -> None:
        self.count = 0
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None
        self._times: deque[Fraction] = deque()

    def run(self, pictures: Iterable[TimedFrame]) -> Iterator[TimedFrame]:
        """The pictures with their times, in the same order."""
        for picture, time in pictures:
            shape = picture.width, picture.height, picture.format.name
            if self._graph is not None and shape != self._shape:
                yield from self._drain(ended=True)
            interlaced = picture.interlaced_frame and min(shape[:2]) >= SMALLEST
            self.count += interlaced
            if self._graph is None and interlaced:
                self._graph, self._shape = link(picture, [("bwdif", BWDIF)]), shape
            if self._graph is None:
                yield picture, time
            else:
                self._times.append(time)
                self._graph.vpush(picture)
                yield from self._drain()
        yield from self._drain(ended=True)

    def _drain(self, ended: bool = False) -> Iterator[TimedFrame]:
        if self._graph is None:
            return
        if ended:
            self._graph.vpush(None)
        try:
            while True:
                yield self._graph.vpull(), self._times.popleft()
        except (av.error.BlockingIOError, av.error.EOFError):
            pass
        if ended:
            self._graph = None
