"""Guidance distillation: the student predicts in one forward pass what its teacher predicts with guidance in two.

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
        return unconditional + self.guidance * (conditional - unconditional)
