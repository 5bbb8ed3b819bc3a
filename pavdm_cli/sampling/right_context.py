"""Right context: clean latents after the window that the last chunks must lead up to.

Torch is imported where a tensor is needed: lengths of loops are checked without it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pavdm_cli.sampling.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from pavdm_cli.sampling.loop import SamplerState

LOOP_CHUNKS = 2  # chunks at the start of a loop that condition its end


def with_right_context(schedule: Schedule, chunks: int, latents: int, first: int = 0) -> Schedule:
    """A schedule for chunks `first` to `chunks` - 1, followed by `latents` clean latents.

    As many of the last chunks see them as fit in the window together with both contexts.
    """
    # latents of left context that share the window
    left_context = schedule.chunk if schedule.fill_to and not schedule.context else 0
    num_joining = max(1, (schedule.window - latents - left_context) // schedule.chunk)
    return replace(schedule, right_context=latents, right_context_from=max(first, chunks - num_joining), loop=range(0))


def with_loop_context(schedule: Schedule, chunks: int, first: int, latents: int = 0) -> Schedule:
    """The schedule of a seamless loop that starts at chunk `first`.

    latents: how many of the last latents see the start; 0: as many as fit in the window.
    """
    loop = range(first, first + LOOP_CHUNKS)
    context = len(schedule.latents(loop))
    loop_schedule = replace(with_right_context(schedule, chunks, context, loop.stop), loop=loop)
    if not latents:
        return loop_schedule
    return replace(loop_schedule, right_context_from=max(loop.stop, chunks - latents // schedule.chunk))


def grow_right_context(state: SamplerState, schedule: Schedule, leaving: int) -> Tensor | None:
    """The right context, extended by those of the `leaving` first latents that belong to it in a looping video."""
    start, loop = schedule.latents(state.chunks).start, schedule.latents(schedule.loop)
    inside = range(max(loop.start, start), min(loop.stop, start + leaving))
    if not inside:
        return state.right_context
    import torch

    latents = state.window[:, inside.start - start : inside.stop - start].clone()
    return latents if state.right_context is None else torch.cat([state.right_context, latents], dim=1)
