"""The Denoiser protocol (a model bound to a prompt) and wrappers around it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pavdm_kernels import use_reference

Cache = Any  # opaque context cache: keys and values, or the latents themselves
TextKV = Any  # opaque: keys and values of the text or, if they are not cached, its embeddings; nested tuples of tensors


class Denoiser(Protocol):
    """A model with its prompt, in two calls, so that context-dependent work is done once per shift.

    With a context of E latents in the schedule, the window is at positions E, E + 1, ... even if the
    context is shorter or missing; it ends right before them.
    """

    def prefill(self, context: Tensor, level: int, /) -> Cache:  # (B, E or fewer, C, H, W)
        """Precompute what later steps need from the context, which is at `level` (0: clean)."""

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
    """A denoiser whose text may change at every shift and is therefore passed to every call.

    Captured steps hold it in static buffers and can be replayed with any text of the same shape.
    """

    bind: Callable[[TextKV], Denoiser]  # cheap: it computes nothing
    text: Callable[[int], TextKV]  # text for a window with this newest chunk; same object until it changes

    def __call__(self, window: Tensor, levels: Tensor, cache: Cache | None, text: TextKV, /) -> Tensor:
        return self.bind(text)(window, levels, cache)


AnyDenoiser = Denoiser | TimelineDenoiser


def bind_text(denoiser: AnyDenoiser, newest: int) -> tuple[Denoiser, tuple[TextKV, ...]]:
    """Bind the text for a window with this newest chunk; also returns the extra text argument, if any."""
    if not isinstance(denoiser, TimelineDenoiser):
        return denoiser, ()
    text = denoiser.text(newest)
    return denoiser.bind(text), (text,)


def batched_cfg(denoiser: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance in one batch; `denoiser` has the texts [prompts..., unconditional...]."""

    def prefill(context: Tensor, level: int) -> Cache:
        return denoiser.prefill(_repeat_batch(context), level)

    def velocity(window: Tensor, levels: Tensor, cache: Cache | None) -> Tensor:
        levels_twice = levels if levels.ndim == 1 else _repeat_batch(levels)
        cond, uncond = denoiser(_repeat_batch(window), levels_twice, cache).chunk(2)
        return uncond + scale * (cond - uncond)

    return FunctionDenoiser(prefill, velocity)


def sequential_cfg(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance in two passes, one after the other: half the activations of `batched_cfg`."""

    def prefill(context: Tensor, level: int) -> Cache:
        return conditional.prefill(context, level), unconditional.prefill(context, level)

    def velocity(window: Tensor, levels: Tensor, cache: Cache | None) -> Tensor:
        cond_cache, uncond_cache = cache or (None, None)
        cond, uncond = conditional(window, levels, cond_cache), unconditional(window, levels, uncond_cache)
        return uncond + scale * (cond - uncond)

    return FunctionDenoiser(prefill, velocity)


class RemotePass(Protocol):
    """A forward pass in another process: each call begins it there and returns a function that waits for its result."""

    def begin_prefill(self, context: Tensor, level: int, /) -> Callable[[], Cache]:
        """See `Denoiser.prefill`; the cache stays in the other process, and the result stands for it."""

    def begin_velocity(self, window: Tensor, levels: Tensor, cache: Cache | None, /) -> Callable[[], Tensor | None]:
        """See `Denoiser.__call__`; None if that process repeats the pass of this one."""


def parallel_cfg(conditional: Denoiser, remote: RemotePass, scale: float) -> Denoiser:
    """Classifier-free guidance in two processes, equal to `sequential_cfg` bit for bit; without it at scale 1."""

    def prefill(context: Tensor, level: int) -> Cache:
        wait = remote.begin_prefill(context, level)
        return conditional.prefill(context, level), wait()

    def velocity(window: Tensor, levels: Tensor, cache: Cache | None) -> Tensor:
        cond_cache, uncond_cache = cache or (None, None)
        wait = remote.begin_velocity(window, levels, uncond_cache)
        cond = conditional(window, levels, cond_cache)
        uncond = wait()
        return cond if uncond is None else uncond + scale * (cond - uncond)

    return FunctionDenoiser(prefill, velocity)


def inside_context_manager(denoiser: Denoiser, manager: Callable[[], AbstractContextManager[object]]) -> Denoiser:
    """Run each call inside a context manager of its own."""

    def prefill(latents: Tensor, level: int) -> Cache:
        with manager():
            return denoiser.prefill(latents, level)

    def velocity(window: Tensor, levels: Tensor, cache: Cache | None) -> Tensor:
        with manager():
            return denoiser(window, levels, cache)

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


def partition_window(denoiser: Denoiser, span: int) -> Denoiser:
    """Split a window longer than the `span` latents that a model can process into half-overlapping calls.

    Only the first call gets the cache; of every later call only the noisier half is used, so each latent is denoised
    with cleaner ones before it. Source: lookahead denoising of FIFO-Diffusion.
    """
    assert span >= 2

    def velocity(window: Tensor, levels: Tensor, cache: Cache | None) -> Tensor:
        parts = [denoiser(window[:, :span], levels[..., :span], cache)]
        for start, end in _later_spans(window.shape[1], span):
            part = denoiser(window[:, end - span : end], levels[..., end - span : end], None)
            parts.append(part[:, start - end :])
        return torch.cat(parts, dim=1)

    return FunctionDenoiser(denoiser.prefill, velocity)


def with_reference_ops(denoiser: Denoiser) -> Denoiser:
    """Run every operation with its plain-torch reference implementation."""

    def prefill(context: Tensor, level: int) -> Any:
        with use_reference():
            return denoiser.prefill(context, level)

    def velocity(window: Tensor, levels: Tensor, cache: Any) -> Tensor:
        with use_reference():
            return denoiser(window, levels, cache)

    return FunctionDenoiser(prefill, velocity)


def _repeat_batch(latents: Tensor) -> Tensor:
    return torch.cat([latents, latents])


def _later_spans(length: int, span: int) -> list[tuple[int, int]]:
    """First latent not yet denoised, and end, of each call after the first."""
    half = span // 2
    return [(start, min(start + half, length)) for start in range(span, length, half)]
