"""Pocket's VAE: 96x64 frames to latents, 8x smaller, with the codes of two frames in the channels of every latent.

Codes are decoded to 96x64, or to twice the size by a decoder of its own. The mean of two neighboring codes decodes to
the frame halfway between them, which doubles the frame rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from pavdm_cli.errors import UsageError
from pavdm_cli.models.float32 import exact_convolutions
from pavdm_cli.models.pixels import to_unit
from pavdm_cli.models.pocket.frame_format import CODE_CHANNELS
from pavdm_cli.runtime.printable import pluralize
from pavdm_kernels import cast_to_narrower, linear


@dataclass(frozen=True, slots=True)
class PocketVAEConfig:
    """Sizes of the VAE."""

    channels: int = CODE_CHANNELS  # of one frame's code
    frames_per_latent: int = 2
    widths: tuple[int, int, int] = (32, 64, 128)  # at 1/2, 1/4 and 1/8 of the size
    encoder_blocks: int = 1
    decoder_blocks: int = 2
    upscaler_width: int = 32  # of the layers that add details at twice the size

    @property
    def latent_channels(self) -> int:
        """Channels of a latent: the codes of its frames."""
        return self.channels * self.frames_per_latent


class Residual(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, width, H, W), same shape out."""
        out: Tensor = x + self.second(nn.functional.silu(self.first(nn.functional.silu(self.norm(x)))))
        return out


class Pointwise(nn.Conv2d):
    """A 1x1 convolution as a linear layer, which rounds the same for any number of threads."""

    def forward(self, x: Tensor) -> Tensor:
        """x (N, channels, H, W) to (N, other channels, H, W)."""
        return linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class LargeDecoder(nn.Module):
    """Codes (N, channels, h, w) to frames (N, 3, 16h, 16w), -1 to 1: frames of half the size enlarged, and details."""

    def __init__(self, config: PocketVAEConfig) -> None:
        super().__init__()
        fine, width = config.widths[0], config.upscaler_width
        self.trunk = nn.Sequential(*_trunk(config))
        self.base = nn.Sequential(*_pixels(fine))
        self.details = nn.Sequential(
            Pointwise(fine, 4 * width, 1), nn.PixelShuffle(2), Residual(width), *_pixels(width, initial=0.0)
        )

    def forward(self, codes: Tensor) -> Tensor:
        """See the class."""
        features = self.trunk(codes)
        enlarged = nn.functional.interpolate(self.base(features), scale_factor=2, mode="bilinear", align_corners=False)
        out: Tensor = enlarged + self.details(features)
        return out


def _trunk(config: PocketVAEConfig) -> list[nn.Module]:
    """From codes to features at half of the size of small frames."""
    fine, middle, coarse = config.widths
    return [
        nn.Conv2d(config.channels, coarse, 3, padding=1),
        *(Residual(coarse) for _ in range(config.decoder_blocks)),
        Pointwise(coarse, 4 * middle, 1),
        nn.PixelShuffle(2),
        *(Residual(middle) for _ in range(config.decoder_blocks)),
        Pointwise(middle, 4 * fine, 1),
        nn.PixelShuffle(2),
        Residual(fine),
    ]


def _pixels(width: int, initial: float = 1.0) -> list[nn.Module]:
    """From features to an RGB frame of twice the size; initial: factor of the initial weights."""
    convolution = nn.Conv2d(width, 12, 3, padding=1)
    with torch.no_grad():
        convolution.weight.mul_(initial)
    return [convolution, nn.PixelShuffle(2)]


class PocketVAE(nn.Module):
    """Autoencoder over single frames; latents have zero mean and unit variance per channel by construction."""

    def __init__(self, config: PocketVAEConfig) -> None:
        super().__init__()
        self.config = config
        fine, middle, coarse = config.widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, fine, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(fine, middle, 3, stride=2, padding=1),
            Residual(middle),
            nn.Conv2d(middle, coarse, 3, stride=2, padding=1),
            *(Residual(coarse) for _ in range(config.encoder_blocks)),
            nn.Conv2d(coarse, config.channels, 3, padding=1),
        )
        self.normalise = nn.BatchNorm2d(config.channels, affine=False, momentum=0.02)
        self.decoder = nn.Sequential(*_trunk(config), *_pixels(fine))
        self.large_decoder = LargeDecoder(config)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, H, W), 0 to 1, to codes (N, channels, H/8, W/8)."""
        code: Tensor = self.normalise(self.encoder(frames * 2 - 1))
        return code

    def decode_frames(self, codes: Tensor) -> Tensor:
        """Codes (N, channels, H/8, W/8) to frames (N, 3, H, W), 0 to 1 but not clamped."""
        return _to_unit_range(self.decoder(self._cast(codes)), codes)

    def decode_large_frames(self, codes: Tensor) -> Tensor:
        """Codes (N, channels, H/8, W/8) to frames (N, 3, 2H, 2W), 0 to 1 but not clamped."""
        return _to_unit_range(self.large_decoder(self._cast(codes)), codes)

    def _cast(self, codes: Tensor) -> Tensor:
        return cast_to_narrower(codes, next(self.decoder.parameters()))

    @exact_convolutions()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, n, 3, H, W), 0 to 1, to latents (B, n / frames_per_latent, channels, H/8, W/8)."""
        self._check(frames)
        codes = self.encode_frames(frames.flatten(0, 1).to(next(self.encoder.parameters()).device))
        return rearrange(codes, "(b t f) c h w -> b t (f c) h w", b=frames.shape[0], f=self.config.frames_per_latent)

    @exact_convolutions()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, T, channels, h, w) to frames (B, T * frames_per_latent, 3, 8h, 8w), clamped to 0 to 1.

        One at a time: convolutions round differently at other batch sizes, so the last bits of a video would depend on
        how many latents are decoded together.
        """
        codes = rearrange(latents, "b t (f c) h w -> (b t) f c h w", f=self.config.frames_per_latent)
        frames = to_unit(torch.cat([self.decode_frames(code) for code in codes]))
        return rearrange(frames, "(b n) c h w -> b n c h w", b=latents.shape[0])

    def _check(self, frames: Tensor) -> None:
        count, (height, width) = frames.shape[1], frames.shape[-2:]
        if count % self.config.frames_per_latent or height % 8 or width % 8:
            raise UsageError(
                f"pocket encodes groups of {self.config.frames_per_latent} frames with sides in multiples of 8, "
                f"got {pluralize(count, 'frame')} of {width}x{height}"
            )


def _to_unit_range(frames: Tensor, like: Tensor) -> Tensor:
    """From -1 to 1, to 0 to 1, in the dtype of `like`."""
    return (frames.to(like.dtype) + 1) / 2
