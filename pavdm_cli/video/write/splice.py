"""Replace a span of a video with new frames: all other packets, and all other streams, are copied as they are."""

from __future__ import annotations

import io
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, takewhile
from pathlib import Path

import av
import numpy as np

from pavdm_cli.runtime.durable import TEMPORARY
from pavdm_cli.video.frame import Frame
from pavdm_cli.video.io.info import VideoInfo, video_stream
from pavdm_cli.video.io.input import open_input
from pavdm_cli.video.metadata import Metadata, to_comment
from pavdm_cli.video.upscale import Upscaler
from pavdm_cli.video.write.encode import EncoderOptions, VideoParams
from pavdm_cli.video.write.extend import fit_frame, params_of_video
from pavdm_cli.video.write.remux import Remux, SurroundingPackets
from pavdm_cli.video.write.segment import Segment, decoding_delay
from pavdm_cli.video.write.segmented import SegmentedEncoder
from pavdm_cli.video.write.stream_copy import StreamCopy
from pavdm_cli.video.write.writer import BaseWriter

SUFFIXES = (".mp4", ".mkv", ".webm")  # of files that consist of segments
FINEST_TICK = 10_000  # per second; MP4 doubles its time base until it is at least as fine


@dataclass(frozen=True, slots=True)
class Splice:
    """Frames `first` to `end` - 1 of a video, to be replaced with the same number, encoded with `params`."""

    video: VideoInfo
    params: VideoParams
    first: int
    end: int

    @property
    def ticks(self) -> list[int]:
        """Timestamps of the new frames: those of the frames that they replace."""
        times = self.video.timestamps[self.first : self.end]
        return [round(time * self.video.time_base / self.params.tick) for time in times]

    @property
    def surrounding(self) -> SurroundingPackets:
        """What stays of the video."""
        start, reaches_end = self.video.timestamps[self.first], self.end == self.video.frames
        end = None if reaches_end else self.video.timestamps[self.end] * self.video.time_base
        return SurroundingPackets(self.video.path, start * self.video.time_base, end)


class SpliceWriter(BaseWriter[SegmentedEncoder]):
    """Writes the new frames to the growing file, and around them the packets of the video to the complete one."""

    def __init__(
        self,
        splice: Splice,
        path: str | os.PathLike[str],
        metadata: Metadata,
        options: EncoderOptions,
        force: bool = False,
    ) -> None:
        self.splice, self._ticks, self._upscale = splice, splice.ticks, Upscaler(options.scale)
        self.notes: list[str] = []
        comment = to_comment(metadata)

        def open_encoder(partial: Path) -> SegmentedEncoder:
            return SegmentedEncoder(partial, splice.params, options, comment)

        super().__init__(path, open_encoder, force, options.resume)

    def write(self, frames: Iterable[Frame]) -> None:
        """Append a chunk of frames (H, W, 3), scaled to the video's size."""
        previous = None
        for frame in frames:
            if frame is not previous:  # otherwise it is repeated to reach the video's frame rate
                previous, output = frame, fit_frame(frame, self.splice.params, self._upscale).copy()
            self.append(output, self._ticks[self.frames])
        self.end_chunk()

    def _finalize(self) -> Path:
        video, params = self.splice.video, self.splice.params
        suffix, target = self.partial.suffix.lower(), self.partial.with_name(self.partial.name + TEMPORARY)
        with suppress(FileNotFoundError):  # of a run that was killed
            target.unlink()
        delay = decoding_delay(suffix, params) * params.tick
        with closing(StreamCopy(video, suffix, "keep")) as streams:
            self.notes += streams.notes
            remux = Remux(
                self.encoder.comment, params.declared_rate, delay, streams, video.end, self.splice.surrounding
            )
            remux(self.partial, target)
        return target


def keyframes(video: VideoInfo) -> list[int]:
    """Indices of the frames from which the video can be cut: none before one of them refers to what follows it."""
    with open_input(video.path, video.limits) as source:
        packets = source.demux(video_stream(source, video.path))
        times = sorted(packet.pts for packet in packets if packet.is_keyframe and packet.pts is not None)
    indices = [bisect_left(video.timestamps, time) for time in times]
    return [index for index in indices if index < video.frames]


def matching_params(video: VideoInfo, rate: Fraction, options: EncoderOptions) -> VideoParams | None:
    """Parameters of an encoder whose packets share a header with those of the video; None: there are none.

    rate: frames per second that the file was written with.
    """
    suffix, video_params = video.path.suffix.lower(), params_of_video(video, video.path.suffix.lower())
    with open_input(video.path, video.limits) as source:
        context = video_stream(source, video.path).codec_context
        header, size = bytes(context.extradata or b""), (context.width, context.height)
        ticks = [1 / context.framerate] if context.framerate else []  # x264 stores its time base as the rate
    default_params = VideoParams(video.width, video.height, rate)
    if suffix == ".webm":  # VP9 has no header: the video's own rate and colors decide
        is_generated = video.rate == rate and video_params.color_space == default_params.color_space
        candidates = iter(
            [default_params if is_generated else replace(video_params, variable_frame_rate=False, max_rate=None)]
        )
    else:
        candidates = chain([default_params], _possible_params(video_params, ticks))
    return next(
        (params for params in candidates if params.coded_size == size and _header(suffix, params, options) == header),
        None,
    )


def _possible_params(params: VideoParams, ticks: Sequence[Fraction]) -> Iterator[VideoParams]:
    """With the given time bases and those that a container may have made finer, and with B-frames or without."""
    assert params.time_base
    time_bases = (params.time_base * 2**power for power in range(64))
    for tick in chain(ticks, takewhile(lambda tick: tick <= Fraction(1, 10), time_bases)):
        yield replace(params, time_base=tick)
        is_variable = not params.variable_frame_rate
        yield replace(params, time_base=tick, variable_frame_rate=is_variable, max_rate=None)


def _header(suffix: str, params: VideoParams, options: EncoderOptions) -> bytes:
    """What the decoder of a stream is set up with, by encoding a black frame."""
    width, height = params.coded_size
    segment = Segment(suffix, params, options, 0, "")
    black = np.zeros((height * 3 // 2, width), np.uint8)
    segment.encode(av.VideoFrame.from_ndarray(black, format="yuv420p"), 0)
    data = segment.close()
    with av.open(io.BytesIO(data.header + data.body)) as file:
        return bytes(file.streams.video[0].codec_context.extradata or b"")
