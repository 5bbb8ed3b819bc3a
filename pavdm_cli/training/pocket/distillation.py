"""Guidance taught to a model that then gives it in one pass, where its teacher takes two.

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
    """A frozen model, and the guidance it is shown at."""

    model: Pocket
    guidance: float

    @torch.no_grad()
    def velocity(self, prompts: list[str], dropped: Tensor, batch: Batch, fps: Tensor) -> Tensor:  # (B, T, C, H, W)
        """Guided; of dropped prompts the unconditional one, so that guidance can still be put on top."""

        def shown(without: Tensor) -> Tensor:
            given = predict_velocity(self.model.stdit, self.model.encode_prompts(prompts, without), batch, fps)
            return given.to(torch.promote_types(given.dtype, torch.float32))

        target, plain = shown(dropped), shown(torch.ones_like(dropped))
        return plain + self.guidance * (target - plain)
