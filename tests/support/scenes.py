"""Scenes of the rendered world to test with, and a short way to paint them."""

from __future__ import annotations

import torch
from torch import Tensor

from pavdm_cli.pocket_world.render import SceneFrames, canvas, render
from pavdm_cli.pocket_world.world import Scene, sample_scene

SIZE = (64, 96)
ASPECT = 1.5
PLAIN, RICH = 0.3, 1.0
SCENES = [sample_scene(seed) for seed in range(400)]


def paint(
    scenes: list[Scene], times: list[float] | Tensor, detail: float = PLAIN, size: tuple[int, int] = SIZE
) -> SceneFrames:
    """Every scene at the same times."""
    seconds = torch.as_tensor(times, dtype=torch.float32).expand(len(scenes), -1)
    return render(scenes, seconds, canvas(size, detail))
