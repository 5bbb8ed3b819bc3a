"""The VAE as streams that carry its feature cache from piece to piece: any grouping of the input gives the same bits.

The first frame is a piece of its own, then four frames at a time, and one latent at a time: memory does not grow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from pavdm_cli.models.float32 import exact_convolutions
from pavdm_cli.models.streams import ClipEncodeStream
from pavdm_cli.models.tiling import run_in_tiles
from pavdm_cli.models.wan.vae import GROUP, WanVAE
from pavdm_cli.models.wan.vae_layers import FeatureCache

# Latents before its own that a frame depends on: the decoder's convolutions, 2 frames each, at their frame rates.
# After this many latents the state of a stream is bit-identical, whatever came before them.
REPLAY = 38

Piece = Callable[[Tensor, FeatureCache], Tensor]


@dataclass(slots=True)
class TileCaches:
    """A feature cache per tile, in the order of the tiles; a single one without tiling."""

    tiled: bool
    caches: defaultdict[int, FeatureCache] = field(default_factory=lambda: defaultdict(FeatureCache))

    @exact_convolutions()
    @torch.no_grad()
    def run(self, piece: Piece, x: Tensor, in_scale: int, out_scale: int) -> Tensor:
        """Process the next piece; scales as in `run_in_tiles`."""
        if not self.tiled:
            return piece(x, self.caches[0])
        number = count()
        return run_in_tiles(lambda tile: piece(tile, self.caches[next(number)]), x, in_scale, out_scale)


@dataclass(slots=True)
class DecodeStream:
    """Latents to frames."""

    vae: WanVAE
    caches: TileCaches
    pushed: int = 0

    @property
    def replay(self) -> int:
        """See `Stream.replay`."""
        return min(REPLAY, self.pushed)

    def push(self, latents: Tensor, /) -> Tensor:
        """See `Stream.push`."""
        if not latents.shape[1]:
            return latents.new_empty(len(latents), 0, 1, 1, 1)
        self.pushed += latents.shape[1]
        pieces = torch.split(latents, 1, dim=1)
        return torch.cat([self.caches.run(self.vae.decode, piece, 1, self.vae.config.scale) for piece in pieces], dim=1)

    def flush(self) -> Tensor:
        """See `Stream.flush`: nothing is left."""
        return torch.empty(1, 0, 1, 1, 1)


def encode_stream(vae: WanVAE) -> ClipEncodeStream:
    """A stream for one clip."""
    caches = TileCaches(vae.tiled)
    return ClipEncodeStream(lambda piece: caches.run(vae.encode, piece, vae.config.scale, 1), first=1, rest=GROUP)


def decode_stream(vae: WanVAE, context: Tensor | None = None) -> DecodeStream:
    """A stream that continues after the context, latents (B, T, C, h, w)."""
    stream = DecodeStream(vae, TileCaches(vae.tiled))
    for latent in () if context is None else torch.split(context[:, -REPLAY:], 1, dim=1):
        stream.push(latent)
    return stream
