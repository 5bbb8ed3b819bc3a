"""A stored video as VP9, for browsers without H.264."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path

from pavdm_cli.serve.live import LIVE_CRF
from pavdm_cli.video import FrameReader, VideoInfo, open_video
from pavdm_cli.video.write.encode import EncoderOptions, VideoParams
from pavdm_cli.video.write.segmented import SegmentedEncoder

TICK = Fraction(1, 1000)  # seconds: the unit of WebM
MEDIA_TYPE = 'video/webm; codecs="vp9"'


class Buffer:
    """Collects what an encoder writes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def append(self, data: bytes) -> None:
        """Collect bytes."""
        self._parts.append(data)

    def close(self) -> None:
        """Nothing to close."""

    def take(self) -> bytes:
        """What was collected since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def transcode(path: Path) -> Iterator[bytes]:
    """The frames of a video as WebM without audio, encoded as fast as they are taken. Raises: InputError.

    The file is opened before the first part is asked for.
    """
    return _transcode(open_video(path))


def _transcode(video: VideoInfo) -> Iterator[bytes]:
    params = VideoParams(video.width, video.height, video.rate, video.sample_aspect_ratio, time_base=TICK)
    options = EncoderOptions(LIVE_CRF, segment=ceil(video.rate), threads=1, realtime=True)
    buffer = Buffer()
    encoder, last = SegmentedEncoder(Path("copy.webm"), params, options, pipe=buffer), -1
    for frame, time in FrameReader(video):
        last = max(last + 1, round((time - video.start) / TICK))
        encoder.encode(frame, last)
        encoder.end_chunk()
        if data := buffer.take():
            yield data
    encoder.close()
    yield buffer.take()
