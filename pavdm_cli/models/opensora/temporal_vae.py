"""An autoencoder over time: four frame latents become one; causal except for its group norms."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class TemporalConfig:
    """Sizes of the temporal autoencoder; the defaults are Open-Sora's."""

    channels: int = 4  # of frame latents and of video latents
    filters: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    blocks: int = 4
    groups: int = 32
    halved: tuple[bool, ...] = (False, True, True)  # the levels after which the number of frames is halved

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level."""
        return tuple(self.filters * multiplier for multiplier in self.multipliers)

    @property
    def ratio(self) -> int:
        """Frames per latent."""
        return int(2 ** sum(self.halved))


class CausalConv(nn.Module):
    """A convolution that is causal in time, with zeros before the first frame."""

    def __init__(self, width: int, out: int, kernel: int = 3, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        side = kernel // 2
        self.before = kernel - stride
        self.conv = nn.Conv3d(width, out, kernel, (stride, 1, 1), (0, side, side), bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, width, T, H, W) -> (B, out, T / stride, H, W)
        out: Tensor = self.conv(self.pad_past(x))
        return out

    def pad_past(self, x: Tensor) -> Tensor:
        """Pad with zeros in time, in front."""
        return F.pad(x, (0, 0, 0, 0, self.before, 0)) if self.before else x

    def norm_act(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        """Norm, SiLU and convolution; each intermediate is freed before the next, and SiLU keeps the padding zero."""
        x = norm(x)
        x = self.pad_past(x)
        out: Tensor = self.conv(F.silu(x, inplace=True))
        return out


class Residual(nn.Module):
    """A residual block of two causal convolutions, each after a norm."""

    def __init__(self, width: int, out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width)
        self.conv1 = CausalConv(width, out, bias=False)
        self.norm2 = nn.GroupNorm(groups, out)
        self.conv2 = CausalConv(out, out, bias=False)
        self.conv3 = CausalConv(width, out, 1, bias=False) if width != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (B, width, T, H, W) -> (B, out, T, H, W)
        return self.conv2.norm_act(self.norm2, self.conv1.norm_act(self.norm1, x)).add_(self.conv3(x))


def residual_blocks(width: int, out: int, config: TemporalConfig) -> nn.Sequential:
    """The blocks of one level."""
    blocks = (Residual(width if i == 0 else out, out, config.groups) for i in range(config.blocks))
    return nn.Sequential(*blocks)


class Encoder(nn.Module):
    """Frame latents to features, at a quarter of the frame rate."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = CausalConv(config.channels, widths[0], bias=False)
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.block_res_blocks = nn.ModuleList(residual_blocks(*pair, config) for pair in pairs)
        halving = zip(widths, config.halved, strict=False)
        self.conv_blocks = nn.ModuleList(CausalConv(w, w, stride=2) if half else nn.Identity() for w, half in halving)
        self.res_blocks = residual_blocks(widths[-1], widths[-1], config)
        self.norm1 = nn.GroupNorm(config.groups, widths[-1])
        self.conv2 = CausalConv(widths[-1], 2 * config.channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, channels, T, h, w) -> (B, 2 channels, T/4, h, w)
        x = self.conv_in(x)
        for i, blocks in enumerate(self.block_res_blocks):
            for block in blocks:  # type: ignore[attr-defined]  # one by one, so that only its own input is alive
                x = block(x)
            x = self.conv_blocks[i](x) if i < len(self.conv_blocks) else x
        out: Tensor = self.conv2.norm_act(self.norm1, self.res_blocks(x))
        return out


class TemporalUpsample(CausalConv):
    """Doubles the number of frames: a convolution to twice the channels, rearranged from channels to time."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:  # (B, width, T, h, w) -> (B, width, 2 T, h, w)
        return rearrange(super().forward(x), "b (c s) t h w -> b c (t s) h w", s=2)


class Decoder(nn.Module):
    """Video latents to frame latents."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv1 = CausalConv(config.channels, widths[-1])
        self.res_blocks = residual_blocks(widths[-1], widths[-1], config)
        pairs = zip((*widths[1:], widths[-1]), widths, strict=True)
        self.block_res_blocks = nn.ModuleList(residual_blocks(*pair, config) for pair in pairs)
        doubling = zip(widths[1:], config.halved, strict=True)
        self.conv_blocks = nn.ModuleList(TemporalUpsample(width) if half else nn.Identity() for width, half in doubling)
        self.norm1 = nn.GroupNorm(config.groups, widths[0])
        self.conv_out = CausalConv(widths[0], config.channels)

    def forward(self, z: Tensor) -> Tensor:  # (B, channels, T, h, w) -> (B, channels, 4 T, h, w)
        x = self.res_blocks(self.conv1(z))
        for i in reversed(range(len(self.block_res_blocks))):
            for block in self.block_res_blocks[i]:  # type: ignore[attr-defined]
                x = block(x)
            x = self.conv_blocks[i - 1](x) if i else x
        out: Tensor = self.conv_out.norm_act(self.norm1, x)
        return out


class TemporalVAE(nn.Module):
    """Frame latents to the posterior of video latents, and back."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.ratio = config.ratio
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = CausalConv(2 * config.channels, 2 * config.channels, 1)
        self.post_quant_conv = CausalConv(config.channels, config.channels, 1)

    def moments(self, x: Tensor) -> Tensor:
        """Mean, then log variance: (B, C, n, h, w) -> (B, 2C, ceil(n / 4), h, w); zero padding in front."""
        x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % self.ratio, 0))
        out: Tensor = self.quant_conv(self.encoder(x))
        return out

    def decode(self, z: Tensor, count: int) -> Tensor:
        """The last `count` frame latents: (B, C, T, h, w) -> (B, C, count, h, w), count above 4 (T - 1)."""
        out: Tensor = self.decoder(self.post_quant_conv(z))
        assert 0 <= out.shape[2] - count < self.ratio
        return out[:, :, out.shape[2] - count :]
