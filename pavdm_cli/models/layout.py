"""Which frames each latent stands for."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class LatentLayout:
    """Which frames each latent stands for: the first latent of a stream for `first` frames, each later one for `rest`.

    With a `unit` of several latents the count restarts in every unit, since the VAE encodes units independently.
    """

    shape: tuple[int, int, int]  # (C, h, w) of one latent
    first: int
    rest: int
    unit: int = 1  # latents that are encoded together

    @property
    def is_causal(self) -> bool:
        """Whether the frames of a latent also depend on earlier latents."""
        return self.unit == 1 and self.first != self.rest

    @property
    def unit_frames(self) -> int:
        """Frames of a unit within a stream."""
        return self.rest if self.unit == 1 else self.first + (self.unit - 1) * self.rest

    @property
    def frames_per_latent(self) -> Fraction:
        """Average over a long video."""
        return Fraction(self.unit_frames, self.unit)

    def frame_range(self, start: int, stop: int, continues_stream: bool = False) -> range:
        """The frames of latents `start` to `stop` - 1; continues_stream: the stream continues another one."""
        return range(self._start(start, continues_stream), self._start(stop, continues_stream))

    def num_frames(self, latents: int, continues_stream: bool = False) -> int:
        """Frames of `latents` rounded up to whole units, from the start of a stream."""
        return self._start(self.whole(latents), continues_stream)

    def num_latents(self, frames: int, continues_stream: bool = False) -> int:
        """The smallest number of latents in whole units that covers `frames`."""
        if frames <= 0:
            return 0
        missing = self.rest - self.first if self.unit == 1 and not continues_stream else 0
        return -(-(frames + missing) // self.unit_frames) * self.unit

    def filled_by(self, frames: int) -> int:
        """The largest number of latents in whole units that `frames` of a clip fill."""
        missing = self.rest - self.first if self.unit == 1 and frames > 0 else 0
        return (frames + missing) // self.unit_frames * self.unit

    def whole(self, latents: int) -> int:
        """`latents` rounded up to whole units."""
        return -(-latents // self.unit) * self.unit

    def _start(self, latent: int, continues_stream: bool) -> int:
        """Frames before a latent."""
        units, inside = divmod(latent, self.unit)
        if self.unit > 1:
            return units * self.unit_frames + (self.first + (inside - 1) * self.rest if inside else 0)
        return latent * self.rest - (self.rest - self.first if latent > 0 and not continues_stream else 0)
