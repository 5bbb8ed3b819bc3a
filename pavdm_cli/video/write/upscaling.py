"""An encoder in front of another: it upscales frames."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from pavdm_cli.video.frame import Frame
from pavdm_cli.video.upscale import Upscaler
from pavdm_cli.video.write.encode import ZERO, Encoder, EncoderState
from pavdm_cli.video.write.remux import OtherStreams


@dataclass(slots=True)
class UpscalingEncoder:
    """Upscales frames for another encoder."""

    encoder: Encoder
    upscale: Upscaler

    @property
    def continuable(self) -> bool:
        """See `Encoder.continuable`."""
        return self.encoder.continuable

    @property
    def comment(self) -> str:
        """See `Encoder.comment`."""
        return self.encoder.comment

    @comment.setter
    def comment(self, comment: str) -> None:
        self.encoder.comment = comment

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append an RGB frame of the original size."""
        assert not isinstance(frame, av.VideoFrame)
        self.encoder.encode(self.upscale(frame), time)

    def end_chunk(self, force: bool = False) -> None:
        """See `Encoder.end_chunk`."""
        self.encoder.end_chunk(force)

    def state(self) -> EncoderState:
        """See `Encoder.state`."""
        return self.encoder.state()

    def close(self) -> None:
        """See `Encoder.close`."""
        self.encoder.close()

    def abort(self) -> None:
        """See `Encoder.abort`."""
        self.encoder.abort()

    def finalize(self, streams: OtherStreams | None = None, end: Fraction = ZERO) -> Path:
        """See `Encoder.finalize`."""
        return self.encoder.finalize(streams, end)
