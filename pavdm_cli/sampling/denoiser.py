"""What the sampler asks of a model bound to its prompt, and wrappers that take such a denoiser and give one back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Memory = Any  # the overlap itself, keys and values: the denoiser alone knows


class Denoiser(Protocol):
    """A model bound to its prompt, in two calls, so that what comes from the clean overlap is computed once a shift.

    With an overlap of E latents in the schedule, the window's sit at positions E, E + 1, ... even where the overlap is
    shorter or missing; it ends right before them.
    """

    def remember(self, overlap: Tensor, level: int, /) -> Memory:  # (B, E or fewer, C, H, W)
        """What the next steps need of the overlap, shown at `level`: 0 is clean."""

    def __call__(self, window: Tensor, levels: Tensor, memory: Memory | None, /) -> Tensor:  # (B, T, C, H, W), (T,)
        """Velocity, clean - noise, of the window at int32 `levels`, which may differ from row to row, (B, T); no memory
        where there is no overlap.
        """


@dataclass(frozen=True, slots=True)
class Bound:
    """A denoiser made of its two calls."""

    remember: Callable[[Tensor, int], Memory]
    velocity: Callable[[Tensor, Tensor, Memory | None], Tensor]

    def __call__(self, window: Tensor, levels: Tensor, memory: Memory | None, /) -> Tensor:
        return self.velocity(window, levels, memory)


def guided(denoiser: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance in one batch of two: `denoiser` is bound to [prompts..., unconditional...]."""

    def remember(overlap: Tensor, level: int) -> Memory:
        return denoiser.remember(_twice(overlap), level)

    def velocity(window: Tensor, levels: Tensor, memory: Memory | None) -> Tensor:
        rows = levels if levels.ndim == 1 else _twice(levels)
        conditional, unconditional = denoiser(_twice(window), rows, memory).chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return Bound(remember, velocity)


def in_turn(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """The same guidance in two passes, one after the other: half the activations of `guided`."""

    def remember(overlap: Tensor, level: int) -> Memory:
        return conditional.remember(overlap, level), unconditional.remember(overlap, level)

    def velocity(window: Tensor, levels: Tensor, memory: Memory | None) -> Tensor:
        of_first, of_second = memory or (None, None)
        wanted, plain = conditional(window, levels, of_first), unconditional(window, levels, of_second)
        return plain + scale * (wanted - plain)

    return Bound(remember, velocity)


def arriving(denoiser: Denoiser, arrive: Callable[[], None]) -> Denoiser:
    """Sees to it that weights which wait elsewhere are there before either call."""

    def remember(overlap: Tensor, level: int) -> Memory:
        arrive()
        return denoiser.remember(overlap, level)

    def velocity(window: Tensor, levels: Tensor, memory: Memory | None) -> Tensor:
        arrive()
        return denoiser(window, levels, memory)

    return Bound(remember, velocity)


def partitioned(denoiser: Denoiser, span: int) -> Denoiser:
    """Splits a window longer than the `span` latents a model can hold into calls that overlap by half.

    Only the first call has the memory; of every later one the noisier half is kept, so that each latent is denoised
    with cleaner ones before it. Source: lookahead denoising of FIFO-Diffusion.
    """
    assert span >= 2

    def velocity(window: Tensor, levels: Tensor, memory: Memory | None) -> Tensor:
        parts = [denoiser(window[:, :span], levels[:span], memory)]
        for done, end in _later_spans(window.shape[1], span):
            part = denoiser(window[:, end - span : end], levels[end - span : end], None)
            parts.append(part[:, done - end :])
        return torch.cat(parts, dim=1)

    return Bound(denoiser.remember, velocity)


def _twice(latents: Tensor) -> Tensor:
    return torch.cat([latents, latents])


def _later_spans(length: int, span: int) -> list[tuple[int, int]]:
    """First latent not yet denoised, and end, of each call after the first."""
    half = span // 2
    return [(done, min(done + half, length)) for done in range(span, length, half)]
