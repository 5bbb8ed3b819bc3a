"""Guidance distillation: the student predicts in one forward pass what its teacher predicts with guidance in two.

Sources: Meng et al., On Distillation of Guided Diffusion Models (2023), for one scale; Kynkäänniemi et al., Applying
Guidance in a Limited Interval (2024): latents with little noise get little guidance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.training.losses import Batch, predict_velocity

GUIDANCE_RAMP = (500.0, 800.0)  # timesteps: LOW_NOISE_GUIDANCE below the first, full guidance above the second
LOW_NOISE_GUIDANCE = 1.5


@dataclass(frozen=True, slots=True)
class Teacher:
    """A frozen model and the guidance scale to distill."""

    model: Pocket
    guidance: float

    @torch.no_grad()
    def velocity(self, prompts: list[str], dropped: Tensor, batch: Batch, fps: Tensor) -> Tensor:  # (B, T, C, H, W)
        """The guided velocity; unconditional for dropped prompts, so that the student still supports guidance."""

        def predict(null: Tensor) -> Tensor:
            velocity = predict_velocity(self.model.stdit, self.model.encode_prompts(prompts, null), batch, fps)
            return velocity.to(torch.promote_types(velocity.dtype, torch.float32))

        conditional, unconditional = predict(dropped), predict(torch.ones_like(dropped))
        scale = guidance_scale(self.guidance, batch.timesteps).to(conditional)
        return unconditional + scale[:, :, None, None, None] * (conditional - unconditional)


def guidance_scale(guidance: float, timesteps: Tensor) -> Tensor:  # (B, T) -> (B, T)
    """The scale at each timestep: little guidance at low noise, where more adds specks that accumulate."""
    low, high = GUIDANCE_RAMP
    floor = min(guidance, LOW_NOISE_GUIDANCE)
    return floor + (guidance - floor) * ((timesteps - low) / (high - low)).clamp(0, 1)
