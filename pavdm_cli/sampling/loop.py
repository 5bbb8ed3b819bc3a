"""The one loop of every method: a schedule and a denoiser in, finished chunks of latents out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor

from pavdm_cli.sampling.cuda_graphs import Graphs
from pavdm_cli.sampling.denoiser import Denoiser, Memory
from pavdm_cli.sampling.noise import Noise, add_noise
from pavdm_cli.sampling.schedule import Schedule
from pavdm_kernels import euler_step


@dataclass(frozen=True, slots=True)
class State:
    """All that the next step needs of the video so far: sampling that starts from a saved state goes on bit for bit.

    A chunk that the last step finished is still in front of the window; the next step takes it out.
    """

    now: int  # steps done
    chunks: range  # those in the window, oldest first; re-made chunks of a given clip are negative
    window: Tensor  # (B, T, C, H, W)
    overlap: Tensor  # (B, E or fewer, C, H, W), clean
    originals: Tensor  # (B, 0 or more, C, H, W), given chunks still in the window, which replace their re-made copies
    held: int = 0  # clean latents in front of the window that were given: no step changes them


States = Generator[State, State | None, None]
Repair = Callable[[State | None, State], State]  # the last sound state, None for the beginning; one to be looked at


def sample(
    schedule: Schedule,
    denoiser: Denoiser,
    noise: Noise,
    sigmas: Tensor,
    *,
    chunks: int | None,
    start: State | None = None,
    graphs: Graphs | None = None,
) -> Iterator[Tensor]:
    """Yields the new chunks, (B, chunk, C, H, W), each as soon as it is clean. Arguments as `walk`."""
    return new_chunks(schedule, walk(schedule, denoiser, noise, sigmas, chunks=chunks, start=start, graphs=graphs))


def new_chunks(schedule: Schedule, states: Iterable[State]) -> Iterator[Tensor]:
    """The new chunks of a walk, (B, chunk, C, H, W), each as soon as it is clean."""
    for state in states:
        if finished(schedule, state) and not state.originals.shape[1]:
            yield state.window[:, : schedule.chunk].clone()


def finished(schedule: Schedule, state: State) -> bool:
    """Whether the last step left the first chunk of the window clean."""
    return schedule.level(state.chunks[0], state.now) == 0


def repaired(states: States, schedule: Schedule, start: State | None, repair: Repair) -> Iterator[State]:
    """The same states; the walk continues from what `repair` gives for one in which a chunk is finished."""
    sound, state = start, None
    while True:
        try:
            state = states.send(state)
        except StopIteration:
            return
        if finished(schedule, state):
            state = sound = repair(sound, state)
        yield state


def walk(
    schedule: Schedule,
    denoiser: Denoiser,
    noise: Noise,
    sigmas: Tensor,
    *,
    chunks: int | None,
    start: State | None = None,
    graphs: Graphs | None = None,
) -> States:
    """Yields the state after every step, till `chunks` new chunks have left (None: for ever).

    sigmas (steps + 1,) also says on which device and in which precision latents are kept; start: `from_nothing` unless
    given, else what another `from_` makes or a state that an earlier walk yielded. With `graphs` the steps are recorded
    before the first one and replayed, with the same result; a state is nobody's buffer and stays as it is. A state that
    is sent to the generator takes the place of the one it yielded.
    """
    assert len(sigmas) == schedule.steps + 1
    state = start or from_nothing(noise, sigmas)
    step_sizes = sigmas.diff(prepend=sigmas[:1])  # (steps + 1,): what one step takes off each level
    on_device = cache(lambda levels: across(torch.tensor(levels, dtype=torch.int32), sigmas))
    step: Callable[..., Tensor] = partial(advance, denoiser=denoiser, step_sizes=step_sizes)
    step = graphs(step, examples(schedule, denoiser, state, chunks, graphs.most)) if graphs else step
    memory, remembered = None, None
    while present := schedule.present(state.now, state.chunks.start, chunks):
        state = move_on(state, present, schedule, noise)
        if schedule.renoised or state.overlap is not remembered:
            memory, remembered = recall(state, schedule, denoiser, noise, sigmas), state.overlap
        levels = (0,) * state.held + schedule.levels(present, state.now)[state.held :]
        window = step(state.window, on_device(levels), memory)
        state = replace(state, now=state.now + 1, window=window)
        state = (yield state) or state


@torch.no_grad()
def advance(
    window: Tensor, levels: Tensor, memory: Memory | None, *, denoiser: Denoiser, step_sizes: Tensor
) -> Tensor:  # (B, T, C, H, W), (T,)
    """One step: every latent of the window goes down one level."""
    return euler_step(window, denoiser(window, levels, memory), levels, step_sizes)


@torch.no_grad()
def examples(
    schedule: Schedule, denoiser: Denoiser, state: State, chunks: int | None, most: float
) -> Iterator[tuple[Tensor, Tensor, Memory | None]]:
    """Arguments of `advance` as a walk from this state will hand them over, one of each shape, the largest first.

    Left out are those with more than `most` latents, the overlap's included.
    """
    before, first = state.overlap.shape[1], state.chunks.start
    for held, overlap in sorted(schedule.sizes(state.now, first, before, chunks), reverse=True):
        noisy = held * schedule.chunk
        if noisy + overlap > most:
            continue
        window, clean = (_blank(state.window, length) for length in (noisy, overlap))
        levels = torch.zeros(noisy, dtype=torch.int32, device=window.device)
        yield window, levels, denoiser.remember(clean, 0) if overlap else None


def regrouped(chunks: Iterable[Tensor], group: int) -> Iterator[Tensor]:
    """The same latents, (1, T, C, h, w), in runs of whole groups of the codec; what is left at the end is dropped."""
    kept: list[Tensor] = []
    for chunk in chunks:
        latents = torch.cat([*kept, chunk], dim=1)
        whole = latents.shape[1] // group * group
        kept = [latents[:, whole:]]
        if whole:
            yield latents[:, :whole]


def shift(window: Tensor, noise: Tensor, leaving: int) -> Tensor:
    """Takes `leaving` latents out in front and `noise` in behind; growth takes none out, the end none in."""
    return torch.cat([window[:, leaving:], noise], dim=1)


def move_on(state: State, present: range, schedule: Schedule, noise: Noise) -> State:
    """Lets chunks out of the window, which become its overlap, and others in, until those in it are `present`."""
    if present == state.chunks:
        return state
    leaving = (present.start - state.chunks.start) * schedule.chunk
    entering = draw(noise, schedule.latents(range(state.chunks.stop, present.stop)), state.window)
    window = shift(state.window, entering, leaving)
    moved = replace(state, chunks=present, window=window)
    if not leaving:
        return moved
    left = (state.originals if state.originals.shape[1] else state.window)[:, :leaving]
    overlap = last(torch.cat([state.overlap, left], dim=1), schedule.overlap)
    return replace(moved, overlap=overlap, originals=state.originals[:, leaving:], held=0)


@torch.no_grad()
def recall(state: State, schedule: Schedule, denoiser: Denoiser, noise: Noise, sigmas: Tensor) -> Memory | None:
    """What the denoiser remembers of the overlap, shown as the schedule wants it."""
    length = state.overlap.shape[1]
    if not length:
        return None
    if not schedule.renoised:
        return denoiser.remember(state.overlap, 0)
    first = schedule.latents(state.chunks).start
    fresh = draw(noise, range(first - length, first), state.overlap, state.now)
    level = schedule.level(state.chunks[0], state.now)
    return denoiser.remember(add_noise(state.overlap, fresh, sigmas[level]), level)


def from_nothing(noise: Noise, sigmas: Tensor) -> State:
    """Text to video: no overlap until the first chunk has left."""
    nothing = noise(0, None).to(sigmas)[:, None][:, :0]
    return State(0, range(0), nothing, nothing, nothing)


def from_clip(schedule: Schedule, clip: Tensor, sigmas: Tensor) -> State:
    """Goes on from clean latents (B, T, C, H, W), whose last ones are the overlap."""
    clip = clip.to(sigmas)
    return State(0, range(0), clip[:, :0], last(clip, schedule.overlap), clip[:, :0])


def from_noised(schedule: Schedule, clip: Tensor, noise: Noise, sigmas: Tensor, *, keep_copies: bool = False) -> State:
    """Goes on from a clip whose last chunks are noised to the levels of a full window and made again (algorithm 1).

    Each re-made copy helps the chunks after it and is dropped: its original becomes the overlap. With `keep_copies` the
    copies themselves do, and are yielded, as in the paper. A clip too short for that has fewer chunks noised, or none.
    """
    clip = clip.to(sigmas)
    chunks = range(-schedule.remade(clip.shape[1]), 0)
    before, originals = clip.tensor_split([clip.shape[1] - len(chunks) * schedule.chunk], dim=1)
    levels = torch.tensor(schedule.levels(chunks, 0), dtype=torch.int64, device=sigmas.device)
    window = add_noise(originals, draw(noise, schedule.latents(chunks), originals), sigmas[levels][:, None, None, None])
    overlap = last(before, schedule.overlap)
    return State(0, chunks, window, overlap, originals[:, :0] if keep_copies else originals)


def from_first(schedule: Schedule, first: Tensor, noise: Noise, sigmas: Tensor) -> State:
    """Begins a video whose `first` latents (B, at most a chunk, C, H, W) are given: the first chunk keeps them, clean.

    They are shown at level 0 beside the others of their chunk and come out with it, as in Open-Sora's masks of 0.
    """
    first = first.to(sigmas)
    given, nothing = first.shape[1], first[:, :0]
    assert 1 <= given <= schedule.chunk
    assert not schedule.renoised
    window = shift(first, draw(noise, range(given, schedule.chunk), first), 0)
    return State(0, range(1), window, nothing, nothing, held=given)


def draw(noise: Noise, latents: range, like: Tensor, step: int | None = None) -> Tensor:
    """Noise of these latents (at a step), side by side, on the device and in the precision of `like`."""
    if not latents:
        return like[:, :0]
    return across(torch.stack([noise(index, step) for index in latents], dim=1).to(like.dtype), like)


def across(given: Tensor, like: Tensor) -> Tensor:
    """The same on the device of `like`; to a GPU from pinned memory, so that the copy waits for nothing."""
    if given.device == like.device:
        return given
    return given.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else given.to(like.device)


def last(latents: Tensor, length: int) -> Tensor:
    """At most the last `length` latents."""
    return latents[:, max(0, latents.shape[1] - length) :]


def _blank(like: Tensor, length: int) -> Tensor:
    """As many latents, all zero."""
    return like.new_zeros(like.shape[0], length, *like.shape[2:])
