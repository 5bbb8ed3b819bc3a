"""Clips with fixed latents: each latent's mask is the noise fraction at and below which it is denoised.

A mask of 0 keeps a latent clean, and 1 denoises it from pure noise. A value between (an edit ratio) keeps it clean
until the clip reaches that noise fraction; then it is noised and denoised too. Source: the masks of Open-Sora.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.sampling.denoiser import AnyDenoiser, Denoiser, bind_text
from pavdm_cli.sampling.loop import SampledChunk, SamplerState, denoise_step, empty_state, tail
from pavdm_cli.sampling.noise import Noise, add_noise, sample_noise
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solver import Solver


def sample_masked_clip(
    denoiser: Denoiser, latents: Tensor, mask: Tensor, noise_at_step: Callable[[int], Tensor], solver: Solver
) -> Tensor:
    """Denoise a clip (B, T, C, H, W) under its mask, (T,) or (B, T), from 0 to 1; the result has the same shape.

    latents: clean where the mask is below 1, pure noise where it is 1; noise_at_step: returns their noise at a step.
    A clean latent stays at level 0 until sigma reaches its mask; then it is noised.
    """
    sigmas, steps = solver.levels.sigmas, solver.levels.steps
    fractions, history = sigmas.tolist(), solver.history(latents)
    was_active = mask >= 1
    for now, level in enumerate(range(steps, 0, -1)):
        active = mask >= fractions[level]
        entering = active & ~was_active
        if entering.any():
            noisy_latents = add_noise(latents, noise_at_step(now), sigmas[level])
            latents = torch.where(entering.to(latents.device)[..., None, None, None], noisy_latents, latents)
        levels = (level * active).to(latents.device, torch.int32)
        latents, history = denoise_step(latents, levels, None, history, denoiser=denoiser, solver=solver)
        was_active = active
    return latents


# (chunk, clip, function that denoises the clip with another denoiser) -> clip
RepairClip = Callable[[int, Tensor, Callable[[AnyDenoiser], Tensor]], Tensor]


def _no_repair(chunk: int, clip: Tensor, sample_clip: Callable[[AnyDenoiser], Tensor]) -> Tensor:
    return clip


@dataclass(frozen=True, slots=True)
class ClipCondition:
    """How a clip is conditioned on the end of the one before it."""

    edit_ratio: float  # the mask of the context
    reencode: Callable[[Tensor], Tensor]  # from sampled latents to the latents of their decoded frames
    repair: RepairClip = _no_repair  # returns the clip to continue from


def sample_masked_clips(
    schedule: Schedule,
    denoiser: AnyDenoiser,
    noise: Noise,
    solver: Solver,
    *,
    chunks: int | None,
    start: SamplerState | None = None,
    condition: ClipCondition,
) -> Iterator[SampledChunk]:
    """Yield clip after clip, like `sample` with `rn`, but with a mask for the context.

    Edited copies of the context are dropped: yielded clips never change. start: as for `sample`,
    also the state of a clip that was yielded.
    """
    state = start or empty_state(noise, solver.levels.sigmas)
    context, window = state.context, state.window
    first = state.now // schedule.steps
    for chunk in count(first) if chunks is None else range(first, chunks):
        if chunk:
            context = condition.reencode(tail(torch.cat([context, window], dim=1), schedule.context))
        new, num_context = schedule.latents(range(chunk, chunk + 1)), context.shape[1]
        num_fixed = state.num_fixed if chunk == 0 else 0
        latents = torch.cat([context, state.window if num_fixed else sample_noise(noise, new, context)], dim=1)
        mask = torch.ones(latents.shape[1])
        mask[: num_context + num_fixed] = condition.edit_ratio
        noise_at_step = partial(
            _noise_at_step, noise, range(new.start - num_context, new.stop), latents, chunk * schedule.steps
        )
        clip_arguments = (latents, mask, noise_at_step, solver)
        sample_clip = partial(_sample_clip, chunk=chunk, clip_arguments=clip_arguments)
        window = condition.repair(chunk, sample_clip(denoiser), sample_clip)[:, num_context:]
        state = SamplerState((chunk + 1) * schedule.steps, range(chunk, chunk + 1), window, context, window[:, :0])
        yield SampledChunk(window, state)


def _sample_clip(denoiser: AnyDenoiser, chunk: int, clip_arguments: tuple[Any, ...]) -> Tensor:
    """`sample_masked_clip` with the text for this chunk."""
    bound_denoiser, _ = bind_text(denoiser, chunk)
    return sample_masked_clip(bound_denoiser, *clip_arguments)


def _noise_at_step(noise: Noise, latents: range, like: Tensor, first: int, now: int) -> Tensor:
    return sample_noise(noise, latents, like, first + now)
