"""The rectified-flow loss of a window whose latents carry their own noise levels (paper eq. 3, section 3.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.models.stdit.transformer import STDiT, Text
from pavdm_cli.training.levels import NOISE


@dataclass(frozen=True, slots=True)
class Batch:
    """What the denoiser is shown in one training step."""

    latents: Tensor  # (B, T, C, H, W), clean
    noise: Tensor  # same shape
    times: Tensor  # (B, T), 0 clean to 1000 noise
    counted: Tensor  # (B, T), 1 where the loss is taken
    clean: int = 0  # latents at the front that attend only to themselves over time

    def rows(self, which: slice) -> Batch:
        """Some of its samples."""
        return self._each(lambda value: value[which])

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return self._each(lambda value: value.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(change(self.latents), change(self.noise), change(self.times), change(self.counted), self.clean)


def noised(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:  # (B, T, C, H, W), same, (B, T)
    """Every latent mixed with its noise at its own timestep, 0 (clean) to 1000 (noise)."""
    sigma = (times / NOISE)[:, :, None, None, None]
    return (1 - sigma) * clean + sigma * noise


def velocity_loss(
    velocity: Tensor, batch: Batch, wanted: Tensor | None = None, weights: Tensor | float = 1.0
) -> Tensor:  # -> (B,)
    """Mean squared error over the counted latents of each sample, to `wanted` or else to clean - noise.

    weights: of the squares, of any shape that goes with (B, T, C, H, W).
    """
    wanted = batch.latents - batch.noise if wanted is None else wanted
    error = ((velocity - wanted).square() * weights).mean(dim=(2, 3, 4))
    return (error * batch.counted).sum(1) / batch.counted.sum(1).clamp_min(1)


def window_velocity(
    model: STDiT,
    text: Text,
    batch: Batch,
    fps: Tensor,
    size: tuple[float, float] | None = None,
    rounded: torch.dtype | None = None,
) -> Tensor:  # -> (B, T, C, H, W)
    """What the model makes of the noised batch; fps () or (B,); size: pixels high and wide, for a model given them.

    rounded: the precision in which the model reads timesteps; the noise follows the exact ones.
    """
    rows, count = batch.times.shape
    read = batch.times.flatten().to(rounded or batch.times.dtype)
    table = model.table(read, fps.repeat_interleave(count) if fps.dim() else fps)
    index = torch.arange(rows * count, dtype=torch.int32, device=batch.times.device).view(rows, count)
    z = noised(batch.latents, batch.noise, batch.times)
    return model(z, index, table, text, clean=batch.clean, size=size)  # type: ignore[no-any-return]
