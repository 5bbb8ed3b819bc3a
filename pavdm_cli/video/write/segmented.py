"""The encoder of MP4, Matroska and WebM: closed segments, appended to a file that plays while it grows."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from pavdm_cli.runtime.durable import TEMPORARY
from pavdm_cli.video.convert import FrameConverter
from pavdm_cli.video.frame import Frame
from pavdm_cli.video.write.encode import ZERO, EncoderOptions, EncoderState, VideoParams, pad_to_even
from pavdm_cli.video.write.growing_file import GrowingFile
from pavdm_cli.video.write.remux import OtherStreams, Remux
from pavdm_cli.video.write.segment import Segment, decoding_delay

MAX_CHUNK = 4  # shortest segments; a longer chunk is divided, so that memory is bounded


class AppendOnly(Protocol):
    """What segments are appended to."""

    def append(self, data: bytes, /) -> None:
        """Raises: OSError."""

    def close(self) -> None: ...


class SegmentedEncoder:
    """Every segment is whole chunks, encoded by an encoder of its own; the frames of an open one wait in memory."""

    continuable = True

    def __init__(
        self,
        path: Path,
        params: VideoParams,
        options: EncoderOptions,
        comment: str = "",
        pipe: AppendOnly | None = None,
    ) -> None:
        """pipe: is written to instead of a file of that path, and cannot be continued. Raises: OSError."""
        state = options.resume
        self.path, self.params, self.options, self.comment = path, params, options, comment
        self._suffix, self._min_frames = path.suffix.lower(), options.segment_frames(params.rate)
        self._segments = state.segments if state else 0
        self._written, self._last_time = (state.written - len(state.times), state.last_time) if state else (0, -1)
        self._file = pipe or GrowingFile(path, state.size if state else 0)
        self._converter = FrameConverter(*params.coded_size, "yuv420p", params.color_space)
        self._rgb: Frame | None = None  # the last frame that was converted to
        self._yuv: av.VideoFrame
        self._segment: Segment | None = None
        self._waiting: list[tuple[int, av.VideoFrame]] = []  # times and frames of the open segment
        for time, frame in zip(state.times, state.frames, strict=True) if state else ():
            self._append(av.VideoFrame.from_ndarray(frame, format="yuv420p"), time)

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append a frame of the stream's size; odd sizes are padded by repeating the last row and column.

        A decoded frame (`av.VideoFrame`) is encoded without conversion: it must be 8-bit 4:2:0 in the output's color
        space.
        """
        self._append(frame if isinstance(frame, av.VideoFrame) else self._to_yuv(frame), time)

    def end_chunk(self, force: bool = False) -> None:
        """Close the segment if it is long enough, or with `force` however short."""
        if self._segment and (force or self._segment.frames >= self._min_frames):
            self._close_segment()

    def state(self) -> EncoderState:
        """The file so far, and the open segment's frames."""
        assert isinstance(self._file, GrowingFile)
        height, width = self.params.coded_size[1], self.params.coded_size[0]
        frames = np.empty((len(self._waiting), height * 3 // 2, width), np.uint8)
        for number, (_, frame) in enumerate(self._waiting):
            frames[number] = frame.to_ndarray()
        times = tuple(time for time, _ in self._waiting)
        counts = self._written, self._last_time, self._segments
        return EncoderState(*counts, self._file.size, self._file.digest, times, frames)

    def close(self) -> None:
        """Write the open segment too, however short."""
        try:
            if self._segment:
                self._close_segment()
        finally:
            self._file.close()

    def abort(self) -> None:
        """Drop the open segment."""
        if self._segment:
            self._segment.abort()
        self._file.close()

    def finalize(self, streams: OtherStreams | None = None, end: Fraction = ZERO) -> Path:
        """Copy the packets to a temporary file with an index, in MP4 at its front, and return its path."""
        target = self.path.with_name(self.path.name + TEMPORARY)
        delay = decoding_delay(self._suffix, self.params) * self.params.tick
        with suppress(FileNotFoundError):  # of a run that was killed
            target.unlink()
        Remux(self.comment, self.params.declared_rate, delay, streams, end)(self.path, target)
        return target

    def _append(self, yuv: av.VideoFrame, time: int) -> None:
        if len(self._waiting) >= MAX_CHUNK * self._min_frames or (self._segment and self._is_late(time)):
            self._close_segment()
        if self._segment is None:
            self._segment = Segment(self._suffix, self.params, self.options, self._segments, self.comment)
        self._segment.encode(yuv, time)
        self._waiting.append((time, yuv))
        self._written, self._last_time = self._written + 1, time

    def _is_late(self, time: int) -> bool:
        """Whether frames are missing, such as damaged ones: across the gap, B-frames would be decoded too late."""
        gap = (time - self._last_time) * self.params.tick
        return not self.params.variable_frame_rate and gap > Fraction(3, 2) / self.params.rate

    def _close_segment(self) -> None:
        assert self._segment
        segment, self._segment = self._segment.close(), None
        self._file.append(segment.body if self._segments else segment.header + segment.body)
        self._segments += 1
        self._waiting = []

    def _to_yuv(self, frame: Frame) -> av.VideoFrame:
        """Convert an RGB frame, once if the same object is repeated."""
        if frame is not self._rgb:
            rgb = av.VideoFrame.from_ndarray(pad_to_even(frame), format="rgb24")
            self._rgb, self._yuv = frame, self._converter.convert(rgb)
        return self._yuv
