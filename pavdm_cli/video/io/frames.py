"""Read upright RGB frames from a video file in constant memory: all of them, those at given times, or the last."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.video.frame import Frame
from pavdm_cli.video.io.deinterlace import Deinterlacer, TimedFrame
from pavdm_cli.video.io.info import VideoInfo, decode_frames, video_stream
from pavdm_cli.video.io.input import open_input
from pavdm_cli.video.io.rgb import RGBConverter, has_transparency
from pavdm_cli.video.resize import scale_to_cover
from pavdm_cli.video.upscale import Scale, downscale

UNSCALED = Scale()


class FrameReader:
    """Iterates over (frame, time): RGB (H, W, 3), upright, deinterlaced; damaged packets are skipped and counted."""

    def __init__(self, video: VideoInfo) -> None:
        self.video = video
        self.skipped = 0
        self._transparent = False
        self._deinterlacer = Deinterlacer()
        width, height = (video.height, video.width) if video.orientation.transposed else (video.width, video.height)
        cropping = video.cropping
        size = width + cropping.left + cropping.right, height + cropping.top + cropping.bottom
        self._rgb_converter = RGBConverter(*size, video.color_space.chroma_location)

    def __iter__(self) -> Iterator[tuple[Frame, Fraction]]:
        for frame, time in self.decode():
            yield self.to_rgb(frame), time

    def decode(self, since: Fraction | None = None) -> Iterator[TimedFrame]:
        """Decoded frames before conversion to RGB; seeks to a keyframe at or before `since` if the file allows it."""
        return self._deinterlacer.run(self._decode(since))

    def notes(self) -> list[str]:
        """What reading has skipped or changed so far, one line each."""
        num_interlaced = self._deinterlacer.interlaced_count
        return [
            *([f"{pluralize(self.skipped, 'damaged packet')} skipped"] if self.skipped else []),
            *([f"{pluralize(num_interlaced, 'interlaced frame')} deinterlaced (bwdif)"] if num_interlaced else []),
            *(["transparency dropped: the new file has none"] if self._transparent else []),
        ]

    def _decode(self, since: Fraction | None) -> Iterator[TimedFrame]:
        video = self.video
        with open_input(video.path, video.limits) as source:
            stream = video_stream(source, video.path)
            tags = {key.lower(): value for key, value in stream.metadata.items()}
            self._transparent |= tags.get("alpha_mode") == "1"  # VP8 and VP9, whose decoders drop alpha
            if since is not None and not video.in_decode_order:
                source.seek(int(since / video.time_base), stream=stream)
            latest: Fraction | float = -math.inf
            for number, frame in enumerate(decode_frames(source, stream, video.limits)):
                # After damage, a decoder can output frames in the wrong order.
                if frame is None or (self.skipped and self._time(frame, number) < latest):
                    self.skipped += 1
                    continue
                latest = time = self._time(frame, number)
                yield frame, time

    def _time(self, frame: av.VideoFrame, number: int) -> Fraction:
        timestamp = frame.pts
        if timestamp is None or self.video.in_decode_order:
            timestamp = self.video.timestamps[min(number, self.video.frames - 1)]
        return timestamp * self.video.time_base

    def to_rgb(self, frame: av.VideoFrame) -> Frame:
        """A cropped, upright RGB frame (H, W, 3)."""
        self._transparent = self._transparent or has_transparency(frame)
        return self.video.orientation.apply(self.video.cropping.apply(self._rgb_converter.convert(frame)))


class FrameSampler:
    """Picks the frames displayed at ascending times (seconds on the file's clock) from a stream of decoded frames.

    Times before the start give the first frame. With `size` (height, width), frames are scaled as `scale_to_cover`
    does; frames that were upscaled from that size by `scale` are first reduced by `downscale`.
    """

    def __init__(
        self, video: VideoInfo, times: Sequence[Fraction], size: tuple[int, int] | None = None, scale: Scale = UNSCALED
    ) -> None:
        self.reader = FrameReader(video)
        self._times, self._size, self._scale = times, size, scale
        self._sampled = 0
        self._decoded: av.VideoFrame | None = None
        self._converted: Frame | None = None  # `_decoded` as RGB, once it is needed

    @property
    def is_done(self) -> bool:
        """Whether the frames of all times have been sampled."""
        return self._sampled == len(self._times)

    def add(self, frame: av.VideoFrame, start: Fraction) -> Iterator[Frame]:
        """Take the next decoded frame, displayed from `start`; yields frames (H, W, 3) for all earlier times."""
        while self._decoded is not None and self._sampled < len(self._times) and start > self._times[self._sampled]:
            yield self._sample()
        self._decoded, self._converted = frame, None

    def flush(self) -> Iterator[Frame]:
        """After the last decoded frame: yields frames for the remaining times."""
        while self._sampled < len(self._times):
            yield self._sample()

    def _sample(self) -> Frame:
        assert self._decoded is not None, "a video that was opened has a frame"
        self._sampled += 1
        if self._converted is None:
            self._converted = self._convert(self._decoded)
        return self._converted

    def _convert(self, video_frame: av.VideoFrame) -> Frame:
        frame = self.reader.to_rgb(video_frame)
        if self._scale.factor > 1:
            frame = downscale(frame, self._scale)
        if self._size in (None, frame.shape[:2]):
            return frame
        return scale_to_cover(frame, self._size, self.reader.video.sample_aspect_ratio)


class LastFrames:
    """The last `count` frames at `rate` fps, ending with the video's last; `size` and `scale` as in `FrameSampler`.

    Collected while the video is decoded for another purpose; otherwise the file is read when they are first needed.
    """

    def __init__(
        self, video: VideoInfo, rate: Fraction, count: int, size: tuple[int, int] | None = None, scale: Scale = UNSCALED
    ) -> None:
        last = video.timestamps[-1] * video.time_base
        times = [last - Fraction(count - 1 - number) / rate for number in range(count)]
        self._sampler = FrameSampler(video, times, size, scale)
        self._from_file = read_frames_at(video, times, size, scale)  # lazy
        self._frames: list[Frame] = []
        self._collecting = False

    def add(self, frame: av.VideoFrame, start: Fraction) -> None:
        """Take the video's next decoded frame, displayed from `start`."""
        self._collecting = True
        self._frames.extend(self._sampler.add(frame, start))

    def frames(self) -> NDArray[np.uint8]:  # (count, H, W, 3)
        """Call after every frame of the video was added, or none."""
        self._frames.extend(self._sampler.flush() if self._collecting else self._from_file)
        return np.stack(self._frames)


def read_last_frames(
    video: VideoInfo, rate: Fraction, count: int, size: tuple[int, int] | None = None, scale: Scale = UNSCALED
) -> NDArray[np.uint8]:  # (count, H, W, 3)
    """Read what `LastFrames` describes from the file."""
    return LastFrames(video, rate, count, size, scale).frames()


def read_frames_at(
    video: VideoInfo, times: Sequence[Fraction], size: tuple[int, int] | None = None, scale: Scale = UNSCALED
) -> Iterator[Frame]:
    """Read what `FrameSampler` describes from the file, in one pass that ends soon after the last of the times."""
    sampler = FrameSampler(video, times, size, scale)
    for frame, start in _decode_from(sampler.reader, times[0]):
        yield from sampler.add(frame, start)
        if sampler.is_done:
            return
    yield from sampler.flush()


def _decode_from(reader: FrameReader, time: Fraction) -> Iterator[TimedFrame]:
    """Decode from a frame at or before `time`; from the start if seeking fails or lands too late."""
    if time > reader.video.start:
        frames = reader.decode(since=time)
        try:
            first = next(frames, None)
        except (av.FFmpegError, OverflowError):  # a broken index, or negative times
            first = None
        if first is not None and first[1] <= time:
            yield first
            yield from frames
            return
    yield from reader.decode()
