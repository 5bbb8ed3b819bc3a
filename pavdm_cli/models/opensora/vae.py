"""Open-Sora's codec (OpenSoraVAE v1.2): 17 frames to 5 latents, 8x smaller in space, every such group on its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from pavdm_cli.errors import ModelError
from pavdm_cli.models.opensora import spatial_vae
from pavdm_cli.models.opensora.spatial_vae import SpatialConfig
from pavdm_cli.models.opensora.temporal_vae import TemporalConfig, TemporalVAE
from pavdm_cli.models.pixels import to_unit
from pavdm_cli.models.tiling import in_tiles, tile_side

FRAMES, LATENTS = 17, 5  # of a group
SPATIAL_SCALE = 0.18215  # of picture latents, as trained; not the number in the configuration of the spatial part
SHIFT = (-0.10, 0.34, 0.27, 0.98)
SCALE = (3.85, 2.32, 2.33, 3.06)

MOST = {"levels": 8, "layers": 16, "blocks": 32}  # four times the card's and more

Draw = Callable[[Tensor, Tensor], Tensor]  # mean and standard deviation of a posterior to a latent


@dataclass(frozen=True, slots=True)
class VAEConfig:
    """Sizes of both parts."""

    spatial: SpatialConfig = field(default_factory=SpatialConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)


class OpenSoraVAE(nn.Module):
    """Frames to latents and back; parameter names are those of the published weights."""

    scale: Tensor
    shift: Tensor

    def __init__(self, config: VAEConfig, decode_batch: int = 4) -> None:
        """decode_batch: images up to 240p that the spatial part works on at a time; fewer need less memory."""
        super().__init__()
        self.config, self.decode_batch, self.tiled = config, decode_batch, False
        self.spatial_vae = nn.ModuleDict({"module": spatial_vae.autoencoder(config.spatial)})
        self.temporal_vae = TemporalVAE(config.temporal)
        for name, value in normalisation().items():
            self.register_buffer(name, value)

    @property
    def spatial(self) -> Any:
        """The part that knows pictures."""
        return self.spatial_vae["module"]

    @torch.no_grad()
    def encode(self, frames: Tensor, draw: Draw = lambda mean, deviation: mean) -> Tensor:
        """Frames (B, n, 3, H, W), 0 to 1, to latents (B, T, C, H/8, W/8) of zero mean and unit variance.

        T is 5 for every 17 frames and one for every 4 of the rest. The frames may wait on the host: a group comes at a
        time. `draw` picks a latent of each posterior: the mean, so that a clip has one code; training drew at random.
        """
        return torch.cat([self._latents(group, draw) for group in torch.split(frames, FRAMES, 1)], dim=1)

    def decode(self, latents: Tensor, count: int | None = None) -> Tensor:
        """Latents (B, T, C, h, w) to `count` frames (B, n, 3, 8h, 8w), 0 to 1; the most that T certainly stands for.

        Every group of 5 latents, and every `decode_batch` images of it, by itself: a video's bytes do not depend on
        how many groups were decoded together.
        """
        return to_unit((self.decode_raw(latents, count) + 1) / 2)

    @torch.no_grad()
    def decode_raw(self, latents: Tensor, count: int | None = None) -> Tensor:
        """As `decode`, but -1 to 1 and not clamped, float32."""
        groups = torch.split(latents, LATENTS, 1)
        left = frames_of(latents.shape[1]) if count is None else count
        counts = [min(FRAMES, left - FRAMES * i) for i in range(len(groups))]
        return torch.cat([self._group(*pair) for pair in zip(groups, counts, strict=True)], dim=1)

    def _at_once(self, height: int, width: int) -> int:
        """Images of so many latents to work on at a time: as few as keep memory at what `decode_batch` of 240p take."""
        if self.tiled and max(height, width) > tile_side(height, width):
            return 1
        return max(1, min(self.decode_batch, self.decode_batch * 30 * 53 // (height * width)))

    def _whole(self, work: Callable[[Tensor], Tensor], x: Tensor, before: int = 1, after: int = 1) -> Tensor:
        """What a part makes of x, at once or in tiles; arguments as `in_tiles`."""
        return in_tiles(work, x, before, after) if self.tiled else work(x)

    def _latents(self, frames: Tensor, draw: Draw) -> Tensor:  # (B, at most 17, 3, H, W) -> (B, T, C, h, w)
        pictures = (2 * frames.to(self.scale.device).flatten(0, 1) - 1).to(self.scale)
        split = torch.split(pictures, self._at_once(frames.shape[-2] // 8, frames.shape[-1] // 8))
        moments = partial(spatial_vae.moments, self.spatial)
        parts = [posterior(self._whole(moments, part, before=8), draw) for part in split]
        codes = rearrange(torch.cat(parts), "(b t) c h w -> b c t h w", b=frames.shape[0]) * SPATIAL_SCALE
        latents = posterior(self.temporal_vae.moments(codes), draw)
        return ((latents - self.shift) / self.scale).transpose(1, 2)

    def _group(self, latents: Tensor, count: int) -> Tensor:
        z = latents.to(self.scale).transpose(1, 2) * self.scale + self.shift
        codes = self.temporal_vae.decode(z, count) / SPATIAL_SCALE
        parts = torch.split(rearrange(codes, "b c t h w -> (b t) c h w"), self._at_once(*codes.shape[-2:]))
        decode = partial(spatial_vae.decode, self.spatial)
        frames = torch.cat([self._whole(decode, part, after=8).float() for part in parts])
        return rearrange(frames, "(b t) c h w -> b t c h w", t=count)


def vae_config(found: Mapping[str, tuple[int, ...]]) -> VAEConfig:
    """The sizes of both parts from those of their tensors: the published configuration does not give them.

    Raises: ModelError.
    """
    spatial, temporal = "spatial_vae.module.encoder.down_blocks", "temporal_vae.encoder"
    levels = _count(found, rf"{spatial}\.(\d+)\.")
    layers, blocks = (
        _count(found, rf"{spatial}\.0\.resnets\.(\d+)\."),
        _count(found, rf"{temporal}\.res_blocks\.(\d+)\."),
    )
    counts = {"levels": levels, "layers": layers, "blocks": blocks}
    names = [f"{spatial}.{level}.resnets.0.conv1.weight" for level in range(min(levels, MOST["levels"] + 1))]
    shapes = [found.get(name, ()) for name in (*names, f"{temporal}.conv_in.conv.weight")]
    widths = [shape[0] if shape else 0 for shape in shapes]
    if any(not 1 <= counts[name] <= most for name, most in MOST.items()) or not all(map(_is_width, widths)):
        raise ModelError("these are no weights of Open-Sora's codec", "`pavdm models pull opensora-v1.2`")
    return VAEConfig(SpatialConfig(tuple(widths[:-1]), layers), TemporalConfig(filters=widths[-1], blocks=blocks))


def _is_width(width: int) -> bool:
    """Whether a convolution can have so many channels: whole groups of its norm, and not far above the card's."""
    return 0 < width <= 8 * max(SpatialConfig().widths) and width % SpatialConfig().groups == 0


def _count(names: Iterable[str], pattern: str) -> int:
    """One more than the highest number at a place in the names."""
    return max((int(hit[1][:9]) + 1 for name in names if (hit := re.match(pattern, name))), default=0)


def normalisation() -> dict[str, Tensor]:
    """Mean and deviation of the latents, a channel each, (1, C, 1, 1, 1)."""
    pairs = (("scale", SCALE), ("shift", SHIFT))
    return {name: torch.tensor(values).view(1, -1, 1, 1, 1) for name, values in pairs}


def posterior(moments: Tensor, draw: Draw) -> Tensor:
    """A latent of a posterior given by mean and logarithm of the variance, (B, 2C, ...) -> (B, C, ...)."""
    mean, logarithm = moments.chunk(2, dim=1)
    return draw(mean, (logarithm.clamp(-30, 20) / 2).exp())


def frames_of(latents: int) -> int:
    """Frames that so many latents certainly stand for: a group's first is for one, the others are for four."""
    whole, rest = divmod(latents, LATENTS)
    return FRAMES * whole + max(0, 4 * rest - 3)
