"""The causal VAE of Wan2.1 and of Wan2.2: 1 + 4 n frames to 1 + n latents and back. Names are the original ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from einops import rearrange
from torch import Tensor, nn

from pavdm_cli.models.pixels import to_unit
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
MEAN_21 = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
STD_21 = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
MEAN_22 = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
STD_22 = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class VAEConfig:
    """Sizes of a VAE; one with shortcuts around its levels works on patches of 2x2 pixels."""

    width: int = 96  # of the encoder's first level
    decoder_width: int = 96
    mean: tuple[float, ...] = MEAN_21  # of every latent channel
    std: tuple[float, ...] = STD_21
    shortcuts: bool = False

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return len(self.mean)

    @property
    def patch(self) -> int:
        """Pixels on a side that become channels before the encoder."""
        return 2 if self.shortcuts else 1

    @property
    def scale(self) -> int:
        """Pixels on a side of a latent."""
        return 8 * self.patch


WAN21 = VAEConfig()
WAN22 = VAEConfig(160, 256, MEAN_22, STD_22, shortcuts=True)


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
    """Both halves, one piece at a time. Latents are normalized: mean 0 and variance 1 over the training data."""

    def __init__(self, config: VAEConfig, *, tiled: bool = False) -> None:
        super().__init__()
        self.config, self.tiled = config, tiled
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.conv1 = nn.Conv3d(2 * config.channels, 2 * config.channels, 1)
        self.conv2 = nn.Conv3d(config.channels, config.channels, 1)

    def encode(self, frames: Tensor, cache: FeatureCache) -> Tensor:  # (B, 1 or 4, 3, H, W) -> (B, 1, C, h, w)
        """The posterior mean of the next frames, 0 to 1: of the first one alone, then of four at a time."""
        patch = self.config.patch
        pixels = rearrange(frames * 2 - 1, "b t c (h p) (w q) -> b (c q p) t h w", p=patch, q=patch)
        moments = self.conv1(self.encoder(pixels.to(self.conv1.weight), cache))
        cache.first = False
        mean, std = self._statistics(moments)
        latents: Tensor = (moments[:, : self.config.channels] - mean) / std
        return latents.transpose(1, 2).float()

    def decode(self, latent: Tensor, cache: FeatureCache) -> Tensor:  # (B, 1, C, h, w) -> (B, 1 or 4, 3, H, W)
        """The frames of the next latent, clamped to 0 to 1: one of the first, then four of each."""
        patch = self.config.patch
        z = latent.transpose(1, 2).to(self.conv2.weight)
        mean, std = self._statistics(z)
        pixels = self.decoder(self.conv2(z * std + mean), cache)
        cache.first = False
        frames = rearrange(pixels, "b (c q p) t h w -> b t c (h p) (w q)", p=patch, q=patch)
        return to_unit((frames.float() + 1) / 2)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent channels; constants of the configuration, not weights."""
        mean, std = (like.new_tensor(values)[:, None, None, None] for values in (self.config.mean, self.config.std))
        return mean, std


def _middle(width: int) -> nn.Sequential:
    return nn.Sequential(Residual(width, width), FrameAttention(width), Residual(width, width))


def _down_level(config: VAEConfig, level: int, width: int, out: int) -> Iterator[nn.Module]:
    """Two residual blocks, and between levels a downsampling; as one module where there are shortcuts."""
    last = level == len(TEMPORAL)
    layers: list[nn.Module] = [Residual(width, out), Residual(out, out)]
    layers += [] if last else [Downsample(out, TEMPORAL[level])]
    if not config.shortcuts:
        return iter(layers)
    temporal = not last and TEMPORAL[level]
    return iter([DownLevel(layers, out, time=1 + temporal, space=1 if last else 2)])


def _up_level(config: VAEConfig, level: int, width: int, out: int) -> Iterator[nn.Module]:
    """Three residual blocks, and between levels an upsampling, which halves the width where there are no shortcuts."""
    last = level == len(TEMPORAL)
    temporal = not last and TEMPORAL[::-1][level]
    entering = width // 2 if level and not config.shortcuts else width
    layers: list[nn.Module] = [Residual(entering, out), Residual(out, out), Residual(out, out)]
    layers += [] if last else [Upsample(out, out if config.shortcuts else out // 2, temporal)]
    if not config.shortcuts:
        return iter(layers)
    return iter([UpLevel(layers, out, time=0 if last else 1 + temporal)])
