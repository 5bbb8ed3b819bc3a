"""How one step takes every latent of the window down one level, each at its own level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_kernels import euler_step

# What a solver knows of earlier steps: tensors (B, T, ...), a row for each latent of the window, zeros on entry.
History = tuple[Tensor, ...]


class Solver(Protocol):
    """An integrator of the flow's differential equation. History enters, moves and leaves with its latents."""

    @property
    def levels(self) -> NoiseLevels:
        """The levels that it steps through."""

    def history(self, latents: Tensor, /) -> History:
        """The history of latents (B, T, C, H, W) that enter the window."""

    def step(self, window: Tensor, velocity: Tensor, levels: Tensor, history: History, /) -> tuple[Tensor, History]:
        """Every latent one level down; rows of level 0, `unstarted` and `context` stay as they are.

        window, velocity (B, T, C, H, W); levels int32 (T,) or (B, T).
        """


@dataclass(frozen=True, slots=True)
class Euler:
    """z' = z + (sigma[level] - sigma[level - 1]) v."""

    levels: NoiseLevels
    step_sizes: Tensor  # (steps + 3,)

    def history(self, latents: Tensor, /) -> History:
        """None: a step depends on the window alone."""
        return ()

    def step(self, window: Tensor, velocity: Tensor, levels: Tensor, history: History, /) -> tuple[Tensor, History]:
        """As `Solver.step`."""
        return euler_step(window, velocity, levels, self.step_sizes), history


def euler(levels: NoiseLevels) -> Euler:
    """The Euler solver for these levels."""
    sigmas = levels.sigmas[: levels.steps + 1]
    return Euler(levels, torch.cat([sigmas.diff(prepend=sigmas[:1]), sigmas.new_zeros(2)]))
