"""Clean latents behind the window, which the last chunks of a video lead up to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pavdm_cli.sampling.schedule import Schedule

if TYPE_CHECKING:
    from pavdm_cli.sampling.loop import SamplerState

LOOP_CHUNKS = 2  # of a looping video's start, which its end leads up to


def with_right_context(schedule: Schedule, chunks: int, latents: int, first: int = 0) -> Schedule:
    """The schedule of a video from chunk `first` to `chunks` - 1 that so many clean latents follow.

    As many of its last chunks see them as fit between both contexts into what the model sees at once.
    """
    left = schedule.chunk if schedule.fill_to and not schedule.context else 0  # whose room the clean latents share
    joining = max(1, (schedule.window - latents - left) // schedule.chunk)
    return replace(schedule, right_context=latents, join=max(first, chunks - joining), loop=range(0))


def with_loop_context(schedule: Schedule, chunks: int, first: int, latents: int = 0) -> Schedule:
    """The schedule of a video whose last chunks lead up to its own first ones, from chunk `first` on.

    latents: how many see them; 0: as many as the window has room for.
    """
    loop = range(first, first + LOOP_CHUNKS)
    context = len(schedule.latents(loop))
    joining = with_right_context(schedule, chunks, context, loop.stop)
    if latents:
        joining = replace(joining, join=max(loop.stop, chunks - latents // schedule.chunk))
    return replace(joining, loop=loop)


def with_loop(state: SamplerState, schedule: Schedule, leaving: int) -> Tensor | None:
    """The state's right context, and those of the `leaving` first latents of its window that belong to it in a loop."""
    start, loop = schedule.latents(state.chunks).start, schedule.latents(schedule.loop)
    inside = range(max(loop.start, start), min(loop.stop, start + leaving))
    if not inside:
        return state.right_context
    latents = state.window[:, inside.start - start : inside.stop - start].clone()
    return latents if state.right_context is None else torch.cat([state.right_context, latents], dim=1)
