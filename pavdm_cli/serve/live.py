"""The live stream of a video while it is rendered: an encoder of its own, with one fragment per chunk."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from typing import Literal

from pavdm_cli.generation.decode import RenderedChunk
from pavdm_cli.generation.request import Request
from pavdm_cli.serve.feed import Feed
from pavdm_cli.video.frame import Frame
from pavdm_cli.video.upscale import Scale, Upscaler
from pavdm_cli.video.write.encode import EncoderOptions, VideoParams, can_encode
from pavdm_cli.video.write.executor import SerialExecutor
from pavdm_cli.video.write.segment import ENCODERS, header_size
from pavdm_cli.video.write.segmented import SegmentedEncoder

Codec = Literal["h264", "vp9"]
CONTAINERS: dict[Codec, str] = {"h264": ".mp4", "vp9": ".webm"}  # in order of preference
LIVE_CRF = 20
MAX_FRAGMENTS, MAX_BYTES = 600, 32 << 20  # kept for late or slow viewers
LEAD = 3.0  # seconds of video that a live render may be ahead of its viewers


def available_codecs() -> list[Codec]:
    """The codecs that can be encoded here, the preferred one first."""
    return [codec for codec, suffix in CONTAINERS.items() if can_encode(ENCODERS[suffix])]


class FragmentFeed:
    """Output of a segmented encoder: the header of the first segment, and a feed of fragments."""

    def __init__(self, suffix: str) -> None:
        """suffix: of the container."""
        self._suffix = suffix
        self.header, self.fragments = b"", Feed(MAX_FRAGMENTS, MAX_BYTES)

    def append(self, data: bytes) -> None:
        """Publish a fragment; the first one begins with the header."""
        if not self.header:
            end = header_size(data, self._suffix)
            self.header, data = data[:end], data[end:]
        self.fragments.publish(data)

    def close(self) -> None:
        """Close the feed."""
        self.fragments.close()


class LiveStream:
    """Fragmented MP4 or WebM of the frames as they are decoded; viewers follow `fragments` after the `header`."""

    def __init__(self, request: Request, codec: Codec) -> None:
        spec, scale = request.spec, Scale(request.output.resolve_scale(request.spec), request.output.scale_filter)
        height, width = scale.size(spec.size)
        self._output = FragmentFeed(CONTAINERS[codec])
        self.fragments = self._output.fragments
        self._upscale = Upscaler(scale) if scale.factor > 1 else None
        options = EncoderOptions(LIVE_CRF, segment=ceil(spec.fps), threads=1, realtime=True)
        params = VideoParams(width, height, Fraction(spec.fps))
        self.codec = codec
        self._encoder = SegmentedEncoder(Path(f"live{CONTAINERS[codec]}"), params, options, pipe=self._output)
        self._executor: SerialExecutor | None = None  # once there are frames
        self._closed = False
        self._frames: int | None = None  # of the video, so far

    @property
    def header(self) -> bytes:
        """What comes before the first fragment; empty until there is one."""
        return self._output.header

    @property
    def media_type(self) -> str:
        """The type with the codec's profile and level, which a browser must know before the first byte."""
        if self.codec == "vp9":
            return 'video/webm; codecs="vp9"'
        at = self.header.index(b"avcC") + 5
        return f'video/mp4; codecs="avc1.{self.header[at : at + 3].hex()}"'

    def push(self, chunk: RenderedChunk) -> None:
        """Queue the frames of a chunk for encoding."""
        self._executor = self._executor or SerialExecutor()
        if self._frames is None:
            self._frames = chunk.state.frames - len(chunk.frames) if chunk.state else 0
        with suppress(Exception):  # a failure of the live stream must not stop the file
            for frame in chunk.frames:
                self._submit(partial(self._encode, frame, self._frames))
                self._frames += 1
            self._submit(partial(self._encoder.end_chunk, force=True))

    def close(self) -> None:
        """End the stream; what is pushed later is dropped."""
        already, self._closed = self._closed, True
        with suppress(Exception):
            if self._executor and not already:
                self._executor.submit(self._encoder.close)
                self._executor.join()
        self.fragments.close()

    def _submit(self, call: Callable[[], None]) -> None:
        """Queue a call, unless nothing takes from the queue any more: a full one would block the render."""
        if self._executor and not self._closed:
            self._executor.submit(call)

    def _encode(self, frame: Frame, time: int) -> None:
        self._encoder.encode(self._upscale(frame) if self._upscale else frame, time)


class Pacing:
    """Lets a render be no more than `LEAD` seconds ahead of a viewer who plays it from its first frame."""

    def __init__(self, wait: Callable[[float], object], clock: Callable[[], float] = time.monotonic) -> None:
        """wait: sleeps up to some seconds, less if the render is to be interrupted."""
        self._wait, self._clock = wait, clock
        self._zero: float | None = None  # when the frame of time 0 was played

    def hold(self, seconds: float) -> None:
        """Wait until the video may be this long."""
        now = self._clock()
        zero = now - seconds if self._zero is None else self._zero
        self._zero = max(zero, now - seconds)  # a viewer waits for a render that is late
        if (ahead := seconds - (now - self._zero)) > LEAD:
            self._wait(ahead - LEAD)
