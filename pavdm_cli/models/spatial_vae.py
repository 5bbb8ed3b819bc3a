"""An autoencoder of single pictures, 8x smaller, in the layout and under the names of AutoencoderKL."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class SpatialConfig:
    """Sizes of the picture autoencoder; as they stand, Open-Sora's (PixArt's copy of the SDXL one)."""

    widths: tuple[int, ...] = (128, 256, 512, 512)  # at 1, 1/2, 1/4 and 1/8 of the size
    layers: int = 2  # residual blocks a level; the decoder has one more
    groups: int = 32
    channels: int = 4  # of a latent


class Residual(nn.Module):
    """Two normed 3x3 convolutions around their input."""

    def __init__(self, width: int, out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width, eps=1e-6)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out, eps=1e-6)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (N, width, H, W) -> (N, out, H, W)
        h = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(h)))
        return out


class Attention(nn.Module):
    """Attention of all places of a picture to one another, in one head."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:  # (N, width, H, W), same shape out
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (N, H W, width)
        q, k, v = (layer(tokens)[:, None] for layer in (self.to_q, self.to_k, self.to_v))
        out: Tensor = self.to_out(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + out.transpose(1, 2).reshape(x.shape)


class Half(nn.Module):
    """Half as high and wide: a strided convolution that pads on the right and at the bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Double(nn.Module):
    """Twice as high and wide: every value four times, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


def level(pair: tuple[int, int], layers: int, groups: int, then: tuple[str, nn.Module]) -> nn.Sequential:
    """Residual blocks from one width to another at one size, then, under a name, a change of size."""
    width, out = pair
    blocks = nn.Sequential(*(Residual(width if i == 0 else out, out, groups) for i in range(layers)))
    return nn.Sequential(OrderedDict({"resnets": blocks, then[0]: nn.Sequential(then[1])}))


class Middle(nn.Module):
    """Attention between two residual blocks, where the picture is smallest."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width, groups)])
        self.resnets = nn.ModuleList(Residual(width, width, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.resnets
        out: Tensor = after(self.attentions[0](before(x)))
        return out


class Encoder(nn.Module):
    """Pictures to the two halves of a posterior: mean and logarithm of the variance."""

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        widths, groups = config.widths, config.groups
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        resized = [*map(Half, widths[:-1]), nn.Identity()]
        parts = zip((widths[0], *widths), widths, resized, strict=False)
        self.down_blocks = nn.Sequential(
            *(level((a, b), config.layers, groups, ("downsamplers", then)) for a, b, then in parts)
        )
        self.mid_block = Middle(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, 2 channels, H/8, W/8)
        x = self.mid_block(self.down_blocks(self.conv_in(x)))
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        widths, groups = config.widths[::-1], config.groups
        self.conv_in = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        resized = [*map(Double, widths[:-1]), nn.Identity()]
        parts = zip((widths[0], *widths), widths, resized, strict=False)
        self.up_blocks = nn.Sequential(
            *(level((a, b), config.layers + 1, groups, ("upsamplers", then)) for a, b, then in parts)
        )
        self.mid_block = Middle(widths[0], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:  # (N, channels, h, w) -> (N, 3, 8h, 8w)
        x = self.up_blocks(self.mid_block(self.conv_in(z)))
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


class SpatialVAE(nn.Module):
    """Pictures, -1 to 1, to posteriors and back."""

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.channels, 2 * config.channels, 1)
        self.post_quant_conv = nn.Conv2d(config.channels, config.channels, 1)

    def moments(self, pictures: Tensor) -> Tensor:
        """Mean, then logarithm of the variance: (N, 3, H, W) -> (N, 2 channels, H/8, W/8)."""
        out: Tensor = self.quant_conv(self.encoder(pictures))
        return out

    def decode(self, z: Tensor) -> Tensor:
        """Latents to pictures: (N, channels, h, w) -> (N, 3, 8h, 8w)."""
        out: Tensor = self.decoder(self.post_quant_conv(z))
        return out
