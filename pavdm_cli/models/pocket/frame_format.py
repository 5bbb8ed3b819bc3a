"""Which frames pocket's latents stand for.

A latent holds the codes of two frames of 96x64 pixels, at 8 frames per second. They are decoded to that size or to
twice that size. At 16 frames per second, a frame between two coded ones is decoded from the mean of their codes: the
first latent gives 3 frames, each later one 4, the first of which lies between it and the latent before.
"""

from __future__ import annotations

from dataclasses import dataclass

CODED_SIZE = (64, 96)  # pixels, height and width, of the frames that are encoded
CODED_FPS = 8
CODE_CHANNELS = 12
LATENT_CHANNELS = 2 * CODE_CHANNELS


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """How frames relate to codes."""

    is_large: bool = False  # twice the coded size
    is_fast: bool = False  # twice the coded frame rate

    @property
    def first(self) -> int:
        """Frames of the first latent."""
        return 3 if self.is_fast else 2

    @property
    def rest(self) -> int:
        """Frames of each later latent."""
        return 4 if self.is_fast else 2


def frame_format(size: tuple[int, int], fps: float) -> FrameFormat:
    """The format of frames of a size (height, width)."""
    return FrameFormat(size != CODED_SIZE, fps != CODED_FPS)
