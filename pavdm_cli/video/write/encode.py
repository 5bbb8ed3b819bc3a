"""What all encoders of video files share: parameters, options, and the protocol that they follow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from pavdm_cli.runtime.durable import sync_file
from pavdm_cli.video.color_space import BT709_LIMITED, ColorSpace
from pavdm_cli.video.frame import Frame
from pavdm_cli.video.upscale import Scale

if TYPE_CHECKING:
    from pavdm_cli.video.write.remux import OtherStreams


# x264 otherwise selects algorithms by CPU, and its AVX-512 code reads uninitialized memory.
X264_DETERMINISTIC = "cpu-independent=1"
MUXER_BITEXACT = "+bitexact"  # Matroska's muxer otherwise assigns random IDs to the file and its tracks
ZERO = Fraction(0)
MIN_SEGMENT_FRAMES, MIN_SEGMENT_SECONDS = 24, 2  # a shorter segment costs more bytes


@dataclass(frozen=True, slots=True)
class VideoParams:
    """Parameters of an output video stream."""

    width: int
    height: int
    rate: Fraction  # frames per second
    sample_aspect_ratio: Fraction = Fraction(1)
    time_base: Fraction | None = None  # seconds; one frame if None
    variable_frame_rate: bool = False
    color_space: ColorSpace = BT709_LIMITED
    max_rate: Fraction | None = None  # fps at the shortest gap between frames, if the frame rate varies

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height, padded to even numbers for 4:2:0."""
        return self.width + self.width % 2, self.height + self.height % 2

    @property
    def declared_rate(self) -> Fraction:
        """Of the container: players may drop frames that are closer than it says."""
        return self.max_rate or self.rate

    @property
    def tick(self) -> Fraction:
        """The unit of timestamps, in seconds."""
        return self.time_base or 1 / self.rate


@dataclass(frozen=True, slots=True)
class EncoderState:
    """What a growing file holds, and the frames that wait until their segment is long enough.

    An encoder that is given it continues the file, with the same bytes.
    """

    written: int  # frames, those that wait included; 0: the file is written again
    last_time: int  # of these frames, in ticks
    segments: int
    size: int  # bytes of the file; what follows is not part of it
    digest: str  # SHA-256 of these bytes
    times: tuple[int, ...]  # of the waiting frames, in ticks
    frames: NDArray[np.uint8]  # (n, 3/2 H, W), 4:2:0


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """Rate control and choice of the encoder."""

    crf: int = 18
    segment: int = 0  # the minimum number of frames encoded together; 0: what keeps the file small
    threads: int = 8  # fixed, since the output depends on it
    realtime: bool = False  # for a live stream: no B-frames, VP9 several times faster; larger
    encoder: str = ""  # of an external ffmpeg, such as h264_nvenc; empty: those inside PyAV
    ffmpeg: str = ""  # path of the external ffmpeg; empty: imageio-ffmpeg's, or the one on PATH
    scale: Scale = field(default_factory=Scale)  # applied to frames before encoding
    resume: EncoderState | None = None  # of an interrupted file, which is continued

    def segment_frames(self, rate: Fraction) -> int:
        """The minimum number of frames of a segment at a frame rate."""
        return self.segment or max(MIN_SEGMENT_FRAMES, math.ceil(MIN_SEGMENT_SECONDS * rate))


NOTHING_WRITTEN = EncoderState(0, -1, 0, 0, "", (), np.zeros((0, 0, 0), np.uint8))


class Encoder(Protocol):
    """A video file that frames are appended to."""

    comment: str  # the metadata of the complete file

    @property
    def continuable(self) -> bool:
        """Whether a state of it is enough to continue the file; otherwise all frames are written again."""

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append a frame with its timestamp in ticks."""

    def end_chunk(self, force: bool = False) -> None:
        """Frames up to here belong together: a segment may end, or with `force` must."""

    def state(self) -> EncoderState:
        """What is needed to continue the file."""

    def close(self) -> None:
        """Flush the encoder and close the file, which then plays to its end."""

    def abort(self) -> None:
        """Close a file that is about to be deleted, without flushing."""

    def finalize(self, streams: OtherStreams | None = None, end: Fraction = ZERO) -> Path:
        """The complete video, as a file to be renamed; called after `close`.

        streams: added to the file, until the video's end. Raises: OSError.
        """


class WholeFileEncoder:
    """The part of `Encoder` of those whose file is complete when it is closed, and cannot be continued."""

    path: Path
    continuable = False

    def end_chunk(self, force: bool = False) -> None:
        """Nothing ends."""

    def state(self) -> EncoderState:
        """The file is written again."""
        return NOTHING_WRITTEN

    def finalize(self, streams: OtherStreams | None = None, end: Fraction = ZERO) -> Path:
        """The file itself, once it is on the disk."""
        sync_file(self.path)
        return self.path


def can_encode(encoder: str) -> bool:
    """Whether PyAV's FFmpeg has an encoder, such as libx264: some distributions leave it out."""
    try:
        return bool(av.Codec(encoder, "w").name)
    except ValueError:
        return False


def pad_to_even(frame: Frame) -> Frame:  # (H, W, 3) -> (H + H % 2, W + W % 2, 3)
    """Repeat the last row and column of odd sizes, for 4:2:0."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(frame)
