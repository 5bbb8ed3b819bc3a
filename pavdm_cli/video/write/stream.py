"""Video to standard output: fragmented MP4, YUV4MPEG2 or raw frames, no faster than its reader takes them."""

from __future__ import annotations

import math
import os
import select
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av

from pavdm_cli.video.color_space import BT709, HD_HEIGHT, SMPTE170M
from pavdm_cli.video.convert import FrameConverter
from pavdm_cli.video.frame import Frame
from pavdm_cli.video.metadata import Metadata, to_comment
from pavdm_cli.video.upscale import Upscaler
from pavdm_cli.video.write.encode import EncoderOptions, VideoParams, pad_to_even
from pavdm_cli.video.write.executor import SerialExecutor
from pavdm_cli.video.write.segmented import SegmentedEncoder

FRAGMENT_SECONDS = 1  # of an MP4: a player shows nothing before the first one is complete


class Pipe:
    """A file descriptor; writing waits for the reader, also where the descriptor does not block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, data: bytes) -> None:
        """Write all of `data`. Raises: OSError."""
        remaining = memoryview(data)
        while remaining:
            try:
                remaining = remaining[os.write(self._descriptor, remaining) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])

    def close(self) -> None:
        """Leave the descriptor open: it is not ours."""


class FrameStream:
    """Frames without compression: `y4m` has a header and 4:2:0, `rawvideo` is RGB bytes alone.

    A y4m header cannot name a matrix: it is the one that players assume.
    """

    def __init__(self, pipe: Pipe, params: VideoParams, y4m: bool) -> None:
        self._pipe, self._y4m, (width, height) = pipe, y4m, params.coded_size
        color_space = replace(params.color_space, matrix=BT709 if height >= HD_HEIGHT else SMPTE170M)
        self._converter = FrameConverter(width, height, "yuv420p", color_space)
        if y4m:
            rate = f"{params.rate.numerator}:{params.rate.denominator}"
            header = f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED\n"
            pipe.append(header.encode())

    def encode(self, frame: Frame, time: int) -> None:
        """Append an RGB frame."""
        if self._y4m:
            rgb = av.VideoFrame.from_ndarray(pad_to_even(frame), format="rgb24")
            self._pipe.append(b"FRAME\n" + self._converter.convert(rgb).to_ndarray().tobytes())
        else:
            self._pipe.append(frame.tobytes())

    def end_chunk(self) -> None:
        """Nothing: every frame is written at once."""

    def close(self) -> None:
        """Nothing: a stream ends with its last frame."""


class StreamWriter:
    """Writes frames (H, W, 3) to a file descriptor, encoding on a thread. Raises: OSError of the descriptor.

    It need not be closed: its thread may wait for a reader that reads no more, and ends with the process.
    """

    def __init__(
        self,
        descriptor: int,
        kind: str,
        size: tuple[int, int],
        rate: Fraction | int,
        metadata: Metadata,
        options: EncoderOptions,
    ) -> None:
        """kind: mp4, y4m or rawvideo; size: height and width of the frames, which the options may upscale."""
        height, width = options.scale.size(size)
        params, pipe = VideoParams(width, height, Fraction(rate)), Pipe(descriptor)
        self.frames = 0
        self._upscale = Upscaler(options.scale) if options.scale.factor > 1 else None
        self._encoder: SegmentedEncoder | FrameStream
        if kind == "mp4":
            fragments = replace(options, segment=math.ceil(FRAGMENT_SECONDS * params.rate))
            self._encoder = SegmentedEncoder(Path("stream.mp4"), params, fragments, to_comment(metadata), pipe)
        else:
            self._encoder = FrameStream(pipe, params, kind == "y4m")
        self._executor = SerialExecutor()

    def write(self, frames: Iterable[Frame]) -> None:
        """Queue a chunk of frames; waits while a slow reader is a few frames behind."""
        for frame in frames:
            self._executor.submit(partial(self._encode, frame.copy(), self.frames))
            self.frames += 1
        self._executor.submit(self._encoder.end_chunk)

    def finish(self) -> None:
        """Write what is left, once the reader has taken all before it."""
        self._executor.submit(self._encoder.close)
        self._executor.join()

    def _encode(self, frame: Frame, time: int) -> None:
        self._encoder.encode(self._upscale(frame) if self._upscale else frame, time)
