"""Clips of which some latents are given: each has a mask, the noise fraction from which on it is noised and denoised.

A mask of 0 keeps a latent clean to the end, 1 makes it from pure noise, and one between (an edit ratio) keeps it clean
until the clip has come down to that much noise. Source: the masks of Open-Sora's sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.loop import SamplerState, advance, from_nothing, sample_noise, tail
from pavdm_cli.sampling.noise import Noise, add_noise
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solver import Solver


def sample_masked_clip(
    denoiser: Denoiser, latents: Tensor, mask: Tensor, fresh: Callable[[int], Tensor], solver: Solver
) -> Tensor:
    """Denoises a clip (B, T, C, H, W) under its mask, (T,) or (B, T), from 0 to 1; same shape out.

    latents: given ones where the mask is below 1, pure noise where it is 1; fresh: noise like them, for a step. A
    given latent is clean, at level 0, until sigma has come down to its mask; then it gets its noise.
    """
    sigmas, steps = solver.levels.sigmas, solver.levels.steps
    fractions, history = sigmas.tolist(), solver.history(latents)
    before = mask >= 1
    for now, level in enumerate(range(steps, 0, -1)):
        active = mask >= fractions[level]
        entering = active & ~before
        if entering.any():
            noised = add_noise(latents, fresh(now), sigmas[level])
            latents = torch.where(entering.to(latents.device)[..., None, None, None], noised, latents)
        levels = (level * active).to(latents.device, torch.int32)
        latents, history = advance(latents, levels, None, history, denoiser=denoiser, solver=solver)
        before = active
    return latents


# Is given a chunk's number, the clip, and what denoises it again with another denoiser.
RepairClip = Callable[[int, Tensor, Callable[[Denoiser], Tensor]], Tensor]


def _unchanged(chunk: int, clip: Tensor, again: Callable[[Denoiser], Tensor]) -> Tensor:
    return clip


@dataclass(frozen=True, slots=True)
class ClipCondition:
    """How a clip is conditioned on the end of the one before it."""

    edit: float  # its mask
    reencode: Callable[[Tensor], Tensor]  # from the latents sampled to those shown
    repair: RepairClip = _unchanged  # is given each clip, and returns the one to continue from


def sample_masked_clips(
    schedule: Schedule,
    denoiser: Denoiser,
    noise: Noise,
    solver: Solver,
    *,
    chunks: int,
    start: SamplerState | None = None,
    condition: ClipCondition,
) -> Iterator[Tensor]:
    """Yields clip after clip, (B, chunk, C, H, W): as `sample` under `rn`, but the context has a mask of its own.

    The masked copies before a clip are dropped: what was yielded does not change any more.
    """
    state = start or from_nothing(noise, solver.levels.sigmas)
    context, window = state.context, state.window
    for chunk in range(chunks):
        if chunk:
            context = condition.reencode(tail(torch.cat([context, window], dim=1), schedule.context))
        new, before = schedule.latents(range(chunk, chunk + 1)), context.shape[1]
        given = state.num_given if chunk == 0 else 0
        latents = torch.cat([context, state.window if given else sample_noise(noise, new, context)], dim=1)
        mask = torch.ones(latents.shape[1])
        mask[: before + given] = condition.edit
        fresh = partial(_fresh, noise, range(new.start - before, new.stop), latents, chunk * schedule.steps)
        again = partial(sample_masked_clip, latents=latents, mask=mask, fresh=fresh, solver=solver)
        window = condition.repair(chunk, again(denoiser), again)[:, before:]
        yield window


def _fresh(noise: Noise, latents: range, like: Tensor, first: int, now: int) -> Tensor:
    return sample_noise(noise, latents, like, first + now)
