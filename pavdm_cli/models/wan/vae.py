"""The causal VAE of Wan2.1 and Wan2.2: 1 + 4n frames to 1 + n latents and back. Parameters have original names."""

from __future__ import annotations

from collections.abc import Iterator

from einops import rearrange
from torch import Tensor, nn

from pavdm_cli.models.pixels import to_unit
from pavdm_cli.models.wan.config import VAEConfig
from pavdm_cli.models.wan.vae_layers import (
    CausalConv3d,
    DownLevel,
    Downsample,
    FeatureCache,
    FrameAttention,
    Norm,
    Residual,
    UpLevel,
    Upsample,
    run_layers,
)

MULTIPLES = (1, 2, 4, 4)  # of the base width, by level
TEMPORAL = (False, True, True)  # which levels halve the frames
GROUP = 4  # frames of every latent but the first


class Encoder(nn.Module):
    """Frames to means and log variances."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.width * multiple for multiple in (1, *MULTIPLES)]
        self.conv1 = CausalConv3d(3 * config.patch**2, widths[0])
        levels = [_down_level(config, level, widths[level], widths[level + 1]) for level in range(len(MULTIPLES))]
        self.downsamples = nn.ModuleList(layer for level in levels for layer in level)
        self.middle = _middle(widths[-1])
        self.head = nn.Sequential(Norm(widths[-1]), nn.SiLU(), CausalConv3d(widths[-1], 2 * config.channels))

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """A piece of (B, C, T, H, W)."""
        return run_layers((self.conv1, *self.downsamples, *self.middle, *self.head), x, cache)


class Decoder(nn.Module):
    """Latents to frames."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.decoder_width * multiple for multiple in (MULTIPLES[-1], *MULTIPLES[::-1])]
        self.conv1 = CausalConv3d(config.channels, widths[0])
        self.middle = _middle(widths[0])
        levels = [_up_level(config, level, widths[level], widths[level + 1]) for level in range(len(MULTIPLES))]
        self.upsamples = nn.ModuleList(layer for level in levels for layer in level)
        self.head = nn.Sequential(Norm(widths[-1]), nn.SiLU(), CausalConv3d(widths[-1], 3 * config.patch**2))

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """A piece of (B, C, T, h, w)."""
        return run_layers((self.conv1, *self.middle, *self.upsamples, *self.head), x, cache)


class WanVAE(nn.Module):
    """Encoder and decoder, one piece at a time. Latents have mean 0 and variance 1 over the training data."""

    def __init__(self, config: VAEConfig, *, tiled: bool = False) -> None:
        super().__init__()
        self.config, self.tiled = config, tiled
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.conv1 = nn.Conv3d(2 * config.channels, 2 * config.channels, 1)
        self.conv2 = nn.Conv3d(config.channels, config.channels, 1)

    def encode(self, frames: Tensor, cache: FeatureCache) -> Tensor:  # (B, 1 or 4, 3, H, W) -> (B, 1, C, h, w)
        """The posterior mean for the next frames, 0 to 1: the first frame, then four at a time."""
        patch = self.config.patch
        pixels = rearrange(frames * 2 - 1, "b t c (h p) (w q) -> b (c q p) t h w", p=patch, q=patch)
        moments = self.conv1(self.encoder(pixels.to(self.conv1.weight), cache))
        cache.first = False
        mean, std = self._statistics(moments)
        latents: Tensor = (moments[:, : self.config.channels] - mean) / std
        return latents.transpose(1, 2).float()

    def decode(self, latent: Tensor, cache: FeatureCache) -> Tensor:  # (B, 1, C, h, w) -> (B, 1 or 4, 3, H, W)
        """The frames of the next latent, clamped to 0 to 1: one for the first latent, then four."""
        patch = self.config.patch
        z = latent.transpose(1, 2).to(self.conv2.weight)
        mean, std = self._statistics(z)
        pixels = self.decoder(self.conv2(z * std + mean), cache)
        cache.first = False
        frames = rearrange(pixels, "b (c q p) t h w -> b t c (h p) (w q)", p=patch, q=patch)
        return to_unit((frames.float() + 1) / 2)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent channels, from the configuration."""
        mean, std = (like.new_tensor(values)[:, None, None, None] for values in (self.config.mean, self.config.std))
        return mean, std


def _middle(width: int) -> nn.Sequential:
    return nn.Sequential(Residual(width, width), FrameAttention(width), Residual(width, width))


def _down_level(config: VAEConfig, level: int, width: int, out: int) -> Iterator[nn.Module]:
    """Two residual blocks, and a downsampling except in the last level; one module in a VAE with shortcuts."""
    last = level == len(TEMPORAL)
    layers: list[nn.Module] = [Residual(width, out), Residual(out, out)]
    layers += [] if last else [Downsample(out, TEMPORAL[level])]
    if not config.shortcuts:
        return iter(layers)
    temporal = not last and TEMPORAL[level]
    return iter([DownLevel(layers, out, time=1 + temporal, space=1 if last else 2)])


def _up_level(config: VAEConfig, level: int, width: int, out: int) -> Iterator[nn.Module]:
    """Three residual blocks, and an upsampling except in the last level, which halves the width without shortcuts."""
    last = level == len(TEMPORAL)
    temporal = not last and TEMPORAL[::-1][level]
    in_width = width // 2 if level and not config.shortcuts else width
    layers: list[nn.Module] = [Residual(in_width, out), Residual(out, out), Residual(out, out)]
    layers += [] if last else [Upsample(out, out if config.shortcuts else out // 2, temporal)]
    if not config.shortcuts:
        return iter(layers)
    return iter([UpLevel(layers, out, time=0 if last else 1 + temporal)])
