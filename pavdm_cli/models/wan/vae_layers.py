"""Layers of the causal VAE, which process a video piece by piece and cache the last frames of each layer's input.

Tensors are (B, C, T, H, W). The first frame of a video is always a piece of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

HISTORY = 2  # earlier frames in the kernel of a causal convolution over three frames


@dataclass(slots=True)
class FeatureCache:
    """The last input frames of every layer, and whether the first piece is being processed."""

    first: bool = True
    features: dict[nn.Module, Tensor] = field(default_factory=dict)

    def extend(self, layer: nn.Module, x: Tensor, history: int) -> Tensor:
        """x after the `history` frames before it, zeros at the start; caches the last frames for the next piece."""
        before = self.features.get(layer)
        if before is None:
            before = x.new_zeros(*x.shape[:2], history, *x.shape[3:])
        both = torch.cat([before, x], dim=2)
        self.features[layer] = both[:, :, -history:].clone()  # not a view, which would keep all of it alive
        return both


class CachedLayer(nn.Module):
    """A layer that takes the cache."""

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        raise NotImplementedError


def run_layers(layers: Iterable[nn.Module], x: Tensor, cache: FeatureCache) -> Tensor:
    """Apply layers in sequence; only a `CachedLayer` gets the cache."""
    for layer in layers:
        x = layer(x, cache) if isinstance(layer, CachedLayer) else layer(x)
    return x


class CausalConv3d(nn.Conv3d, CachedLayer):
    """A convolution over a frame and the two before it, with zero padding in space."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:  # type: ignore[override]
        return F.conv3d(cache.extend(self, x, HISTORY), self.weight, self.bias, padding=self.padding)


TINY_NORM = 1e-12  # smaller ones count as this


class Norm(nn.Module):
    """RMS norm over channels."""

    def __init__(self, channels: int, dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * dims))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, ...)
        # `F.normalize` is several times as slow on a CPU: its norm does not vectorize over a dimension that is strided.
        squares = x.square().sum(dim=1, keepdim=True).clamp_min(TINY_NORM**2)
        return x * (len(self.gamma) / squares).sqrt() * self.gamma


class Residual(CachedLayer):
    """A residual block of two convolutions."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            Norm(channels), nn.SiLU(), CausalConv3d(channels, out), Norm(out), nn.SiLU(), nn.Identity(),
            CausalConv3d(out, out),
        )  # fmt: skip
        self.shortcut = nn.Identity() if channels == out else nn.Conv3d(channels, out, 1)

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        out: Tensor = self.shortcut(x)
        return out + run_layers(self.residual, x, cache)


class FrameAttention(nn.Module):
    """Single-head spatial attention within every frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels, dims=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, _, height, width = x.shape
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        qkv = rearrange(self.to_qkv(self.norm(frames)), "n (k c) h w -> k n 1 (h w) c", k=3)
        attention_out = rearrange(F.scaled_dot_product_attention(*qkv), "n 1 (h w) c -> n c h w", h=height, w=width)
        out: Tensor = rearrange(self.proj(attention_out), "(b t) c h w -> b c t h w", b=batch)
        return x + out


class Downsample(CachedLayer):
    """Halves height and width, and with `temporal` the number of frames after the first."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        if temporal:
            self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))
        self.temporal = temporal

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        x = _per_frame(self.resample, x)
        if not self.temporal:
            return x
        with_history = cache.extend(self, x, 1)
        out: Tensor = x if cache.first else self.time_conv(with_history)
        return out


class Upsample(CachedLayer):
    """Doubles height and width, and before that with `temporal` the number of frames after the first."""

    def __init__(self, channels: int, out: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(channels, out, 3, padding=1))
        if temporal:
            self.time_conv = nn.Conv3d(channels, 2 * channels, (3, 1, 1))
        self.temporal = temporal

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        if self.temporal and not cache.first:
            pairs = self.time_conv(cache.extend(self, x, HISTORY))
            x = rearrange(pairs, "b (p c) t h w -> b c (t p) h w", p=2)
        return _per_frame(self.resample, x)


class DownLevel(CachedLayer):
    """Layers of one level with a shortcut that averages pixels, frames and channels."""

    def __init__(self, layers: Iterable[nn.Module], out: int, time: int, space: int) -> None:
        super().__init__()
        self.downsamples = nn.ModuleList(layers)
        self.out, self.time, self.space = out, time, space

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        return run_layers(self.downsamples, x, cache) + self._pool(x)

    def _pool(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % self.time, 0))  # pads the first frame with zeros
        sizes = {"p": self.time, "q": self.space, "r": self.space}
        parts: Tensor = rearrange(x, "b c (t p) (h q) (w r) -> b (c p q r) t h w", **sizes)
        return parts.view(len(x), self.out, -1, *parts.shape[2:]).mean(dim=2)


class UpLevel(CachedLayer):
    """Layers of one level, with a shortcut that repeats pixels and frames, except in the last level."""

    def __init__(self, layers: Iterable[nn.Module], out: int, time: int) -> None:
        """time: how often the shortcut repeats a frame; 0: no shortcut."""
        super().__init__()
        self.upsamples = nn.ModuleList(layers)
        self.out, self.time = out, time

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        main = run_layers(self.upsamples, x, cache)
        return main + self._repeat(x, cache.first) if self.time else main

    def _repeat(self, x: Tensor, first: bool) -> Tensor:
        channels = x.repeat_interleave(self.out * self.time * 4 // x.shape[1], dim=1)
        pixels: Tensor = rearrange(channels, "b (c p q r) t h w -> b c (t p) (h q) (w r)", p=self.time, q=2, r=2)
        return pixels[:, :, -1:] if first else pixels


def _per_frame(layer: nn.Module, x: Tensor) -> Tensor:
    frames = layer(rearrange(x, "b c t h w -> (b t) c h w"))
    out: Tensor = rearrange(frames, "(b t) c h w -> b c t h w", b=len(x))
    return out
