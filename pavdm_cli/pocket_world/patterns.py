"""Repeating patterns of soft spots: clouds, flakes, stars and glints, which move as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pavdm_cli.pocket_world.palette import Color
from pavdm_cli.pocket_world.world import Scene

if TYPE_CHECKING:
    from pavdm_cli.pocket_world.render import Canvas


def spots(x: Tensor, y: Tensor, width: Tensor, height: Tensor, repeat: float, on: Canvas) -> Tensor:
    """The sum of bell-shaped spots at x, y (B, T, N), of half-sizes (N,), repeated in x; (B, T, H, W)."""
    dx = (on.x - x[..., None] + repeat / 2).remainder(repeat) - repeat / 2  # (B, T, N, W)
    dy = on.y[:, 0] - y[..., None]  # (B, T, N, H)
    horizontal = torch.exp(-(dx / width[:, None]).square())
    vertical = torch.exp(-(dy / height[:, None]).square())
    return torch.einsum("btnw,btnh->bthw", horizontal, vertical)


def per_scene(colors: Sequence[Color], on: Canvas) -> Tensor:  # (B, 1, 3, 1, 1)
    """One color for each scene of a batch, to broadcast over frames and pixels."""
    return on.x.new_tensor(colors)[:, None, :, None, None]


def rows_of(scenes: Sequence[Scene], like: Tensor, condition: Callable[[Scene], bool]) -> Tensor:
    """Indices of some scenes of a batch."""
    return torch.tensor([i for i, scene in enumerate(scenes) if condition(scene)], device=like.device, dtype=torch.long)
