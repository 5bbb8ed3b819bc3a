"""Upright RGB frames out of a video file, one after another or the last few, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from pavdm_cli.runtime.counting import counted
from pavdm_cli.video.io.deinterlace import Deinterlacer, TimedFrame
from pavdm_cli.video.io.info import VideoInfo, pictures, video_stream
from pavdm_cli.video.io.input import open_input
from pavdm_cli.video.io.rgb import RGBConverter, has_transparency
from pavdm_cli.video.resize import fit
from pavdm_cli.video.upscale import Scale, downscale
from pavdm_cli.video.write.encode import Frame

UNSCALED = Scale()


class FrameReader:
    """The frames of a video with the time each is shown from; damaged packets are skipped, interlaced frames whole."""

    def __init__(self, video: VideoInfo) -> None:
        self.video = video
        self.skipped = 0
        self._transparent = False
        self._deinterlacer = Deinterlacer()
        size = (video.height, video.width) if video.orientation.turned else (video.width, video.height)
        self._screen = RGBConverter(*size, video.color_space.chroma_location)

    def __iter__(self) -> Iterator[tuple[Frame, Fraction]]:
        for picture, time in self.pictures():
            yield self.show(picture), time

    def pictures(self, since: Fraction | None = None) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Decoded pictures, not yet turned to RGB; from a keyframe at or before `since`, where the file can seek."""
        return self._deinterlacer.run(self._decoded(since))

    def notes(self) -> list[str]:
        """What reading left out or changed so far, one line each."""
        interlaced = self._deinterlacer.count
        return [
            *([f"{counted(self.skipped, 'damaged packet')} left out"] if self.skipped else []),
            *([f"{counted(interlaced, 'interlaced frame')} deinterlaced (bwdif)"] if interlaced else []),
            *(["transparency left out: the new file has none"] if self._transparent else []),
        ]

    def _decoded(self, since: Fraction | None) -> Iterator[TimedFrame]:
        video = self.video
        with open_input(video.path, video.limits) as source:
            stream = video_stream(source, video.path)
            tags = {key.lower(): value for key, value in stream.metadata.items()}
            self._transparent |= tags.get("alpha_mode") == "1"  # of VP8 and VP9, whose decoders leave it out
            if since is not None and not video.in_order:
                source.seek(int(since / video.time_base), stream=stream)
            for number, picture in enumerate(pictures(source, stream, video.limits)):
                if picture is None:
                    self.skipped += 1
                else:
                    yield picture, self._time(picture, number)

    def _time(self, picture: av.VideoFrame, number: int) -> Fraction:
        stamp = picture.pts
        if stamp is None or self.video.in_order:
            stamp = self.video.stamps[min(number, self.video.frames - 1)]
        return stamp * self.video.time_base

    def show(self, picture: av.VideoFrame) -> Frame:
        """A decoded picture as an upright RGB frame (H, W, 3)."""
        self._transparent = self._transparent or has_transparency(picture)
        return self.video.orientation.upright(self._screen.show(picture))


def frames(video: VideoInfo) -> FrameReader:
    """Every frame (H, W, 3), upright, with its time in seconds; `.skipped` counts the damaged packets left out."""
    return FrameReader(video)


class FrameSampler:
    """What the screen showed at rising times, in seconds of the file's own clock, from pictures that pass by.

    Before the start that is the first frame. With `size` (height, width) frames are scaled and cropped as `fit` does;
    where they were enlarged from that size by `scale`, they are brought back as `shrink` does.
    """

    def __init__(
        self, video: VideoInfo, times: Sequence[Fraction], size: tuple[int, int] | None = None, scale: Scale = UNSCALED
    ) -> None:
        self.reader = FrameReader(video)
        self._times, self._size, self._scale = times, size, scale
        self._done = 0
        self._held: av.VideoFrame | None = None
        self._frame: Frame | None = None  # of the picture held, once it is converted

    def add(self, picture: av.VideoFrame, start: Fraction) -> Iterator[Frame]:
        """Take the next picture, shown from `start`; yields the frames (H, W, 3) of the times before that."""
        while self._held is not None and self._done < len(self._times) and start > self._times[self._done]:
            yield self._next()
        self._held, self._frame = picture, None

    def rest(self) -> Iterator[Frame]:
        """After the last picture: the frames of all times that are left."""
        while self._done < len(self._times):
            yield self._next()

    def _next(self) -> Frame:
        assert self._held is not None, "a video that could be opened has a picture"
        self._done += 1
        if self._frame is None:
            self._frame = self._converted(self._held)
        return self._frame

    def _converted(self, picture: av.VideoFrame) -> Frame:
        frame = self.reader.show(picture)
        if self._scale.factor > 1:
            frame = downscale(frame, self._scale)
        return (
            frame if self._size in (None, frame.shape[:2]) else fit(frame, self._size, self.reader.video.sample_aspect)
        )


class LastFrames:
    """The last `count` frames at `rate` frames a second, the last of them the video's last; `size`, `scale` as above.

    They are collected while the whole video is read for another purpose, or read when they are first needed.
    """

    def __init__(
        self, video: VideoInfo, rate: Fraction, count: int, size: tuple[int, int] | None = None, scale: Scale = UNSCALED
    ) -> None:
        last = video.stamps[-1] * video.time_base
        times = [last - Fraction(count - 1 - number) / rate for number in range(count)]
        self._passing, self._unread = FrameSampler(video, times, size, scale), read_frames_at(video, times, size, scale)
        self._frames: list[Frame] = []
        self._seen = False

    def add(self, picture: av.VideoFrame, start: Fraction) -> None:
        """Take the video's next picture, shown from `start`."""
        self._seen = True
        self._frames.extend(self._passing.add(picture, start))

    def frames(self) -> NDArray[np.uint8]:  # (count, H, W, 3)
        """The frames, once every picture of the video was added, or none."""
        self._frames.extend(self._passing.rest() if self._seen else self._unread)
        return np.stack(self._frames)


def read_last_frames(
    video: VideoInfo, rate: Fraction, count: int, size: tuple[int, int] | None = None, scale: Scale = UNSCALED
) -> NDArray[np.uint8]:  # (count, H, W, 3)
    """The video's last frames, as `Tail` gives them, read from the file."""
    return LastFrames(video, rate, count, size, scale).frames()


def read_frames_at(
    video: VideoInfo, times: Sequence[Fraction], size: tuple[int, int] | None = None, scale: Scale = UNSCALED
) -> Iterator[Frame]:
    """What the screen showed at rising times, (H, W, 3) each, read in one pass; all as in `TimedFrames`."""
    timed = FrameSampler(video, times, size, scale)
    for picture, start in _from(timed.reader, times[0]):
        yield from timed.add(picture, start)
    yield from timed.rest()


def _from(reader: FrameReader, time: Fraction) -> Iterator[tuple[av.VideoFrame, Fraction]]:
    """Pictures from one shown at `time` or before; from the start of a file that seeks too far or not at all."""
    if time > reader.video.start:
        found = reader.pictures(since=time)
        first = _first(found)
        if first is not None and first[1] <= time:
            yield first
            yield from found
            return
    yield from reader.pictures()


def _first(found: Iterator[tuple[av.VideoFrame, Fraction]]) -> tuple[av.VideoFrame, Fraction] | None:
    """The first picture after a seek, or None where the file cannot seek: its index is broken, its times negative."""
    try:
        return next(found, None)
    except (av.FFmpegError, OverflowError):
        return None
