"""Upright RGB frames out of a video file, one after another or the last few, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from pavdm_cli.counting import counted
from pavdm_cli.video.colour import Screen, is_transparent
from pavdm_cli.video.deinterlace import Deinterlacer, TimedPicture
from pavdm_cli.video.encode import Frame
from pavdm_cli.video.enlarge import Scale, shrink
from pavdm_cli.video.info import VideoInfo, picture_stream, pictures
from pavdm_cli.video.resize import fit
from pavdm_cli.video.source import open_source

UNSCALED = Scale()


class FrameReader:
    """The frames of a video with the time each is shown from; damaged packets are skipped, interlaced frames whole."""

    def __init__(self, video: VideoInfo) -> None:
        self.video = video
        self.skipped = 0
        self._transparent = False
        self._deinterlacer = Deinterlacer()
        size = (video.height, video.width) if video.orientation.turned else (video.width, video.height)
        self._screen = Screen(*size, video.colours.siting)

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

    def _decoded(self, since: Fraction | None) -> Iterator[TimedPicture]:
        video = self.video
        with open_source(video.path, video.limits) as source:
            stream = picture_stream(source, video.path)
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
        self._transparent = self._transparent or is_transparent(picture)
        return self.video.orientation.upright(self._screen.show(picture))


def frames(video: VideoInfo) -> FrameReader:
    """Every frame (H, W, 3), upright, with its time in seconds; `.skipped` counts the damaged packets left out."""
    return FrameReader(video)


def tail(
    video: VideoInfo, rate: Fraction, count: int, size: tuple[int, int] | None = None, scale: Scale = UNSCALED
) -> NDArray[np.uint8]:  # (count, H, W, 3)
    """The last `count` frames at `rate` frames a second, the last of them the video's last.

    Each is what the screen showed at its time; before a short video's start that is its first frame. With `size`
    (height, width) they are scaled and cropped as `fit` does; where they were enlarged from that size by `scale`, they
    are brought back as `shrink` does.
    """
    last = video.stamps[-1] * video.time_base
    times = [last - Fraction(count - 1 - number) / rate for number in range(count)]
    return np.stack(list(shown_at(video, times, size, scale)))


def shown_at(
    video: VideoInfo, times: Sequence[Fraction], size: tuple[int, int] | None = None, scale: Scale = UNSCALED
) -> Iterator[Frame]:
    """What the screen showed at rising times, in seconds of the file's own clock, (H, W, 3) each, in one pass.

    Before the start that is the first frame. `size` and `scale` as in `tail`.
    """
    reader = FrameReader(video)
    for picture in _shown(_from(reader, times[0]), times):
        frame = reader.show(picture)
        if scale.factor > 1:
            frame = shrink(frame, scale)
        yield frame if size in (None, frame.shape[:2]) else fit(frame, size, video.sample_aspect)


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


def _shown(pictures: Iterable[tuple[av.VideoFrame, Fraction]], times: Sequence[Fraction]) -> Iterator[av.VideoFrame]:
    """For each of the rising times the picture on screen then: the last one not after it, or the first of all."""
    held: av.VideoFrame | None = None
    done = 0
    for picture, start in pictures:
        while held is not None and done < len(times) and start > times[done]:
            yield held
            done += 1
        held = picture
    assert held is not None, "a video that could be opened has a picture"
    for _ in times[done:]:
        yield held
