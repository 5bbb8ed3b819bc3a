"""The denoising loop of every method: turns a schedule and a denoiser into finished chunks of latents."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from operator import is_
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.sampling.cuda_graphs import GraphCapturer, signature
from pavdm_cli.sampling.denoiser import AnyDenoiser, Cache, Denoiser, TextKV, bind_text
from pavdm_cli.sampling.noise import Noise, NoiseLevels, add_noise, sample_noise, to_device_like
from pavdm_cli.sampling.right_context import grow_right_context, with_right_context_guidance
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solver import History, Solver

StepResult = tuple[Tensor, History]


@dataclass(frozen=True, slots=True)
class SamplerState:
    """Everything the next step depends on; sampling resumes bit-exactly from a saved state.

    A chunk finished by the last step is still at the front of the window until the next step.
    """

    now: int  # steps done
    chunks: range  # those in the window, oldest first; re-noised chunks of a clip are negative
    window: Tensor  # (B, T, C, H, W)
    context: Tensor  # (B, E or fewer, C, H, W), clean
    originals: Tensor  # (B, 0 or more, C, H, W), of the clip's chunks in the window: they replace re-noised copies
    num_fixed: int = 0  # number of fixed clean latents at the start of the window (a start image)
    history: History = ()  # the solver's, of the window's latents; empty before the first step
    sink: Tensor | None = None  # (B, 1 or more, C, H, W), clean latents in front of the context; None: none
    right_context: Tensor | None = None  # (B, 1 or more, C, H, W); None: none, or already appended to the window

    @property
    def sink_and_context(self) -> Tensor:  # (B, T, C, H, W)
        """The clean latents in front of the window."""
        return self.context if self.sink is None else torch.cat([self.sink, self.context], dim=1)


@dataclass(frozen=True, slots=True)
class SampledChunk:
    """A clean chunk, and the state from which the next one is sampled."""

    latents: Tensor  # (B, chunk, C, H, W)
    state: SamplerState

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, for streams that share them."""
        values = [getattr(self.state, field.name) for field in fields(self.state)]
        return self.latents, *self.state.history, *(value for value in values if isinstance(value, Tensor))


def move_state(state: SamplerState, device: torch.device) -> SamplerState:
    """The same state on another device."""
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    tensors: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
    return replace(state, **tensors, history=tuple(value.to(device) for value in state.history))


States = Generator[SamplerState, SamplerState | None, None]
# (last good state or None, state to check) -> state to continue from
Repair = Callable[[SamplerState | None, SamplerState], SamplerState]


def sample(
    schedule: Schedule,
    denoiser: Denoiser,
    noise: Noise,
    solver: Solver,
    *,
    chunks: int | None,
    start: SamplerState | None = None,
    graph_capturer: GraphCapturer | None = None,
) -> Iterator[Tensor]:
    """Yield each new chunk, (B, chunk, C, H, W), as soon as it is clean. Arguments as for `denoise`."""
    states = denoise(schedule, denoiser, noise, solver, chunks=chunks, start=start, graph_capturer=graph_capturer)
    return (chunk.latents for chunk in new_chunks(schedule, states))


def new_chunks(schedule: Schedule, states: Iterable[SamplerState]) -> Iterator[SampledChunk]:
    """The new chunks among the states, each as soon as it is clean."""
    for state in states:
        if is_finished(schedule, state) and not state.originals.shape[1]:
            oldest = schedule.latents(state.chunks[:1])
            yield SampledChunk(state.window[:, : len(oldest)].clone(), state)


def is_finished(schedule: Schedule, state: SamplerState) -> bool:
    """Whether the first chunk of the window is clean after the last step."""
    return schedule.level(state.chunks[0], state.now) == 0


def with_repair(
    states: States, schedule: Schedule, start: SamplerState | None, repair: Repair
) -> Iterator[SamplerState]:
    """Pass the states through `repair` whenever a chunk is finished; sampling continues from what it returns."""
    last_good, state = start, None
    while True:
        try:
            state = states.send(state)
        except StopIteration:
            return
        if is_finished(schedule, state):
            state = last_good = repair(last_good, state)
        yield state


def denoise(
    schedule: Schedule,
    denoiser: AnyDenoiser,
    noise: Noise,
    solver: Solver,
    *,
    chunks: int | None,
    start: SamplerState | None = None,
    graph_capturer: GraphCapturer | None = None,
) -> States:
    """Yield the state after every step until `chunks` new chunks are finished (None: without end).

    Latents have the device and dtype of the solver's levels. start: a state from a `state_from_...` function, or an
    earlier state; default: `empty_state`. With `graph_capturer`, steps are captured before the first step with a text
    of a new shape, and replayed, except the few that are guided; yielded states never alias static buffers. A state
    that is sent to the generator replaces the yielded one.
    """
    levels = solver.levels
    assert levels.steps == schedule.steps
    state = start or empty_state(noise, levels.sigmas)
    state = replace(state, history=state.history or solver.history(state.window))
    levels_on_device = cache(lambda values: to_device_like(torch.tensor(values, dtype=torch.int32), levels.sigmas))
    step: Callable[..., StepResult] = partial(denoise_step, denoiser=denoiser, solver=solver)
    guided_denoiser = with_right_context_guidance(denoiser, schedule.right_context, schedule.right_context_guidance)
    guided_step = partial(denoise_step, denoiser=guided_denoiser, solver=solver)
    captured = schedule if schedule.right_context_guidance == 1 else schedule.without_right_context
    context_cache, prefill_inputs, captured_signatures = None, tuple[Any, ...]((None,)), set[Hashable]()
    recompute_every_step = schedule.noisy_context or levels.context_sigma > 0
    while active := schedule.active_chunks(state.now, state.chunks.start, chunks):
        bound_denoiser, text = bind_text(denoiser, schedule.newest(active, state.now))
        if graph_capturer and signature(text) not in captured_signatures:
            inputs = warmup_inputs(captured, bound_denoiser, solver, state, chunks, graph_capturer.max_latents)
            step = graph_capturer(step, ((*arguments, *text) for arguments in inputs))
            captured_signatures.add(signature(text))
        state = shift_window(state, active, schedule, noise, solver)
        if recompute_every_step or not all(map(is_, prefill_inputs, (state.context, *text))):
            context_cache = prefill_context(state, schedule, bound_denoiser, noise, levels)
            prefill_inputs = state.context, *text
        latent_levels = (0,) * state.num_fixed + schedule.levels(active, state.now)[state.num_fixed :]
        run = guided_step if schedule.is_guided(active) else step
        window, history = run(state.window, levels_on_device(latent_levels), context_cache, state.history, *text)
        state = replace(state, now=state.now + 1, window=window, history=history)
        state = (yield state) or state


@torch.no_grad()
def denoise_step(
    window: Tensor,
    levels: Tensor,
    cache: Cache,
    history: History,
    *text: TextKV,
    denoiser: Callable[..., Tensor],
    solver: Solver,
) -> StepResult:  # (B, T, C, H, W), (T,)
    """One denoising step; text: the extra argument of a TimelineDenoiser."""
    return solver.step(window, denoiser(window, levels, cache, *text), levels, history)


@torch.no_grad()
def warmup_inputs(
    schedule: Schedule, denoiser: Denoiser, solver: Solver, state: SamplerState, chunks: int | None, max_latents: float
) -> Iterator[tuple[Tensor, Tensor, Cache | None, History]]:
    """Dummy arguments of `denoise_step` in every shape that sampling from this state will need, largest first.

    Shapes of more than `max_latents` latents, including the context, are skipped.
    """
    num_context, first = state.context.shape[1], state.chunks.start
    for num_noisy, num_context_latents in sorted(schedule.sizes(state.now, first, num_context, chunks), reverse=True):
        if num_noisy + num_context_latents > max_latents:
            continue
        batch, _, *shape = state.window.shape
        window, context = (state.window.new_zeros(batch, length, *shape) for length in (num_noisy, num_context_latents))
        levels = torch.zeros(num_noisy, dtype=torch.int32, device=window.device)
        yield window, levels, denoiser.prefill(context, 0) if num_context_latents else None, solver.history(window)


def shift_latents(values: Tensor, entering: Tensor, leaving: int) -> Tensor:
    """Drop the first `leaving` latents and append those entering: none leave in ramp-up, none enter in ramp-down."""
    return torch.cat([values[:, leaving:], entering], dim=1)


def shift_window(state: SamplerState, active: range, schedule: Schedule, noise: Noise, solver: Solver) -> SamplerState:
    """Move the window to the chunks `active`: those that leave become context, new ones enter as noise."""
    if active == state.chunks:
        return state
    leaving = len(schedule.latents(range(state.chunks.start, active.start)))
    entering = sample_noise(noise, schedule.latents(range(state.chunks.stop, active.stop)), state.window)
    right_context = grow_right_context(state, schedule, leaving)
    if right_context is not None and schedule.sees_right_context(active):
        entering, right_context = torch.cat([entering, right_context], dim=1), None
    pairs = zip(state.history, solver.history(entering), strict=True)
    history = tuple(shift_latents(old, new, leaving) for old, new in pairs)
    window = shift_latents(state.window, entering, leaving)
    keeps_sink = schedule.sink_at(active.stop - 1) == schedule.sink_at(state.chunks.stop - 1)
    state = state if keeps_sink else replace(state, sink=None)
    new_state = replace(state, chunks=active, window=window, history=history, right_context=right_context)
    length = schedule.context_latents(active)
    if not leaving:
        return replace(new_state, context=tail(state.context, length)) if state.context.shape[1] > length else new_state
    outgoing = (state.originals if state.originals.shape[1] else state.window)[:, :leaving]
    clean = torch.cat([state.context, outgoing], dim=1)
    sink, context = with_sink(state, schedule, clean, length, active.stop - 1), tail(clean, length)
    return replace(new_state, context=context, originals=state.originals[:, leaving:], num_fixed=0, sink=sink)


def with_sink(state: SamplerState, schedule: Schedule, clean: Tensor, length: int, newest: int) -> Tensor | None:
    """The sink after latents that no longer fit in a context of `length` are evicted from `clean`."""
    first = schedule.latents(state.chunks).start - state.context.shape[1]
    evicted = range(first, first + max(0, clean.shape[1] - length))
    entering = [index - first for index in schedule.sink_latents(evicted.stop, newest) if index in evicted]
    if not entering:
        return state.sink
    latents = clean[:, entering[0] : entering[-1] + 1].clone()
    return latents if state.sink is None else torch.cat([state.sink, latents], dim=1)


@torch.no_grad()
def prefill_context(
    state: SamplerState, schedule: Schedule, denoiser: Denoiser, noise: Noise, levels: NoiseLevels
) -> Cache | None:
    """The denoiser's cache of the context, noised as the schedule and the model require."""
    clean, first = state.sink_and_context, schedule.latents(state.chunks).start
    if not clean.shape[1]:
        return None
    if not schedule.noisy_context and not levels.context_sigma:
        return denoiser.prefill(clean, 0)
    level = schedule.level(state.chunks[0], state.now) if schedule.noisy_context else levels.context_level
    recent = range(first - state.context.shape[1], first)
    ranges = schedule.sink_latents(recent.start, state.chunks.stop - 1), recent
    parts = [sample_noise(noise, latents, clean, state.now) for latents in ranges]
    return denoiser.prefill(add_noise(clean, torch.cat(parts, dim=1), levels.sigmas[level]), level)


def empty_state(noise: Noise, sigmas: Tensor) -> SamplerState:
    """Initial state for text to video: no context until the first chunk leaves."""
    nothing = noise(0, None).to(sigmas)[:, None][:, :0]
    return SamplerState(0, range(0), nothing, nothing, nothing)


def state_from_clip(schedule: Schedule, clip: Tensor, sigmas: Tensor, chunk: int = 0) -> SamplerState:
    """The state that continues a clip (B, T, C, H, W) with chunk number `chunk`; its last latents are the context."""
    clip, chunks = clip.to(sigmas), range(chunk, chunk)
    context = tail(clip, schedule.context_latents(chunks))
    return SamplerState(schedule.entry_step(chunk), chunks, clip[:, :0], context, clip[:, :0])


def state_from_renoised_clip(
    schedule: Schedule, clip: Tensor, noise: Noise, sigmas: Tensor, *, keep_copies: bool = False
) -> SamplerState:
    """Initial state with the last chunks of a clip re-noised to the levels of a full window (algorithm 1).

    Re-noised copies condition later chunks and are then dropped; their originals become context. With `keep_copies`
    the copies themselves become context and are yielded, as in the paper. In a short clip fewer chunks are re-noised.
    """
    clip = clip.to(sigmas)
    chunks = range(-schedule.num_renoised(clip.shape[1]), 0)
    context, originals = clip.tensor_split([clip.shape[1] - len(chunks) * schedule.chunk], dim=1)
    levels = torch.tensor(schedule.levels(chunks, 0), dtype=torch.int64, device=sigmas.device)
    new_noise = sample_noise(noise, schedule.latents(chunks), originals)
    window = add_noise(originals, new_noise, sigmas[levels][:, None, None, None])
    context = tail(context, schedule.context_latents(chunks))
    return SamplerState(0, chunks, window, context, originals[:, :0] if keep_copies else originals)


def state_from_first_latents(schedule: Schedule, first: Tensor, noise: Noise, sigmas: Tensor) -> SamplerState:
    """Initial state with fixed first latents (B, at most a chunk, C, H, W), such as an image.

    They stay at level 0 in the first chunk and leave the window with it, like mask 0 in Open-Sora.
    """
    first = first.to(sigmas)
    num_fixed, nothing, chunk = first.shape[1], first[:, :0], len(schedule.latents(range(1)))
    assert 1 <= num_fixed <= chunk
    assert not schedule.noisy_context
    window = shift_latents(first, sample_noise(noise, range(num_fixed, chunk), first), 0)
    return SamplerState(0, range(1), window, nothing, nothing, num_fixed=num_fixed)


def tail(latents: Tensor, length: int) -> Tensor:
    """At most the last `length` latents."""
    return latents[:, max(0, latents.shape[1] - length) :]
