"""Write a video and its continuation to one file: the input is encoded once, its audio copied."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av

from pavdm_cli.errors import InputError, OutputError
from pavdm_cli.video.audio.copy import AudioMode, check_audio, check_packets, supported_streams
from pavdm_cli.video.color_space import can_pass_through, output_color_space
from pavdm_cli.video.frame import Frame
from pavdm_cli.video.io.frames import FrameReader
from pavdm_cli.video.io.info import VideoInfo
from pavdm_cli.video.io.input import open_input
from pavdm_cli.video.io.orientation import Orientation
from pavdm_cli.video.metadata import Metadata, to_comment
from pavdm_cli.video.paths import partial_path
from pavdm_cli.video.resize import scale_to_cover
from pavdm_cli.video.upscale import Scale, Upscaler
from pavdm_cli.video.write.encode import EncoderOptions, VideoParams
from pavdm_cli.video.write.gif import GifEncoder
from pavdm_cli.video.write.segmented import SegmentedEncoder
from pavdm_cli.video.write.stream_copy import StreamCopy
from pavdm_cli.video.write.writer import BaseWriter

MIN_TICK = Fraction(1, 1_000_000)  # seconds; encoders do not accept finer timestamps
MAX_RATE = 1000  # fps; Matroska's timestamps, and the length of an MP4, are milliseconds
GIF_TICK = Fraction(1, 100)  # seconds
MAX_GAP = 2**27  # ticks between frames; MP4's muxer may count in sixteenths of a tick, in 32 bits
KEEP_ASPECT = (".mp4", ".mkv")  # PyAV cannot set the sample aspect ratio of WebM, and browsers ignore that of GIF


@dataclass(frozen=True, slots=True)
class ExtensionOptions:
    """How a video is extended."""

    audio: AudioMode = "keep"
    only_new: bool = False  # write the continuation without the video
    metadata: Metadata | None = None
    encoder: EncoderOptions = field(default_factory=lambda: EncoderOptions(crf=16))
    force: bool = False  # the finished file replaces an existing one
    scale: Scale = field(default_factory=Scale)  # for new frames, if it results in the video's size


def check_not_input(video: VideoInfo, target: Path) -> None:
    """Reject an output that is the input. Raises: OutputError."""
    for file in (target, partial_path(target)):
        if os.path.exists(file) and file.samefile(video.path):  # unlike Path.exists, accepts names that are too long
            raise OutputError(f"{target} would overwrite its own input", "choose another name with -o")


def check_extension(video: VideoInfo, path: str | os.PathLike[str], options: ExtensionOptions | None = None) -> None:
    """Reject outputs that cannot be written, before any slow work. Raises: InputError, OutputError, UsageError."""
    options, target = options or ExtensionOptions(), Path(path)
    check_not_input(video, target)
    max_rate, other = (1 / GIF_TICK, ", or use -o x.mp4") if target.suffix.lower() == ".gif" else (MAX_RATE, "")
    if video.rate > max_rate:
        hint = f"convert it to a lower frame rate first{other}"
        raise InputError(f"{video.path} has {float(video.rate):g} frames per second, more than {max_rate}", hint)
    if options.only_new:
        return
    with open_input(video.path, video.limits) as source:
        check_audio(streams := supported_streams(source), target.suffix.lower(), options.audio)
    if streams:
        check_packets(video.path, video.limits, target.suffix.lower(), options.audio)


class ExtensionWriter(BaseWriter[SegmentedEncoder | GifEncoder]):
    """Writes a video and then new frames, which may have any size, at the video's average rate."""

    def __init__(self, video: VideoInfo, path: str | os.PathLike[str], options: ExtensionOptions | None = None) -> None:
        self.video, self.options = video, options or ExtensionOptions()
        check_extension(video, path, self.options)
        suffix = Path(path).suffix.lower()
        self._params = params_of_video(video, suffix)
        self.notes = _notes(video, self.options, self._params)
        resume = self.options.encoder.resume
        self._last_tick = resume.last_time if resume else -1
        self._stream_copy = None if self.options.only_new else StreamCopy(video, suffix, self.options.audio)
        self._offset = self._stream_copy.offset if self._stream_copy else Fraction(0)
        self._end = video.end - self._offset if self._stream_copy else Fraction(0)
        new = self._count_new_frames() if resume and resume.written else 0
        self._has_new_frames = new > 0
        self._end += new / self.video.rate
        self.notes += self._stream_copy.notes if self._stream_copy else []
        self._upscale = Upscaler(self.options.scale)
        with ExitStack() as stack:
            if self._stream_copy:
                stack.callback(self._stream_copy.close)
            open_encoder = partial(_open_encoder, self._params, self.options)
            super().__init__(path, open_encoder, self.options.force, resume)
            self._stack = stack.pop_all()

    def _count_new_frames(self) -> int:
        """New frames of an interrupted run, from their times: fewer input frames were copied if packets are damaged."""
        since_end = self._last_tick * self._params.tick - self._end
        return 0 if since_end < -self._params.tick else round(since_end * self.video.rate) + 1

    def copy_input(
        self, on_frame: Callable[[av.VideoFrame, Fraction], None] = lambda frame, time: None
    ) -> Iterator[int]:
        """Write the input's frames (none with `only_new`), starting at time 0; yields how many are written.

        `on_frame` is called with every decoded frame and its time on the input's clock.
        """
        if self.options.only_new:
            return
        reader = FrameReader(self.video)
        for count, (frame, time) in enumerate(reader.decode(), 1):
            on_frame(frame, time)
            output = frame if self._passes_through(frame) else self._to_output_aspect(reader.to_rgb(frame))
            self._append_at(output, time - self._offset)
            self.end_chunk()
            yield count
        self.end_chunk(force=True)
        self.notes += reader.notes()

    def write(self, frames: Iterable[Frame]) -> None:
        """Append new frames (H, W, 3), scaled to the video's size."""
        previous = None
        for frame in frames:
            if frame is not previous:  # otherwise it is repeated to reach the video's frame rate
                previous, output = frame, fit_frame(frame, self._params, self._upscale).copy()
            self._append_at(output, self._end)
            self._has_new_frames = True
            self._end += 1 / self.video.rate
        self.end_chunk()

    def _finalize(self) -> Path:
        return self.encoder.finalize(self._stream_copy, self._end)

    def __exit__(self, *error: Any) -> None:
        with self._stack:
            super().__exit__(*error)

    def _is_worth_saving(self) -> bool:
        """A partial copy without new frames is not: it would look like a video to continue."""
        return self._has_new_frames

    def _append_at(self, frame: Frame | av.VideoFrame, time: Fraction) -> None:
        self._last_tick = max(round(time / self._params.tick), self._last_tick + 1)
        self.append(frame, self._last_tick)

    def _passes_through(self, frame: av.VideoFrame) -> bool:
        """Whether a decoded frame can be encoded as it is, without conversion to RGB and back."""
        video, params = self.video, self._params
        same_size = (frame.width, frame.height) == params.coded_size == (video.width, video.height)
        same_geometry = video.orientation == Orientation() and params.sample_aspect_ratio == video.sample_aspect_ratio
        same_color = can_pass_through(frame, params.color_space, video.color_space.chroma_location)
        return same_size and same_geometry and isinstance(self.encoder, SegmentedEncoder) and same_color

    def _to_output_aspect(self, frame: Frame) -> Frame:
        if self._params.sample_aspect_ratio == self.video.sample_aspect_ratio:
            return frame
        return scale_to_cover(frame, (self._params.height, self._params.width), self.video.sample_aspect_ratio)


def fit_frame(frame: Frame, params: VideoParams, upscale: Upscaler) -> Frame:
    """Scale a frame of the model, which has square pixels, to an output's size."""
    size = params.height, params.width
    if frame.shape[:2] == size:
        return frame
    if upscale.scale.size((frame.shape[0], frame.shape[1])) == size:
        return upscale(frame)
    return scale_to_cover(frame, size, 1 / params.sample_aspect_ratio)


def _open_encoder(params: VideoParams, options: ExtensionOptions, path: Path) -> SegmentedEncoder | GifEncoder:
    comment = to_comment(options.metadata)
    if path.suffix.lower() == ".gif":
        return GifEncoder(path, params, comment)
    return SegmentedEncoder(path, params, options.encoder, comment)


def params_of_video(video: VideoInfo, suffix: str) -> VideoParams:
    """Parameters of a stream that shows a video's own frames and new ones at their own times."""
    width, height, aspect = video.width, video.height, video.sample_aspect_ratio
    if suffix not in KEEP_ASPECT and aspect != 1:
        square = Fraction(1)
        width, height = round(width * max(aspect, square)), round(height / min(aspect, square))
        aspect = square
    durations = {video.shortest_frame, video.longest_frame, video.last_duration}
    variable = durations != {1 / video.rate}  # or rounded: B-frames need exact times
    tick = GIF_TICK if suffix == ".gif" else _tick(video)
    color_space = output_color_space(video.color_space, video.pixel_format)
    shortest = max(tick, min(video.shortest_frame, 1 / video.rate))
    return VideoParams(
        width, height, video.rate, aspect, tick, variable, color_space, 1 / shortest if variable else None
    )


def _tick(video: VideoInfo) -> Fraction:
    """A time base that represents the times of both the input's and the new frames exactly, if containers allow it."""
    gap = 1 / video.rate
    exact = Fraction(math.gcd(video.time_base.numerator * gap.denominator, gap.numerator * video.time_base.denominator))
    exact /= video.time_base.denominator * gap.denominator
    tick = exact if exact >= MIN_TICK else max(video.time_base, MIN_TICK)
    return tick if video.longest_frame < MAX_GAP * tick else max(tick, Fraction(1, 1000))


def _notes(video: VideoInfo, options: ExtensionOptions, params: VideoParams) -> list[str]:
    notes = [] if options.only_new else video.notes()
    if params.sample_aspect_ratio != video.sample_aspect_ratio:
        notes.append(f"pixels of {video.sample_aspect_ratio} made square, {params.width}x{params.height}")
    if params.coded_size != (params.width, params.height):
        coded_size = "x".join(map(str, params.coded_size))
        notes.append(f"{params.width}x{params.height} padded to {coded_size} by repeating the last row or column")
    return [*notes, *_audio_note(video, options)]


def _audio_note(video: VideoInfo, options: ExtensionOptions) -> list[str]:
    if not video.audio_codecs:
        return []
    if options.only_new or options.audio == "drop":
        return ["audio dropped"]
    if options.audio == "silence":
        return ["silence after the input's audio"]
    return ["the audio ends where the input's does"]
