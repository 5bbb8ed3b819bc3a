"""The rectified-flow loss of a window whose latents have individual noise levels (paper eq. 3, section 3.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.models.stdit.transformer import Conditioning, STDiT
from pavdm_cli.training.levels import NOISE_TIMESTEP


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of training windows."""

    latents: Tensor  # (B, T, C, H, W), clean
    noise: Tensor  # same shape
    timesteps: Tensor  # (B, T), 0 (clean) to 1000 (noise)
    loss_mask: Tensor  # (B, T), 1 for latents that the loss covers
    context: int = 0  # clean latents at the start, which attend only to one another over time

    def select(self, samples: slice) -> Batch:
        """A part of the batch."""
        return self._map(lambda value: value[samples])

    def to(self, device: torch.device) -> Batch:
        """Move to a device."""
        return self._map(lambda value: value.to(device))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        latents, noise = function(self.latents), function(self.noise)
        return Batch(latents, noise, function(self.timesteps), function(self.loss_mask), self.context)


def add_noise(clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:  # (B, T, C, H, W), same, (B, T)
    """Interpolate linearly between clean latents (timestep 0) and noise (1000)."""
    sigma = (timesteps / NOISE_TIMESTEP)[:, :, None, None, None]
    return (1 - sigma) * clean + sigma * noise


def velocity_loss(
    velocity: Tensor, batch: Batch, target: Tensor | None = None, weights: Tensor | float = 1.0
) -> Tensor:  # -> (B,)
    """Mean squared error per sample over the latents of the loss mask; the target defaults to clean - noise.

    weights: of the squared errors, broadcastable to (B, T, C, H, W).
    """
    target = batch.latents - batch.noise if target is None else target
    error = ((velocity - target).square() * weights).mean(dim=(2, 3, 4))
    return (error * batch.loss_mask).sum(1) / batch.loss_mask.sum(1).clamp_min(1)


def predict_velocity(
    model: STDiT,
    conditioning: Conditioning,
    batch: Batch,
    fps: Tensor,
    size: tuple[float, float] | None = None,
    timestep_dtype: torch.dtype | None = None,
) -> Tensor:  # -> (B, T, C, H, W)
    """The model's velocity for the noised batch.

    fps: () or (B,). size: height and width in pixels, for models conditioned on it. timestep_dtype: precision in which
    the model gets timesteps; the noise itself is added with the exact ones.
    """
    rows, count = batch.timesteps.shape
    model_timesteps = batch.timesteps.flatten().to(timestep_dtype or batch.timesteps.dtype)
    modulation = model.embed_timesteps(model_timesteps, fps.repeat_interleave(count) if fps.dim() else fps)
    index = torch.arange(rows * count, dtype=torch.int32, device=batch.timesteps.device).view(rows, count)
    z = add_noise(batch.latents, batch.noise, batch.timesteps)
    return model(z, index, modulation, conditioning, num_context_latents=batch.context, size=size)  # type: ignore[no-any-return]
