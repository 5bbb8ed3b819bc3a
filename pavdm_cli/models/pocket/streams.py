"""Pocket's VAE as streams, at 192x128 or 96x64 pixels and at 16 or 8 frames per second."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from pavdm_cli.models.float32 import exact_convolutions
from pavdm_cli.models.pixels import to_unit
from pavdm_cli.models.pocket.frame_format import FrameFormat
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.models.streams import ClipEncodeStream


def encode_stream(vae: PocketVAE, format: FrameFormat) -> ClipEncodeStream:
    """A stream for one clip."""

    def encode(piece: Tensor) -> Tensor:
        coded = piece[:, 1 - piece.shape[1] % 2 :: 2] if format.is_fast else piece  # the last frame is a coded one
        return vae.encode(_halve(coded) if format.is_large else coded)

    return ClipEncodeStream(encode, format.first, format.rest)


@dataclass(slots=True)
class DecodeStream:
    """Latents to frames, one latent at a time: convolutions round differently at other batch sizes."""

    vae: PocketVAE
    format: FrameFormat
    last_code: Tensor | None = None  # (B, 1, C, h, w)

    @property
    def replay(self) -> int:
        """See `Stream.replay`."""
        return int(self.format.is_fast and self.last_code is not None)

    @exact_convolutions()
    @torch.no_grad()
    def push(self, latents: Tensor, /) -> Tensor:
        """See `Stream.push`."""
        if not latents.shape[1]:
            return latents.new_empty(len(latents), 0, 1, 1, 1)
        codes = rearrange(latents, "b t (f c) h w -> t b f c h w", f=self.vae.config.frames_per_latent)
        return torch.cat([self._decode(self._with_middles(code)) for code in codes], dim=1)

    def flush(self) -> Tensor:
        """See `Stream.flush`: nothing is left."""
        return torch.empty(1, 0, 1, 1, 1)

    def _with_middles(self, codes: Tensor) -> Tensor:  # (B, 2, C, h, w) -> (B, n, C, h, w)
        """Insert the mean of every two neighboring codes; the first of them is that with the last latent's code."""
        if not self.format.is_fast:
            return codes
        is_first, last_code = self.last_code is None, codes[:, :1] if self.last_code is None else self.last_code
        middles = (torch.cat([last_code, codes[:, :-1]], dim=1) + codes) / 2
        self.last_code = codes[:, -1:]
        alternating = torch.stack([middles, codes], dim=2).flatten(1, 2)
        return alternating[:, 1:] if is_first else alternating  # nothing lies before the first frame

    def _decode(self, codes: Tensor) -> Tensor:  # (B, n, C, h, w) -> (B, n, 3, H, W)
        decode = self.vae.decode_large_frames if self.format.is_large else self.vae.decode_frames
        return to_unit(torch.stack([decode(code) for code in codes]))


def decode_stream(vae: PocketVAE, format: FrameFormat, context: Tensor | None = None) -> DecodeStream:
    """A stream that continues after the context, latents (B, T, C, h, w)."""
    stream = DecodeStream(vae, format)
    if context is not None and context.shape[1] and format.is_fast:
        stream.last_code = context[:, -1:].chunk(vae.config.frames_per_latent, dim=2)[-1]
    return stream


def _halve(frames: Tensor) -> Tensor:  # (B, n, 3, H, W) -> (B, n, 3, H / 2, W / 2)
    halved = torch.nn.functional.avg_pool2d(frames.flatten(0, 1), 2)
    return halved.view(*frames.shape[:2], *halved.shape[1:])
