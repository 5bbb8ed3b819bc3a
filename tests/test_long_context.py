"""Contexts of several chunks: the latents and positions that the model gets, with and without the cache."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from support.exact import build_solver
from support.requests import make_request
from support.tiers import integration
from support.tiny import tiny_pocket
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.checks import build_schedule, check_sampling
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.generation.timeline import PromptChange
from pavdm_cli.models.stdit.denoiser import compute_modulation, with_full_context, with_kv_cache
from pavdm_cli.models.stdit.layers import Rope
from pavdm_cli.sampling.denoiser import FunctionDenoiser
from pavdm_cli.sampling.loop import SamplerState, denoise, new_chunks, sample, state_from_clip
from pavdm_cli.sampling.noise import linear_sigmas, seeded_noise
from pavdm_cli.sampling.schedule import Schedule, pa, rn

STEPS, CHUNK, CHUNKS = 8, 2, 9
NOISE = seeded_noise(1, (1, 4, 2, 3))
ARMS = [(1, 0), (2, 0), (4, 0), (1, 1), (2, 1), (0, 1), (2, 3)]
every_arm = pytest.mark.parametrize(("context", "sink"), ARMS)


def schedule_with(context: int, sink: int, first: int = 0, method: Any = pa, positions: int | None = CHUNK) -> Schedule:
    return replace(method(STEPS, 8, CHUNK, context), sink=range(first, first + sink), positions=positions)


def solver() -> Any:
    return build_solver(linear_sigmas(STEPS).double())


def shown(schedule: Schedule, start: Any = None) -> tuple[list[tuple[int, ...]], list[int], Tensor]:
    """Indices of the clean latents at every prefill, latents of each step's call, and the video's latents.

    The denoiser keeps every latent as it is, so that a latent is known by its own noise.
    """
    names = {float(NOISE(index, None)[0, 0, 0, 0]): index for index in range(8 * CHUNKS)}
    contexts, sizes = list[tuple[int, ...]](), list[int]()

    def prefill(context: Tensor, level: int) -> int:
        contexts.append(tuple(names.get(float(value.float()), -1) for value in context[0, :, 0, 0, 0]))
        return context.shape[1]

    def velocity(window: Tensor, levels: Tensor, cache: int | None) -> Tensor:
        sizes.append(cache or 0)
        return torch.zeros_like(window)

    chunks = sample(schedule, FunctionDenoiser(prefill, velocity), NOISE, solver(), chunks=CHUNKS, start=start)
    return contexts, sizes, torch.cat(list(chunks), dim=1)


def latents_of(schedule: Schedule, states: list[SamplerState]) -> Tensor:
    return torch.cat([chunk.latents for chunk in new_chunks(schedule, states)], dim=1)


def latents(chunks: range) -> tuple[int, ...]:
    return tuple(range(CHUNK * chunks.start, CHUNK * chunks.stop))


@every_arm
@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("method", [pa, rn])
def test_the_first_chunks_and_the_last_are_shown_in_order(context: int, sink: int, first: int, method: Any) -> None:
    schedule = schedule_with(context, sink, first, method)
    width = schedule.chunk // CHUNK  # rn moves on by whole windows
    contexts = [indices for indices in shown(schedule)[0] if indices]
    expected = []
    for num_done in range(width, CHUNKS * width, width):  # chunks of CHUNK latents that have left the window
        recent, sinks = (
            range(max(0, num_done - context), num_done),
            latents(range(first * width, (first + sink) * width)),
        )
        expected.append((*(index for index in sinks if index < CHUNK * recent.start), *latents(recent)))
    assert contexts == [indices for indices in expected if indices]


@pytest.mark.parametrize(
    ("context", "sink", "positions"),
    [  # repeated positions, and positions in order
        *((*arm, CHUNK) for arm in ARMS),
        *((*arm, None) for arm in ARMS[1:5:3]),
        *integration(*((*arm, None) for arm in ARMS if arm not in ARMS[1:5:3])),
    ],
)
def test_a_cached_context_is_the_recomputed_one(context: int, sink: int, positions: int | None) -> None:
    pocket = tiny_pocket().double().requires_grad_(False)
    text, table = (
        pocket.encode_prompts(["a red balloon"]),
        compute_modulation(pocket.stdit, 1000 * linear_sigmas(STEPS), 8.0),
    )

    def video(schedule: Schedule, kind: Any) -> Tensor:
        denoiser = kind(pocket.stdit, text, table, schedule.position_offset)
        return torch.cat(list(sample(schedule, denoiser, NOISE, solver(), chunks=CHUNKS)), dim=1)

    schedule = schedule_with(context, sink, first=1, positions=positions)
    cached = video(schedule, with_kv_cache)
    recomputed = video(schedule, partial(with_full_context, causal=True))
    torch.testing.assert_close(cached, recomputed, rtol=0, atol=1e-10)
    if (context, sink) != (1, 0):
        assert (video(schedule_with(1, 0), with_kv_cache) - cached).abs().max() > 1e-6


def test_positions_repeat_in_a_long_context_and_never_leave_those_of_training() -> None:
    rope = Rope(16).double()
    trained = rope(0, 8)
    assert torch.equal(rope(2, 6, 2), trained)
    assert torch.equal(rope(2, 6), trained[2:])
    assert torch.equal(rope(2, 6, 6), trained[[0, 1, 0, 1, *range(8)]])
    assert torch.equal(rope(2, 6, 3), trained[[1, *range(8)]])


@every_arm
def test_the_sizes_of_steps_are_known_before_the_first(context: int, sink: int) -> None:
    schedule = schedule_with(context, sink, first=1)
    observed = set(shown(schedule)[1])
    assert {clean for _, clean in schedule.sizes(0, 0, 0, CHUNKS)} == observed


@every_arm
def test_a_saved_state_continues_with_the_same_latents(context: int, sink: int) -> None:
    schedule = schedule_with(context, sink)

    def prefill(clean: Tensor, level: int) -> Tensor:
        return clean.mean(dim=1, keepdim=True)

    def velocity(window: Tensor, levels: Tensor, cache: Tensor | None) -> Tensor:
        return window * 0.1 + (0 if cache is None else cache)

    denoiser = FunctionDenoiser(prefill, velocity)
    states = list(denoise(schedule, denoiser, NOISE, solver(), chunks=CHUNKS))
    again = list(denoise(schedule, denoiser, NOISE, solver(), chunks=CHUNKS, start=states[11]))
    whole, rest = (latents_of(schedule, run) for run in (states, again))
    assert torch.equal(whole[:, -rest.shape[1] :], rest)


def test_the_sink_of_a_continuation_is_of_its_own_chunks() -> None:
    schedule = schedule_with(1, 1)
    clip = torch.full((1, 6, 4, 2, 3), 9.0, dtype=torch.float64)
    contexts, _, _ = shown(schedule, state_from_clip(schedule, clip, linear_sigmas(STEPS).double()))
    assert contexts[:3] == [(-1, -1), (0, 1), (0, 1, 2, 3)]


def test_pocket_has_a_sink_unless_its_context_or_method_is_changed() -> None:
    assert build_schedule(make_request()) == build_schedule(make_request(context=1, sink=1))
    assert build_schedule(make_request()) == replace(pa(12, 12, 2), sink=range(4, 5))
    assert build_schedule(make_request(warmup=1)).sink == range(1, 2)
    for changes in ({"context": 0}, {"ramp_up": "full"}, {"method": "rn"}, {"method": "fifo"}, {"sink": 0}):
        assert not build_schedule(make_request(**changes)).sink
    assert build_schedule(make_request(context=1, sink=0)) == pa(12, 12, 2)


def test_sinks_are_the_first_chunks_that_are_shown() -> None:
    request = make_request("a red ball", frames=8, context=2, sink=1, warmup=3)
    job = resolve(request)
    assert job.schedule.sink == range(3, 4)
    assert (job.schedule.context, job.schedule.position_offset) == (4, 6)
    repeated = resolve(replace(request, repeat_positions=True))
    assert (repeated.schedule.context, repeated.schedule.position_offset) == (4, 2)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (make_request(context=2, method="rw"), "--method rw, which adds noise"),
        (make_request(sink=1, method="rn", edit_ratio=0.5), "--edit-ratio, which denoises the context"),
        (make_request(context=2, model="opensora-v1.2"), "bidirectional attention"),
        (make_request(context=2, ramp_up="full"), "with --ramp-up full$"),
        (make_request(sink=1, method="windows"), "with --method windows$"),
        (make_request(context=65), "the context must be 0 to 64"),
        (make_request(sink=-1), "the sink must be 0 to 64"),
    ],
)
def test_more_clean_chunks_are_rejected_where_they_cannot_be(request_: Request, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_sampling(request_)


def test_a_new_sink_replaces_the_old_one_when_its_window_begins() -> None:
    schedule = replace(schedule_with(1, 1, positions=None), sink_changes=((3, 4),))
    contexts, _, _ = shown(schedule)
    capacity, chunks = schedule.capacity, [[index // CHUNK for index in indices[::CHUNK]] for indices in contexts]
    for newest, seen in zip(range(capacity, CHUNKS), chunks, strict=False):  # windows in which chunks enter
        recent = newest - capacity
        assert seen == ([0] if newest < 3 and recent > 0 else [4] if newest >= 3 and recent > 4 else []) + [recent]


def test_every_new_prompt_gets_a_sink_of_its_own() -> None:
    changes = (
        PromptChange(4, "a red ball at night"),
        PromptChange(6, "a red ball at night"),
        PromptChange(9, "a kite"),
    )
    config = resolve(make_request("a red ball over hills by day", seconds=12, timeline=changes, blend=0.5))
    times = [[float(config.chunk_start(chunk)) for chunk in chunks] for chunks in config.schedule.sink_changes]
    window = float(config.schedule.capacity * config.frames_per_chunk / config.spec.fps)
    assert times == [[4.0, 4.5 + 2 * window], [9.0, 9.5 + 2 * window]]  # not at 6 s, where the prompt stays the same
    assert not resolve(make_request("a red ball", seconds=12, timeline=changes, sink=0)).schedule.sink_changes


@pytest.mark.parametrize("sink", [1, 2])
@pytest.mark.parametrize("saved", [None, 3, 11, 17])
def test_the_sizes_are_known_before_a_sink_changes(sink: int, saved: int | None) -> None:
    schedule = replace(schedule_with(1, sink, positions=None), sink_changes=((4, 5),))
    denoiser = FunctionDenoiser(lambda context, level: context.shape[1], lambda window, levels, cache: 0 * window)
    states = list(denoise(schedule, denoiser, NOISE, solver(), chunks=CHUNKS + 6))
    start = None if saved is None else states[saved]
    now, first = (0, 0) if start is None else (start.now, start.chunks.start)
    sizes = schedule.sizes(now, first, 0 if start is None else start.context.shape[1], CHUNKS + 6)
    for state in states[0 if saved is None else saved + 1 :]:
        assert (state.window.shape[1], state.sink_and_context.shape[1]) in sizes
