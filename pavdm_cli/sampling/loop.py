"""The denoising loop of every method: turns a schedule and a denoiser into finished chunks of latents."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from operator import is_
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.sampling.cuda_graphs import GraphPolicy, signature
from pavdm_cli.sampling.denoiser import AnyDenoiser, Cache, Denoiser, TextKV, bind_text
from pavdm_cli.sampling.noise import Noise, NoiseLevels, add_noise
from pavdm_cli.sampling.right_context import with_loop
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solver import History, Solver

Stepped = tuple[Tensor, History]


@dataclass(frozen=True, slots=True)
class SamplerState:
    """Everything that the next step depends on: sampling from a saved state continues bit for bit.

    A chunk that the last step finished is still in front of the window; the next step removes it.
    """

    now: int  # steps done
    chunks: range  # those in the window, oldest first; re-noised chunks of a given clip are negative
    window: Tensor  # (B, T, C, H, W)
    context: Tensor  # (B, E or fewer, C, H, W), clean
    originals: Tensor  # (B, 0 or more, C, H, W), given chunks still in the window, which replace their re-noised copies
    num_given: int = 0  # clean latents in front of the window that were given: no step changes them
    history: History = ()  # the solver's, of the window's latents; empty before the first step
    sink: Tensor | None = None  # (B, 1 or more, C, H, W), clean latents in front of the context; None: none
    right_context: Tensor | None = None  # (B, 1 or more, C, H, W), as far as known; None: none, or in the window

    @property
    def clean(self) -> Tensor:  # (B, T, C, H, W)
        """The sink and the context."""
        return self.context if self.sink is None else torch.cat([self.sink, self.context], dim=1)


@dataclass(frozen=True, slots=True)
class SampledChunk:
    """A clean chunk, and the state from which the next one is sampled."""

    latents: Tensor  # (B, chunk, C, H, W)
    state: SamplerState

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, for streams that share them."""
        values = [getattr(self.state, one.name) for one in fields(self.state)]
        return self.latents, *self.state.history, *(value for value in values if isinstance(value, Tensor))


def move_state(state: SamplerState, device: torch.device) -> SamplerState:
    """The same state on another device."""
    values = {one.name: getattr(state, one.name) for one in fields(state)}
    tensors: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
    return replace(state, **tensors, history=tuple(value.to(device) for value in state.history))


States = Generator[SamplerState, SamplerState | None, None]
Repair = Callable[[SamplerState | None, SamplerState], SamplerState]  # last sound state (None: start), one to check


def sample(
    schedule: Schedule,
    denoiser: Denoiser,
    noise: Noise,
    solver: Solver,
    *,
    chunks: int | None,
    start: SamplerState | None = None,
    graphs: GraphPolicy | None = None,
) -> Iterator[Tensor]:
    """Yield the new chunks, (B, chunk, C, H, W), each as soon as it is clean. Arguments as `denoise`."""
    states = denoise(schedule, denoiser, noise, solver, chunks=chunks, start=start, graphs=graphs)
    return (chunk.latents for chunk in new_chunks(schedule, states))


def new_chunks(schedule: Schedule, states: Iterable[SamplerState]) -> Iterator[SampledChunk]:
    """The new chunks among the states, each as soon as it is clean."""
    for state in states:
        if finished(schedule, state) and not state.originals.shape[1]:
            oldest = schedule.latents(state.chunks[:1])
            yield SampledChunk(state.window[:, : len(oldest)].clone(), state)


def finished(schedule: Schedule, state: SamplerState) -> bool:
    """Whether the last step left the first chunk of the window clean."""
    return schedule.level(state.chunks[0], state.now) == 0


def with_repair(
    states: States, schedule: Schedule, start: SamplerState | None, repair: Repair
) -> Iterator[SamplerState]:
    """The same states; sampling continues from what `repair` returns for one in which a chunk is finished."""
    sound, state = start, None
    while True:
        try:
            state = states.send(state)
        except StopIteration:
            return
        if finished(schedule, state):
            state = sound = repair(sound, state)
        yield state


def denoise(
    schedule: Schedule,
    denoiser: AnyDenoiser,
    noise: Noise,
    solver: Solver,
    *,
    chunks: int | None,
    start: SamplerState | None = None,
    graphs: GraphPolicy | None = None,
) -> States:
    """Yield the state after every step until `chunks` new chunks are finished (None: without end).

    The solver's levels determine the device and dtype of the latents; start: `from_nothing` unless
    given, else what another `from_` returns or an earlier state. With `graphs` the steps are captured before the first
    one with a text of a new shape and replayed, with the same result; yielded states never alias static buffers. A
    state that is sent to the generator replaces the one it yielded.
    """
    levels = solver.levels
    assert levels.steps == schedule.steps
    state = start or from_nothing(noise, levels.sigmas)
    state = replace(state, history=state.history or solver.history(state.window))
    on_device = cache(lambda rows: to_device_like(torch.tensor(rows, dtype=torch.int32), levels.sigmas))
    step: Callable[..., Stepped] = partial(denoise_step, denoiser=denoiser, solver=solver)
    context_cache, prefilled, captured = None, tuple[Any, ...]((None,)), set[Hashable]()
    every_step = schedule.noisy_context or levels.context_sigma > 0
    while active := schedule.active_chunks(state.now, state.chunks.start, chunks):
        bound, text = bind_text(denoiser, schedule.newest(active, state.now))
        if graphs and signature(text) not in captured:
            inputs = warmup_inputs(schedule, bound, solver, state, chunks, graphs.max_latents)
            step = graphs(step, ((*arguments, *text) for arguments in inputs))
            captured.add(signature(text))
        state = advance_window(state, active, schedule, noise, solver)
        if every_step or not all(map(is_, prefilled, (state.context, *text))):
            context_cache = prefill_context(state, schedule, bound, noise, levels)
            prefilled = state.context, *text
        rows = (0,) * state.num_given + schedule.levels(active, state.now)[state.num_given :]
        window, history = step(state.window, on_device(rows), context_cache, state.history, *text)
        state = replace(state, now=state.now + 1, window=window, history=history)
        state = (yield state) or state


@torch.no_grad()
def denoise_step(
    window: Tensor, levels: Tensor, cache: Cache, history: History, *text: TextKV, denoiser: AnyDenoiser, solver: Solver
) -> Stepped:  # (B, T, C, H, W), (T,)
    """One step: every latent of the window goes down one level; text: of a denoiser that takes it with every call."""
    return solver.step(window, denoiser(window, levels, cache, *text), levels, history)


@torch.no_grad()
def warmup_inputs(
    schedule: Schedule, denoiser: Denoiser, solver: Solver, state: SamplerState, chunks: int | None, max_latents: float
) -> Iterator[tuple[Tensor, Tensor, Cache | None, History]]:
    """Arguments of `denoise_step` as sampling from this state will pass them, one of each shape, the largest first.

    Left out are those with more than `max_latents` latents, the context's included.
    """
    before, first = state.context.shape[1], state.chunks.start
    for noisy, clean in sorted(schedule.sizes(state.now, first, before, chunks), reverse=True):
        if noisy + clean > max_latents:
            continue
        batch, _, *shape = state.window.shape
        window, context = (state.window.new_zeros(batch, length, *shape) for length in (noisy, clean))
        levels = torch.zeros(noisy, dtype=torch.int32, device=window.device)
        yield window, levels, denoiser.prefill(context, 0) if clean else None, solver.history(window)


def roll(values: Tensor, entering: Tensor, leaving: int) -> Tensor:
    """Drop the first `leaving` latents and append those entering; none leave in ramp-up, none enter in ramp-down."""
    return torch.cat([values[:, leaving:], entering], dim=1)


def advance_window(
    state: SamplerState, active: range, schedule: Schedule, noise: Noise, solver: Solver
) -> SamplerState:
    """Move the window to the chunks `active`: those that leave become context, new ones enter as noise."""
    if active == state.chunks:
        return state
    leaving = len(schedule.latents(range(state.chunks.start, active.start)))
    entering = sample_noise(noise, schedule.latents(range(state.chunks.stop, active.stop)), state.window)
    right_context = with_loop(state, schedule, leaving)
    if right_context is not None and schedule.joins(active):
        entering, right_context = torch.cat([entering, right_context], dim=1), None
    pairs = zip(state.history, solver.history(entering), strict=True)
    history = tuple(roll(old, new, leaving) for old, new in pairs)
    window = roll(state.window, entering, leaving)
    moved = replace(state, chunks=active, window=window, history=history, right_context=right_context)
    length = schedule.context_latents(active)
    if not leaving:
        return replace(moved, context=tail(state.context, length)) if state.context.shape[1] > length else moved
    left = (state.originals if state.originals.shape[1] else state.window)[:, :leaving]
    clean = torch.cat([state.context, left], dim=1)
    sink, context = with_sink(state, schedule, clean, length), tail(clean, length)
    return replace(moved, context=context, originals=state.originals[:, leaving:], num_given=0, sink=sink)


def with_sink(state: SamplerState, schedule: Schedule, clean: Tensor, length: int) -> Tensor | None:
    """The sink once those of the latents `clean` that do not fit into a context of `length` have left it."""
    first = schedule.latents(state.chunks).start - state.context.shape[1]
    dropped = range(first, first + max(0, clean.shape[1] - length))
    entering = [index - first for index in schedule.sinks(dropped.stop) if index in dropped]
    if not entering:
        return state.sink
    latents = clean[:, entering[0] : entering[-1] + 1].clone()
    return latents if state.sink is None else torch.cat([state.sink, latents], dim=1)


@torch.no_grad()
def prefill_context(
    state: SamplerState, schedule: Schedule, denoiser: Denoiser, noise: Noise, levels: NoiseLevels
) -> Cache | None:
    """The denoiser's cache of the context, noised as the schedule and the model require."""
    clean, first = state.clean, schedule.latents(state.chunks).start
    if not clean.shape[1]:
        return None
    if not schedule.noisy_context and not levels.context_sigma:
        return denoiser.prefill(clean, 0)
    level = schedule.level(state.chunks[0], state.now) if schedule.noisy_context else levels.context
    recent = range(first - state.context.shape[1], first)
    parts = [sample_noise(noise, part, clean, state.now) for part in (schedule.sinks(recent.start), recent)]
    return denoiser.prefill(add_noise(clean, torch.cat(parts, dim=1), levels.sigmas[level]), level)


def from_nothing(noise: Noise, sigmas: Tensor) -> SamplerState:
    """Text to video: no context until the first chunk has left."""
    nothing = noise(0, None).to(sigmas)[:, None][:, :0]
    return SamplerState(0, range(0), nothing, nothing, nothing)


def from_clip(schedule: Schedule, clip: Tensor, sigmas: Tensor, chunk: int = 0) -> SamplerState:
    """Continue clean latents (B, T, C, H, W), whose last ones are the context, with a chunk of that index."""
    clip, chunks = clip.to(sigmas), range(chunk, chunk)
    context = tail(clip, schedule.context_latents(chunks))
    return SamplerState(schedule.entry(chunk), chunks, clip[:, :0], context, clip[:, :0])


def from_renoised(
    schedule: Schedule, clip: Tensor, noise: Noise, sigmas: Tensor, *, keep_copies: bool = False
) -> SamplerState:
    """Continue a clip whose last chunks are noised to the levels of a full window and denoised again (algorithm 1).

    Each re-noised copy helps the chunks after it and is dropped: its original becomes the context. With `keep_copies`
    the copies themselves do, and are yielded, as in the paper. A clip too short for that has fewer chunks noised.
    """
    clip = clip.to(sigmas)
    chunks = range(-schedule.num_renoised(clip.shape[1]), 0)
    before, originals = clip.tensor_split([clip.shape[1] - len(chunks) * schedule.chunk], dim=1)
    levels = torch.tensor(schedule.levels(chunks, 0), dtype=torch.int64, device=sigmas.device)
    fresh = sample_noise(noise, schedule.latents(chunks), originals)
    window = add_noise(originals, fresh, sigmas[levels][:, None, None, None])
    context = tail(before, schedule.context_latents(chunks))
    return SamplerState(0, chunks, window, context, originals[:, :0] if keep_copies else originals)


def from_first(schedule: Schedule, first: Tensor, noise: Noise, sigmas: Tensor) -> SamplerState:
    """Start a video from its first latents, (B, at most a chunk, C, H, W), which stay clean.

    They have level 0 within the first chunk and leave the window with it, as with a mask of 0 in Open-Sora.
    """
    first = first.to(sigmas)
    num_given, nothing, chunk = first.shape[1], first[:, :0], len(schedule.latents(range(1)))
    assert 1 <= num_given <= chunk
    assert not schedule.noisy_context
    window = roll(first, sample_noise(noise, range(num_given, chunk), first), 0)
    return SamplerState(0, range(1), window, nothing, nothing, num_given=num_given)


def sample_noise(noise: Noise, latents: range, like: Tensor, step: int | None = None) -> Tensor:
    """Noise of these latents (at a step), (B, T, C, H, W), on the device and in the precision of `like`."""
    if not latents:
        return like[:, :0]
    return to_device_like(torch.stack([noise(index, step) for index in latents], dim=1).to(like.dtype), like)


def to_device_like(values: Tensor, like: Tensor) -> Tensor:
    """Copy to `like`'s device without synchronizing: pinned memory, non-blocking on CUDA."""
    if values.device == like.device:
        return values
    return values.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else values.to(like.device)


def tail(latents: Tensor, length: int) -> Tensor:
    """At most the last `length` latents."""
    return latents[:, max(0, latents.shape[1] - length) :]
