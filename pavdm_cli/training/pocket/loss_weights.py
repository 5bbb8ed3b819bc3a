"""Which errors count more when `pocket` is trained: the ground that slides past in the dark is faint beside an object.

From one latent to the next an object changes far more than the ground that the camera pans over, most of all by day.
Weights depend on the place in the picture and on the caption alone, so what is learnt best stays the mean of what can
follow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pavdm_cli.pocket_world.world import Scene

# Of the rows of latents, from the top; the more, the less error had been left there by training without.
ROWS = (2.24, 1.06, 0.69, 0.52, 0.52, 0.52, 0.82, 1.64)
TIMES = {"day": 0.6, "dawn": 0.6, "sunset": 0.9, "night": 1.8}
CAMERAS = {"still": 0.6, "left": 1.2, "right": 1.2}


def emphasis(scenes: Sequence[Scene], dropped: Tensor, rows: int) -> Tensor:  # (B,) -> (B, 1, 1, rows, 1)
    """Weights of squared errors, 1 on average; a sample without its caption counts like any other."""
    asked = torch.tensor([TIMES[scene.time] * CAMERAS[scene.camera] for scene in scenes], device=dropped.device)
    whole = torch.where(dropped, torch.ones_like(asked), asked)
    place = (torch.arange(rows, device=dropped.device) + 0.5) * len(ROWS) / rows
    return whole[:, None, None, None, None] * torch.tensor(ROWS, device=dropped.device)[place.long(), None]
