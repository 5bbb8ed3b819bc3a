"""Loss weights for `pocket`: without them, the slow motion of dark ground is hardly learned.

From one latent to the next an object changes much more than the ground under a panning camera, most of all by day.
Weights depend only on the row and the caption, so the optimum of the loss does not change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pavdm_cli.pocket_world.world import Scene

# By row of latents, from the top: larger where training without weights left smaller errors.
ROWS = (2.24, 1.06, 0.69, 0.52, 0.52, 0.52, 0.82, 1.64)
TIMES = {"day": 0.6, "dawn": 0.6, "sunset": 0.9, "night": 1.8}
CAMERAS = {"still": 0.6, "left": 1.2, "right": 1.2}


def error_weights(scenes: Sequence[Scene], dropped: Tensor, rows: int) -> Tensor:  # (B,) -> (B, 1, 1, rows, 1)
    """Weights of squared errors, 1 on average; independent of the scene for samples without their caption."""
    scene_weights = torch.tensor([TIMES[scene.time] * CAMERAS[scene.camera] for scene in scenes], device=dropped.device)
    scene_weights = torch.where(dropped, torch.ones_like(scene_weights), scene_weights)
    row_index = (torch.arange(rows, device=dropped.device) + 0.5) * len(ROWS) / rows
    return scene_weights[:, None, None, None, None] * torch.tensor(ROWS, device=dropped.device)[row_index.long(), None]


def object_weights(mask: Tensor, weight: float) -> Tensor:  # (B, T, h, w) -> (B, T, 1, h, w)
    """Additional weights of squared errors: `1 + weight` where the object is."""
    return (1 + weight * mask)[:, :, None]
