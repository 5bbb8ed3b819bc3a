"""The moving objects: stacks of soft-edged shapes, about ten pixels in radius at a height of 64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pavdm_cli.pocket_world.animals import bird, butterfly, duck
from pavdm_cli.pocket_world.craft import airplane, airship, boat, rocket, ufo
from pavdm_cli.pocket_world.palette import PAINT
from pavdm_cli.pocket_world.shapes import Layer, View
from pavdm_cli.pocket_world.toys import ball, balloon, kite, umbrella
from pavdm_cli.pocket_world.world import Scene

PAINTERS: dict[str, Callable[[View], list[Layer]]] = {
    "ball": ball,
    "balloon": balloon,
    "kite": kite,
    "boat": boat,
    "airplane": airplane,
    "rocket": rocket,
    "bird": bird,
    "butterfly": butterfly,
    "airship": airship,
    "ufo": ufo,
    "umbrella": umbrella,
    "duck": duck,
}


def blend(frames: Tensor, layers: Sequence[Layer], scenes: Sequence[Scene], tint: Tensor) -> tuple[Tensor, Tensor]:
    """Blend a stack of layers over frames (B, T, 3, H, W); returns the frames and its cover (B, T, H, W)."""
    own = frames.new_tensor([PAINT[s.color] for s in scenes])[:, None, :, None, None]
    light = 0.60 + 0.40 * tint.mean(dim=2, keepdim=True)
    coverage = torch.zeros_like(layers[0].cover)
    for layer in layers:
        color = torch.lerp(own, frames.new_tensor(layer.into)[:, None, None], layer.mix) * light
        frames = frames + (color * layer.shade[:, :, None] - frames) * layer.cover[:, :, None]
        coverage = torch.maximum(coverage, layer.cover)
    return frames, coverage
