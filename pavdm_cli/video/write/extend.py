"""A video and its continuation as one file: every frame encoded once, the sound carried over as it is."""

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

from pavdm_cli.errors import OutputError
from pavdm_cli.video.audio.copy import Audio, check_audio, readable
from pavdm_cli.video.color_space import fits, output_color_space
from pavdm_cli.video.io.frames import frames
from pavdm_cli.video.io.info import VideoInfo
from pavdm_cli.video.io.input import open_input
from pavdm_cli.video.io.orientation import Orientation
from pavdm_cli.video.metadata import Metadata, to_comment
from pavdm_cli.video.resize import fit, unfit
from pavdm_cli.video.upscale import Scale, Upscaler
from pavdm_cli.video.write.encode import EncoderOptions, Frame, GifEncoder, PyAVEncoder, Track
from pavdm_cli.video.write.output import partial_path
from pavdm_cli.video.write.stream_copy import Packets, StreamCopy
from pavdm_cli.video.write.writer import BaseWriter

FINEST = Fraction(1, 1_000_000)  # second; no encoder takes finer timestamps
LARGEST_GAP = 2**27  # ticks between frames; MP4's muxer may count in sixteenths of them, in 32 bits
KEEP_ASPECT = (".mp4", ".mkv")  # through H.264; PyAV can give no shape of pixels to a WebM, and browsers none to a GIF


@dataclass(frozen=True, slots=True)
class ExtensionOptions:
    """How a video is continued: what becomes of its sound, and whether it stands before the new frames."""

    audio: Audio = "keep"
    only_new: bool = False
    metadata: Metadata | None = None
    encoding: EncoderOptions = field(default_factory=lambda: EncoderOptions(crf=16))
    force: bool = False  # the finished file replaces one that has its name
    scale: Scale = field(default_factory=Scale)  # by which new frames are enlarged, where that gives the video's size


def check_extension(video: VideoInfo, path: str | os.PathLike[str], plan: ExtensionOptions | None = None) -> None:
    """Refuse before any work what cannot end well. Raises: OutputError, UsageError."""
    plan, target = plan or ExtensionOptions(), Path(path)
    for written in (target, partial_path(target)):
        if written.exists() and written.samefile(video.path):
            raise OutputError(f"{target} would be written over its own input", "choose another name with -o")
    if plan.only_new:
        return
    with open_input(video.path, video.limits) as source:
        check_audio(readable(source), target.suffix.lower(), plan.audio)


def splice(
    video: VideoInfo,
    path: str | os.PathLike[str],
    new_frames: Iterable[Frame],
    plan: ExtensionOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Write the video and its continuation, and give the notes on what was converted, one line each.

    `progress` is told how many of the input's frames are written. Raises: OutputError, UsageError; an interrupt in
    `new_frames` leaves what there is under the partial name.
    """
    with ExtensionWriter(video, path, plan) as extension:
        for done in extension.copy():
            if progress is not None:
                progress(done)
        extension.write(new_frames)
    return extension.notes


class ExtensionWriter(BaseWriter[PyAVEncoder | GifEncoder]):
    """A file that takes a video first and then new frames, at the video's average rate and any size."""

    def __init__(self, video: VideoInfo, path: str | os.PathLike[str], plan: ExtensionOptions | None = None) -> None:
        self.video, self.plan = video, plan or ExtensionOptions()
        check_extension(video, path, self.plan)
        self._track = _track(video, Path(path).suffix)
        self.notes = _notes(video, self.plan, self._track)
        self._last, self._continued = -1, False
        suffix = Path(path).suffix.lower()
        self._carried = None if self.plan.only_new else StreamCopy(video, suffix, self.plan.audio)
        self._offset = self._carried.offset if self._carried else Fraction(0)
        self._end = video.end - self._offset if self._carried else Fraction(0)
        self.notes += self._carried.notes if self._carried else []
        self._enlarge = Upscaler(self.plan.scale)
        with ExitStack() as opened:
            if self._carried:
                opened.callback(self._carried.close)
            super().__init__(path, partial(_open_encoder, self._track, self.plan, self._carried), self.plan.force)
            self._opened = opened.pop_all()

    def copy(self, watch: Callable[[av.VideoFrame, Fraction], None] = lambda picture, time: None) -> Iterator[int]:
        """Write the video's own frames, the earliest stream at 0; yields how many so far. Nothing with `only_new`.

        `watch` is given every decoded picture too, with the time it is shown from by the input's clock.
        """
        if self.plan.only_new:
            return
        reader = frames(self.video)
        for done, (picture, time) in enumerate(reader.pictures(), 1):
            watch(picture, time)
            frame = picture if self._passes(picture) else self._shaped(reader.show(picture))
            self._append(frame, time - self._offset)
            yield done
        self.notes += reader.notes()

    def write(self, new_frames: Iterable[Frame]) -> None:
        """Append frames (H, W, 3) one by one; those of another size are scaled to the video's."""
        for frame in new_frames:
            self._append(self._sized(frame), self._end)
            self._continued = True
            self._end += 1 / self.video.rate

    def finish(self) -> Path:
        """Write what is left beside the picture, close the file and give it its name."""
        self._mux(self._carried.rest(self._end) if self._carried else [])
        return super().finish()

    def __exit__(self, *error: Any) -> None:
        with self._opened:
            super().__exit__(*error)

    def _worth_keeping(self) -> bool:
        """A part of a copy of the input looks like a video to continue, and is not."""
        return self._continued

    def _append(self, frame: Frame | av.VideoFrame, time: Fraction) -> None:
        self._mux(self._carried.until(time) if self._carried else [])
        self._last = max(round(time / self._track.tick), self._last + 1)
        self.put(frame, self._last)

    def _passes(self, picture: av.VideoFrame) -> bool:
        """Whether a decoded picture can be encoded as it is, without a way through RGB."""
        video, track = self.video, self._track
        same = (picture.width, picture.height) == track.coded_size == (video.width, video.height)
        upright = video.orientation == Orientation() and track.sample_aspect == video.sample_aspect
        coded = isinstance(self.encoder, PyAVEncoder)
        return same and upright and coded and fits(picture, track.color_space, video.color_space.chroma_location)

    def _shaped(self, frame: Frame) -> Frame:
        """The video's frame, its pixels made square where the output holds no others."""
        if self._track.sample_aspect == self.video.sample_aspect:
            return frame
        return fit(frame, (self._track.height, self._track.width), self.video.sample_aspect)

    def _sized(self, frame: Frame) -> Frame:
        """The model's frame at the output's size."""
        width, height = self._track.width, self._track.height
        if frame.shape[:2] == (height, width):
            return frame
        if self.plan.scale.size((frame.shape[0], frame.shape[1])) == (height, width):
            return self._enlarge(frame)
        return unfit(frame, width, height, self._track.sample_aspect)

    def _mux(self, packets: Packets) -> None:
        if packets and isinstance(self.encoder, PyAVEncoder):
            self.run(partial(self.encoder.mux, packets))


def _open_encoder(
    track: Track, plan: ExtensionOptions, carried: StreamCopy | None, path: Path
) -> PyAVEncoder | GifEncoder:
    comment = to_comment(plan.metadata)
    if path.suffix.lower() == ".gif":
        return GifEncoder(path, track, comment)
    beside = (carried.attach, carried.complete) if carried else ()
    return PyAVEncoder(path, track, plan.encoding, comment, *beside)


def _track(video: VideoInfo, suffix: str) -> Track:
    width, height, aspect = video.width, video.height, video.sample_aspect
    if suffix.lower() not in KEEP_ASPECT and aspect != 1:
        square = Fraction(1)
        width, height = round(width * max(aspect, square)), round(height / min(aspect, square))
        aspect = square
    variable = video.variable or video.hold != 1 / video.rate
    tick = _tick(video)
    color_space = output_color_space(video.color_space, video.pixel_format)
    shortest = max(tick, min(video.shortest_frame, 1 / video.rate))
    return Track(width, height, video.rate, aspect, tick, variable, color_space, 1 / shortest if variable else None)


def _tick(video: VideoInfo) -> Fraction:
    """The unit of timestamps that tells the input's frames and the new ones exactly, as far as files hold it."""
    gap = 1 / video.rate
    exact = Fraction(math.gcd(video.time_base.numerator * gap.denominator, gap.numerator * video.time_base.denominator))
    exact /= video.time_base.denominator * gap.denominator
    fine = exact if exact >= FINEST else max(video.time_base, FINEST)
    return fine if video.longest_frame < LARGEST_GAP * fine else max(fine, Fraction(1, 1000))


def _notes(video: VideoInfo, plan: ExtensionOptions, track: Track) -> list[str]:
    notes = [] if plan.only_new else video.notes()
    if track.sample_aspect != video.sample_aspect:
        notes.append(f"pixels of {video.sample_aspect} made square, {track.width}x{track.height}")
    if track.width % 2 or track.height % 2:
        even = f"{track.width + track.width % 2}x{track.height + track.height % 2}"
        notes.append(f"{track.width}x{track.height} padded to {even} by repeating its last line")
    return [*notes, *_sound_note(video, plan)]


def _sound_note(video: VideoInfo, plan: ExtensionOptions) -> list[str]:
    if not video.audio:
        return []
    if plan.only_new or plan.audio == "drop":
        return ["sound left out"]
    return ["silence after the input's sound"] if plan.audio == "silence" else ["sound ends with the input's"]
