"""The interface of a model bound to a prompt, and wrappers that take a denoiser and return one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pavdm_kernels import use_reference

Cache = Any  # of the context: keys and values, or the latents themselves; only the denoiser knows
TextKV = Any  # keys and values of the text: tensors in tuples; only the denoiser knows which


class Denoiser(Protocol):
    """A model with its prompt, in two calls, so that what depends on the context is computed once per shift.

    With a context of E latents in the schedule, the window's latents are at positions E, E + 1, ... even where the
    context is shorter or missing; it ends right before them.
    """

    def prefill(self, context: Tensor, level: int, /) -> Cache:  # (B, E or fewer, C, H, W)
        """What the next steps need of the context, which is at `level`: 0 is clean."""

    def __call__(self, window: Tensor, levels: Tensor, cache: Cache | None, /) -> Tensor:  # (B, T, C, H, W), (T,)
        """Velocity, clean - noise, of the window at int32 `levels`, (T,) or (B, T); no cache without a context."""


@dataclass(frozen=True, slots=True)
class FunctionDenoiser:
    """A denoiser from two functions."""

    prefill: Callable[[Tensor, int], Cache]
    velocity: Callable[[Tensor, Tensor, Cache | None], Tensor]

    def __call__(self, window: Tensor, levels: Tensor, cache: Cache | None, /) -> Tensor:
        return self.velocity(window, levels, cache)


@dataclass(frozen=True, slots=True)
class TimelineDenoiser:
    """A denoiser whose text changes when the window shifts, and so is an argument of every call.

    A captured step has it in static buffers, and is replayed with any other text of the same shape.
    """

    bind: Callable[[TextKV], Denoiser]  # cheap: it computes nothing
    text: Callable[[int], TextKV]  # for a window, by its newest chunk; the same object until the text changes

    def __call__(self, window: Tensor, levels: Tensor, cache: Cache | None, text: TextKV, /) -> Tensor:
        return self.bind(text)(window, levels, cache)


AnyDenoiser = Denoiser | TimelineDenoiser


def bind_text(denoiser: AnyDenoiser, newest: int) -> tuple[Denoiser, tuple[TextKV, ...]]:
    """A denoiser for a window with this newest chunk, and the text that `denoiser` takes last, if it takes one."""
    if not isinstance(denoiser, TimelineDenoiser):
        return denoiser, ()
    text = denoiser.text(newest)
    return denoiser.bind(text), (text,)


def batched_cfg(denoiser: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance in one batch; `denoiser` has the texts [prompts..., unconditional...]."""

    def prefill(context: Tensor, level: int) -> Cache:
        return denoiser.prefill(_twice(context), level)

    def velocity(window: Tensor, levels: Tensor, cache: Cache | None) -> Tensor:
        rows = levels if levels.ndim == 1 else _twice(levels)
        conditional, unconditional = denoiser(_twice(window), rows, cache).chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return FunctionDenoiser(prefill, velocity)


def sequential_cfg(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance in two passes, one after the other: half the activations of `batched_cfg`."""

    def prefill(context: Tensor, level: int) -> Cache:
        return conditional.prefill(context, level), unconditional.prefill(context, level)

    def velocity(window: Tensor, levels: Tensor, cache: Cache | None) -> Tensor:
        of_conditional, of_unconditional = cache or (None, None)
        towards, base = conditional(window, levels, of_conditional), unconditional(window, levels, of_unconditional)
        return base + scale * (towards - base)

    return FunctionDenoiser(prefill, velocity)


def with_onload(denoiser: Denoiser, onload: Callable[[], None]) -> Denoiser:
    """Load offloaded weights onto the device before each call."""

    def prefill(context: Tensor, level: int) -> Cache:
        onload()
        return denoiser.prefill(context, level)

    def velocity(window: Tensor, levels: Tensor, cache: Cache | None) -> Tensor:
        onload()
        return denoiser(window, levels, cache)

    return FunctionDenoiser(prefill, velocity)


def partitioned(denoiser: Denoiser, span: int) -> Denoiser:
    """Split a window longer than the `span` latents a model can process into calls that overlap by half.

    Only the first call has the cache; of every later one the noisier half is used, so that each latent is denoised with
    cleaner ones before it. Source: lookahead denoising of FIFO-Diffusion.
    """
    assert span >= 2

    def velocity(window: Tensor, levels: Tensor, cache: Cache | None) -> Tensor:
        parts = [denoiser(window[:, :span], levels[:span], cache)]
        for done, end in _later_spans(window.shape[1], span):
            part = denoiser(window[:, end - span : end], levels[end - span : end], None)
            parts.append(part[:, done - end :])
        return torch.cat(parts, dim=1)

    return FunctionDenoiser(denoiser.prefill, velocity)


def with_reference_ops(denoiser: Denoiser) -> Denoiser:
    """Every operation by its reference in plain torch."""

    def prefill(context: Tensor, level: int) -> Any:
        with use_reference():
            return denoiser.prefill(context, level)

    def velocity(window: Tensor, levels: Tensor, cache: Any) -> Tensor:
        with use_reference():
            return denoiser(window, levels, cache)

    return FunctionDenoiser(prefill, velocity)


def _twice(latents: Tensor) -> Tensor:
    return torch.cat([latents, latents])


def _later_spans(length: int, span: int) -> list[tuple[int, int]]:
    """First latent not yet denoised, and end, of each call after the first."""
    half = span // 2
    return [(done, min(done + half, length)) for done in range(span, length, half)]
