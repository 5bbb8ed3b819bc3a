"""Solvers: one step moves every latent of the window down one level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_kernels import euler_step

# A solver's memory of earlier steps: tensors (B, T, ...), one row per latent, zeros when it enters.
History = tuple[Tensor, ...]


class Solver(Protocol):
    """An integrator of the flow's differential equation. History rows enter, shift and leave with their latents."""

    @property
    def levels(self) -> NoiseLevels:
        """The noise levels."""

    def history(self, latents: Tensor, /) -> History:
        """The initial history of latents (B, T, C, H, W)."""

    def step(self, window: Tensor, velocity: Tensor, levels: Tensor, history: History, /) -> tuple[Tensor, History]:
        """Every latent one level down; latents at 0, `unstarted_level` and `context_level` stay as they are.

        window, velocity (B, T, C, H, W); levels int32 (T,) or (B, T).
        """


@dataclass(frozen=True, slots=True)
class Euler:
    """z' = z + (sigma[level] - sigma[level - 1]) v."""

    levels: NoiseLevels
    step_sizes: Tensor  # (steps + 3,)

    def history(self, latents: Tensor, /) -> History:
        """Empty: a step depends only on the window."""
        return ()

    def step(self, window: Tensor, velocity: Tensor, levels: Tensor, history: History, /) -> tuple[Tensor, History]:
        """See `Solver.step`."""
        return euler_step(window, velocity, levels, self.step_sizes), history


def euler(levels: NoiseLevels) -> Euler:
    """The Euler solver for these levels."""
    sigmas = levels.sigmas[: levels.steps + 1]
    return Euler(levels, torch.cat([sigmas.diff(prepend=sigmas[:1]), sigmas.new_zeros(2)]))
