"""Open-Sora's VAE (OpenSoraVAE v1.2): independent units of 17 frames to 5 latents, 8x smaller in space."""

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
from pavdm_cli.models.tiling import run_in_tiles, tile_side

FRAMES, LATENTS = 17, 5  # of a unit
SPATIAL_SCALE = 0.18215  # of frame latents, as trained; the spatial part's configuration has another value
SHIFT = (-0.10, 0.34, 0.27, 0.98)
SCALE = (3.85, 2.32, 2.33, 3.06)

MAX_COUNTS = {"levels": 8, "layers": 16, "blocks": 32}  # at least four times the published ones

Sampler = Callable[[Tensor, Tensor], Tensor]  # from the mean and standard deviation of a posterior to a latent


@dataclass(frozen=True, slots=True)
class VAEConfig:
    """Sizes of both parts."""

    spatial: SpatialConfig = field(default_factory=SpatialConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)


class OpenSoraVAE(nn.Module):
    """Frames to latents and back; parameter names are those of the published weights."""

    scale: Tensor
    shift: Tensor

    def __init__(self, config: VAEConfig, vae_batch_size: int = 4) -> None:
        """vae_batch_size: frames of 240p in the spatial part at a time; fewer need less memory."""
        super().__init__()
        self.config, self.vae_batch_size, self.tiled = config, vae_batch_size, False
        self.spatial_vae = nn.ModuleDict({"module": spatial_vae.autoencoder(config.spatial)})
        self.temporal_vae = TemporalVAE(config.temporal)
        for name, value in latent_statistics().items():
            self.register_buffer(name, value)

    @property
    def spatial(self) -> Any:
        """The spatial part."""
        return self.spatial_vae["module"]

    @torch.no_grad()
    def encode(self, frames: Tensor, sample: Sampler = lambda mean, deviation: mean) -> Tensor:
        """Frames (B, n, 3, H, W), 0 to 1, to latents (B, T, C, H/8, W/8) of zero mean and unit variance.

        T is 5 for every 17 frames and 1 for every 4 of the rest. Frames may be on the host: they are moved unit by
        unit. `sample` takes a latent from each posterior, by default its mean; training samples at random.
        """
        return torch.cat([self._encode_unit(unit, sample) for unit in torch.split(frames, FRAMES, 1)], dim=1)

    def decode(self, latents: Tensor, count: int | None = None) -> Tensor:
        """Latents (B, T, C, h, w) to `count` frames (B, n, 3, 8h, 8w), 0 to 1; count defaults to `frame_count(T)`.

        Units of 5 latents, and batches of `vae_batch_size` frames within them, are decoded independently, so the
        result does not depend on how many units are decoded together.
        """
        return to_unit((self.decode_raw(latents, count) + 1) / 2)

    @torch.no_grad()
    def decode_raw(self, latents: Tensor, count: int | None = None) -> Tensor:
        """See `decode`, but -1 to 1 and not clamped, float32."""
        units = torch.split(latents, LATENTS, 1)
        num_frames = frame_count(latents.shape[1]) if count is None else count
        counts = [min(FRAMES, num_frames - FRAMES * i) for i in range(len(units))]
        return torch.cat([self._decode_unit(*pair) for pair in zip(units, counts, strict=True)], dim=1)

    def _batch_size(self, height: int, width: int) -> int:
        """Frames at a time, of a size in latents, that take no more memory than `vae_batch_size` of 240p."""
        if self.tiled and max(height, width) > tile_side(height, width):
            return 1
        return max(1, min(self.vae_batch_size, self.vae_batch_size * 30 * 53 // (height * width)))

    def _tile(self, function: Callable[[Tensor], Tensor], x: Tensor, in_scale: int = 1, out_scale: int = 1) -> Tensor:
        """See `run_in_tiles`, if the VAE is tiled."""
        return run_in_tiles(function, x, in_scale, out_scale) if self.tiled else function(x)

    def _encode_unit(self, frames: Tensor, sample: Sampler) -> Tensor:  # (B, at most 17, 3, H, W) -> (B, T, C, h, w)
        pixels = (2 * frames.to(self.scale.device).flatten(0, 1) - 1).to(self.scale)
        split = torch.split(pixels, self._batch_size(frames.shape[-2] // 8, frames.shape[-1] // 8))
        moments = partial(spatial_vae.moments, self.spatial)
        parts = [sample_posterior(self._tile(moments, part, in_scale=8), sample) for part in split]
        codes = rearrange(torch.cat(parts), "(b t) c h w -> b c t h w", b=frames.shape[0]) * SPATIAL_SCALE
        latents = sample_posterior(self.temporal_vae.moments(codes), sample)
        return ((latents - self.shift) / self.scale).transpose(1, 2)

    def _decode_unit(self, latents: Tensor, count: int) -> Tensor:
        z = latents.to(self.scale).transpose(1, 2) * self.scale + self.shift
        codes = self.temporal_vae.decode(z, count) / SPATIAL_SCALE
        parts = torch.split(rearrange(codes, "b c t h w -> (b t) c h w"), self._batch_size(*codes.shape[-2:]))
        decode = partial(spatial_vae.decode, self.spatial)
        frames = torch.cat([self._tile(decode, part, out_scale=8).float() for part in parts])
        return rearrange(frames, "(b t) c h w -> b t c h w", t=count)


def infer_vae_config(shapes: Mapping[str, tuple[int, ...]]) -> VAEConfig:
    """The sizes of both parts from the shapes of their tensors: the published configuration does not have them.

    Raises: ModelError.
    """
    spatial, temporal = "spatial_vae.module.encoder.down_blocks", "temporal_vae.encoder"
    levels = _count(shapes, rf"{spatial}\.(\d+)\.")
    layers, blocks = (
        _count(shapes, rf"{spatial}\.0\.resnets\.(\d+)\."),
        _count(shapes, rf"{temporal}\.res_blocks\.(\d+)\."),
    )
    counts = {"levels": levels, "layers": layers, "blocks": blocks}
    names = [f"{spatial}.{level}.resnets.0.conv1.weight" for level in range(min(levels, MAX_COUNTS["levels"] + 1))]
    first = [shapes.get(name, ()) for name in (*names, f"{temporal}.conv_in.conv.weight")]
    widths = [shape[0] if shape else 0 for shape in first]
    if any(not 1 <= counts[name] <= maximum for name, maximum in MAX_COUNTS.items()) or not all(map(_is_width, widths)):
        raise ModelError(
            "these are not the weights of Open-Sora's VAE", "`pavdm models pull opensora-v1.2` downloads them"
        )
    return VAEConfig(SpatialConfig(tuple(widths[:-1]), layers), TemporalConfig(filters=widths[-1], blocks=blocks))


def _is_width(width: int) -> bool:
    """Whether a number of channels is plausible: whole groups of the norm, and not far above the published one."""
    return 0 < width <= 8 * max(SpatialConfig().widths) and width % SpatialConfig().groups == 0


def _count(names: Iterable[str], pattern: str) -> int:
    """One more than the highest number that the pattern captures in the names."""
    return max((int(hit[1][:9]) + 1 for name in names if (hit := re.match(pattern, name))), default=0)


def latent_statistics() -> dict[str, Tensor]:
    """Mean and standard deviation of the latent channels, (1, C, 1, 1, 1)."""
    pairs = (("scale", SCALE), ("shift", SHIFT))
    return {name: torch.tensor(values).view(1, -1, 1, 1, 1) for name, values in pairs}


def sample_posterior(moments: Tensor, sample: Sampler) -> Tensor:
    """A latent from a posterior given by mean and log variance, (B, 2C, ...) -> (B, C, ...)."""
    mean, log_variance = moments.chunk(2, dim=1)
    return sample(mean, (log_variance.clamp(-30, 20) / 2).exp())


def frame_count(latents: int) -> int:
    """The minimum number of frames for `latents`: a unit's first stands for at least one, each other for four more."""
    units, remainder = divmod(latents, LATENTS)
    return FRAMES * units + max(0, 4 * remainder - 3)
