"""Right context: clean latents after the window that the last chunks must lead up to.

Torch is imported where a tensor is needed: lengths of loops are checked without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pavdm_cli.sampling.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from pavdm_cli.sampling.loop import SamplerState

LOOP_CHUNKS = 2  # chunks at the start of a loop that condition its end


@dataclass(frozen=True, slots=True)
class JoinConfig:
    """How the last chunks lead into the right context."""

    latents: int = 0  # the last ones, which see it; 0: as many as fit in the window together with both contexts
    guidance: float = 1.0  # scale of their guidance towards it, see `with_right_context_guidance`; 1: none


DEFAULT_JOIN = JoinConfig()


def with_right_context(
    schedule: Schedule, chunks: int, latents: int, first: int = 0, *, join: JoinConfig = DEFAULT_JOIN
) -> Schedule:
    """A schedule for chunks `first` to `chunks` - 1, followed by `latents` clean latents."""
    # latents of left context that share the window
    left_context = schedule.chunk if schedule.fill_to and not schedule.context else 0
    num_joining = max(1, (join.latents or schedule.window - latents - left_context) // schedule.chunk)
    return replace(
        schedule,
        right_context=latents,
        right_context_from=max(first, chunks - num_joining),
        right_context_guidance=join.guidance,
        loop=range(0),
    )


def with_loop_context(schedule: Schedule, chunks: int, first: int, join: JoinConfig) -> Schedule:
    """The schedule of a seamless loop that starts at chunk `first`."""
    loop = range(first, first + LOOP_CHUNKS)
    context = len(schedule.latents(loop))
    return replace(with_right_context(schedule, chunks, context, loop.stop, join=join), loop=loop)


def with_right_context_guidance(velocity: Callable[..., Tensor], latents: int, scale: float) -> Callable[..., Tensor]:
    """The velocity of windows that end with a right context of `latents`, guided towards it.

    As in classifier-free guidance, the velocity is extrapolated from the one without the condition. Source: history
    guidance (Song et al. 2025), here with frames that follow.
    """
    import torch

    def guided_velocity(window: Tensor, levels: Tensor, *rest: Any) -> Tensor:
        conditional = velocity(window, levels, *rest)
        unconditional = velocity(window[:, :-latents], levels[:-latents], *rest)
        extrapolated = unconditional + scale * (conditional[:, :-latents] - unconditional)
        return torch.cat([extrapolated, conditional[:, -latents:]], dim=1)

    return guided_velocity


def grow_right_context(state: SamplerState, schedule: Schedule, leaving: int) -> Tensor | None:
    """The right context, extended by those of the `leaving` first latents that belong to it in a looping video."""
    start, loop = schedule.latents(state.chunks).start, schedule.latents(schedule.loop)
    inside = range(max(loop.start, start), min(loop.stop, start + leaving))
    if not inside:
        return state.right_context
    import torch

    latents = state.window[:, inside.start - start : inside.stop - start].clone()
    return latents if state.right_context is None else torch.cat([state.right_context, latents], dim=1)
