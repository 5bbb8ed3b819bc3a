"""How latents stand for frames."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class LatentLayout:
    """How latents stand for frames. A stream's first latent is `first` frames, each later one `rest`.

    With a `unit` of several latents the count restarts with every unit, which the VAE encodes by itself.
    """

    shape: tuple[int, int, int]  # (C, h, w) of one latent
    first: int
    rest: int
    unit: int = 1  # latents that are encoded together

    @property
    def unit_frames(self) -> int:
        """Frames of a unit within a stream."""
        return self.rest if self.unit == 1 else self.first + (self.unit - 1) * self.rest

    @property
    def frames_per_latent(self) -> Fraction:
        """In the mean over a long video."""
        return Fraction(self.unit_frames, self.unit)

    def frames(self, first: int, last: int, begun: bool = False) -> range:
        """The frames that latents `first` to `last` - 1 of a stream stand for; begun: it continues another one."""
        return range(self._start(first, begun), self._start(last, begun))

    def count(self, latents: int, begun: bool = False) -> int:
        """Frames of so many latents in whole units, from the start of a stream."""
        return self._start(self.whole(latents), begun)

    def latents(self, frames: int, begun: bool = False) -> int:
        """The least number of latents, in whole units, that hold so many frames."""
        if frames <= 0:
            return 0
        missing = self.rest - self.first if self.unit == 1 and not begun else 0
        return -(-(frames + missing) // self.unit_frames) * self.unit

    def fitting(self, frames: int) -> int:
        """The largest number of latents, in whole units, that stand for no more than so many frames of a clip."""
        missing = self.rest - self.first if self.unit == 1 and frames > 0 else 0
        return (frames + missing) // self.unit_frames * self.unit

    def whole(self, latents: int) -> int:
        """So many latents, rounded up to whole units."""
        return -(-latents // self.unit) * self.unit

    def _start(self, latent: int, begun: bool) -> int:
        """Frames before a latent."""
        units, inside = divmod(latent, self.unit)
        if self.unit > 1:
            return units * self.unit_frames + (self.first + (inside - 1) * self.rest if inside else 0)
        return latent * self.rest - (self.rest - self.first if latent > 0 and not begun else 0)
