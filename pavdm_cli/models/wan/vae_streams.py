"""The VAE as streams: its feature cache is carried from piece to piece, so that every grouping gives the same bits.

Frame 0 and latent 0 are pieces of their own, then four frames and one latent at a time: memory does not grow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from pavdm_cli.models.float32 import exact_convolutions
from pavdm_cli.models.tiling import in_tiles
from pavdm_cli.models.wan.vae import GROUP, WanVAE
from pavdm_cli.models.wan.vae_layers import FeatureCache

# Latents that a frame depends on before its own: half of the sum of 2 frames for each of the decoder's convolutions,
# at their frame rates. After as many the state of a stream that began with them is that of any other, to the bit.
REPLAY = 38

Piece = Callable[[Tensor, FeatureCache], Tensor]


@dataclass(slots=True)
class TileCaches:
    """Feature caches of the tiles of an image, in their order; one without tiles."""

    tiled: bool
    caches: defaultdict[int, FeatureCache] = field(default_factory=lambda: defaultdict(FeatureCache))

    @exact_convolutions()
    @torch.no_grad()
    def run(self, piece: Piece, x: Tensor, before: int, after: int) -> Tensor:
        """The next piece; before, after: values on a latent's side in x and in the result."""
        if not self.tiled:
            return piece(x, self.caches[0])
        number = count()
        return in_tiles(lambda tile: piece(tile, self.caches[next(number)]), x, before, after)


@dataclass(slots=True)
class EncodeStream:
    """Frames to latents; frames that do not fill a latent are left out, as in training."""

    vae: WanVAE
    caches: TileCaches
    waiting: Tensor | None = None
    begun: bool = False

    @property
    def replay(self) -> int:
        """As `Stream.replay`: it is never rebuilt."""
        return 0

    def push(self, frames: Tensor, /) -> Tensor:
        """As `Stream.push`."""
        frames = frames if self.waiting is None else torch.cat([self.waiting, frames], dim=1)
        scale, latents = self.vae.config.scale, list[Tensor]()
        while frames.shape[1] >= (size := GROUP if self.begun else 1):
            piece, frames = frames[:, :size], frames[:, size:]
            latents.append(self.caches.run(self.vae.encode, piece, scale, 1))
            self.begun = True
        self.waiting = frames
        return torch.cat(latents, dim=1) if latents else frames.new_empty(len(frames), 0, 1, 1, 1)

    def flush(self) -> Tensor:
        """As `Stream.flush`."""
        return torch.empty(1, 0, 1, 1, 1)


@dataclass(slots=True)
class DecodeStream:
    """Latents to frames."""

    vae: WanVAE
    caches: TileCaches
    pushed: int = 0

    @property
    def replay(self) -> int:
        """As `Stream.replay`."""
        return min(REPLAY, self.pushed)

    def push(self, latents: Tensor, /) -> Tensor:
        """As `Stream.push`."""
        if not latents.shape[1]:
            return latents.new_empty(len(latents), 0, 1, 1, 1)
        self.pushed += latents.shape[1]
        pieces = torch.split(latents, 1, dim=1)
        return torch.cat([self.caches.run(self.vae.decode, one, 1, self.vae.config.scale) for one in pieces], dim=1)

    def flush(self) -> Tensor:
        """As `Stream.flush`: nothing waits."""
        return torch.empty(1, 0, 1, 1, 1)


def encode_stream(vae: WanVAE) -> EncodeStream:
    """A stream of one clip."""
    return EncodeStream(vae, TileCaches(vae.tiled))


def decode_stream(vae: WanVAE, context: Tensor | None = None) -> DecodeStream:
    """A stream that continues after the latents of a context (B, T, C, h, w)."""
    stream = DecodeStream(vae, TileCaches(vae.tiled))
    for latent in () if context is None else torch.split(context[:, -REPLAY:], 1, dim=1):
        stream.push(latent)
    return stream
