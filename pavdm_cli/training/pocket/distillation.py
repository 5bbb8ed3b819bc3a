"""Guidance distillation: a student learns to give in one pass what its teacher gives with guidance in two.

Source: Meng et al., On Distillation of Guided Diffusion Models (2023), for one scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.training.losses import Batch, predict_velocity


@dataclass(frozen=True, slots=True)
class Teacher:
    """A frozen model, and its guidance scale."""

    model: Pocket
    guidance: float

    @torch.no_grad()
    def velocity(self, prompts: list[str], dropped: Tensor, batch: Batch, fps: Tensor) -> Tensor:  # (B, T, C, H, W)
        """With guidance; unconditional for dropped prompts, so that further guidance is still possible."""

        def predict(null: Tensor) -> Tensor:
            velocity = predict_velocity(self.model.stdit, self.model.encode_prompts(prompts, null), batch, fps)
            return velocity.to(torch.promote_types(velocity.dtype, torch.float32))

        conditional, unconditional = predict(dropped), predict(torch.ones_like(dropped))
        return unconditional + self.guidance * (conditional - unconditional)
