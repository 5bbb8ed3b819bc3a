"""Clips of which some latents are given: each has a mask, the noise fraction from which on it is noised and made again.

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
from pavdm_cli.sampling.loop import State, advance, draw, from_nothing, last
from pavdm_cli.sampling.noise import Noise, add_noise
from pavdm_cli.sampling.schedule import Schedule


def masked(denoiser: Denoiser, latents: Tensor, mask: Tensor, fresh: Callable[[int], Tensor], sigmas: Tensor) -> Tensor:
    """Denoises a clip (B, T, C, H, W) under its mask, (T,) or (B, T), from 0 to 1; same shape out.

    latents: given ones where the mask is below 1, pure noise where it is 1; fresh: noise like them, for a step. A
    latent that is kept is shown at level 0, as it was given; it gets its noise when sigma has come down to its mask.
    """
    fractions = sigmas.tolist()
    step_sizes = sigmas.diff(prepend=sigmas[:1])
    before = mask >= 1
    for now, level in enumerate(range(len(fractions) - 1, 0, -1)):
        active = mask >= fractions[level]
        entering = active & ~before
        if entering.any():
            noised = add_noise(latents, fresh(now), sigmas[level])
            latents = torch.where(entering.to(latents.device)[..., None, None, None], noised, latents)
        levels = (level * active).to(latents.device, torch.int32)
        latents = advance(latents, levels, None, denoiser=denoiser, step_sizes=step_sizes)
        before = active
    return latents


RepairClip = Callable[[int, Tensor, Callable[[Denoiser], Tensor]], Tensor]  # chunk, the clip made, what makes it again


def _as_made(chunk: int, made: Tensor, again: Callable[[Denoiser], Tensor]) -> Tensor:
    return made


@dataclass(frozen=True, slots=True)
class Condition:
    """How a clip is shown the end of the one before it."""

    edit: float  # its mask
    again: Callable[[Tensor], Tensor]  # from the latents made to those shown
    repair: RepairClip = _as_made  # is shown each clip, and gives the one to continue from


def clips(
    schedule: Schedule,
    denoiser: Denoiser,
    noise: Noise,
    sigmas: Tensor,
    *,
    chunks: int,
    start: State | None = None,
    condition: Condition,
) -> Iterator[Tensor]:
    """Yields clip after clip, (B, chunk, C, H, W): as `sample` under `rn`, but what comes before has a mask of its own.

    The masked copies before a clip are dropped: what was yielded does not change any more.
    """
    state = start or from_nothing(noise, sigmas)
    overlap, window = state.overlap, state.window
    for chunk in range(chunks):
        if chunk:
            overlap = condition.again(last(torch.cat([overlap, window], dim=1), schedule.overlap))
        new, before = schedule.latents(range(chunk, chunk + 1)), overlap.shape[1]
        begun = state.held if chunk == 0 else 0
        latents = torch.cat([overlap, state.window if begun else draw(noise, new, overlap)], dim=1)
        mask = torch.ones(latents.shape[1])
        mask[: before + begun] = condition.edit
        fresh = partial(_fresh, noise, range(new.start - before, new.stop), latents, chunk * schedule.steps)
        again = partial(masked, latents=latents, mask=mask, fresh=fresh, sigmas=sigmas)
        window = condition.repair(chunk, again(denoiser), again)[:, before:]
        yield window


def _fresh(noise: Noise, latents: range, like: Tensor, first: int, now: int) -> Tensor:
    return draw(noise, latents, like, first + now)
