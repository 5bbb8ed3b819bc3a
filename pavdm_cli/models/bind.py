"""A transformer bound to one prompt: the two calls a sampler makes, the overlap's keys and values kept or made anew."""

from __future__ import annotations

import torch
from torch import Tensor

from pavdm_cli.denoiser import Bound, Denoiser
from pavdm_cli.models.stdit import Memory, Modulation, STDiT, Text


@torch.no_grad()
def levels_table(stdit: STDiT, sigmas: Tensor, fps: float) -> Modulation:
    """The modulation of every level of a schedule, computed once a video; sigmas (steps + 1,)."""
    weight = stdit.final_layer.linear.weight
    return stdit.table(sigmas.to(weight) * 1000, weight.new_tensor(fps))


def remembering(stdit: STDiT, text: Text, table: Modulation, overlap: int) -> Denoiser:
    """For a model whose clean frames attend only to clean frames: their keys and values are computed once a shift."""

    @torch.no_grad()
    def remember(frames: Tensor, level: int) -> Memory:
        return stdit.remember(frames, _same(level, frames), table, text)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, memory: Memory | None) -> Tensor:
        out: Tensor = stdit(window, levels, table, text, memory=memory or Memory(None, overlap))
        return out

    return Bound(remember, velocity)


def recomputing(stdit: STDiT, text: Text, table: Modulation, overlap: int) -> Denoiser:
    """For any model: the overlap is shown before the window at every step, and every frame attends to every frame."""

    def remember(frames: Tensor, level: int) -> tuple[Tensor, Tensor]:
        return frames, _same(level, frames)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, memory: tuple[Tensor, Tensor] | None) -> Tensor:
        if memory is None:
            alone: Tensor = stdit(window, levels, table, text, memory=Memory(None, overlap))
            return alone
        frames, shown = memory
        both: Tensor = stdit(torch.cat([frames, window], dim=1), torch.cat([shown, levels]), table, text)
        return both[:, frames.shape[1] :]

    return Bound(remember, velocity)


def _same(level: int, frames: Tensor) -> Tensor:
    return torch.full(frames.shape[1:2], level, dtype=torch.int32, device=frames.device)
