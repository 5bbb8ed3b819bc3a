"""The sampling loop of every method, with denoisers that verify their inputs or depend on all of them."""

import gc
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from support.exact import (
    NOISE,
    SHAPE,
    Mixing,
    assert_same,
    build_solver,
    clean_latents,
    every_method,
    joined,
    one_clip,
    run_exact,
    sigmas_of,
)
from support.tiers import integration
from support.ways import Taped
from torch import Tensor

from pavdm_cli.sampling import loop, noise
from pavdm_cli.sampling.loop import SamplerState, denoise, denoise_step, sample, shift_latents, state_from_renoised_clip
from pavdm_cli.sampling.noise import linear_sigmas, seeded_noise
from pavdm_cli.sampling.schedule import Schedule, fifo, pa, rn, rw

pytestmark = pytest.mark.usefixtures("either_way")


def eager_and_last_replayed(name: str, *values: int) -> pytest.MarkDecorator:
    """Every value with eager steps, and the last one with recorded steps; the other ones in the integration tier."""
    replayed = [("replayed", value) for value in values]
    cases = [*(("eager", value) for value in values), replayed[-1], *integration(*replayed[:-1])]
    return pytest.mark.parametrize(("either_way", name), cases, indirect=["either_way"])


@every_method
@eager_and_last_replayed("chunks", 1, 2, 6)
def test_from_nothing_the_video_is_recovered_and_all_shown_is_right(schedule: Schedule, chunks: int) -> None:
    out = run_exact(schedule, chunks=chunks)
    assert_same(out, clean_latents(schedule.latents(range(chunks))))


@every_method
def test_where_steps_are_recorded_all_are_replayed(schedule: Schedule, either_way: Taped | None) -> None:
    run_exact(schedule, chunks=5)
    assert either_way is None or either_way.backend.replays == schedule.total_steps(5)


@every_method
@eager_and_last_replayed("num_given", 1, 2, 7)
def test_from_a_clip_the_video_continues(schedule: Schedule, num_given: int) -> None:
    out = run_exact(schedule, num_given=num_given)
    assert_same(out, clean_latents(schedule.latents(range(5))))


@every_method
@eager_and_last_replayed("num_given", 1, 40, 4)
def test_from_a_noised_clip_only_new_chunks_come_out(schedule: Schedule, num_given: int) -> None:
    out = run_exact(schedule, num_given=num_given, noised=True)
    assert_same(out, clean_latents(schedule.latents(range(5))))


def test_one_clip_is_a_window_at_one_level() -> None:
    assert_same(run_exact(one_clip(5, 7), chunks=1), clean_latents(range(7)))


def test_no_new_chunks_from_a_noised_clip_is_an_empty_video() -> None:
    schedule = pa(6, 6, 2)
    sigmas = sigmas_of(schedule)
    start = state_from_renoised_clip(schedule, clean_latents(range(-6, 0)), NOISE, sigmas)
    assert not list(sample(schedule, Mixing(), NOISE, build_solver(sigmas), chunks=0, start=start))


def run_mixing(schedule: Schedule, chunks: int, start: SamplerState | None = None) -> list[Tensor]:
    return list(sample(schedule, Mixing(), NOISE, build_solver(sigmas_of(schedule)), chunks=chunks, start=start))


@every_method
@eager_and_last_replayed("extra", 0, 1, 3)
def test_a_video_equals_a_longer_one_in_exactly_all_chunks_but_the_last_window(schedule: Schedule, extra: int) -> None:
    chunks = schedule.capacity + extra
    short, long = run_mixing(schedule, chunks), run_mixing(schedule, chunks + schedule.capacity)
    same = [torch.equal(a, b) for a, b in zip(short, long, strict=False)]
    shared = chunks // schedule.restart * schedule.restart if schedule.restart else chunks - schedule.capacity + 1
    assert same == [True] * shared + [False] * (chunks - shared)


@every_method
def test_a_video_without_end_starts_like_one_with_an_end(schedule: Schedule) -> None:
    endless = sample(schedule, Mixing(), NOISE, build_solver(sigmas_of(schedule)), chunks=None)
    ended = run_mixing(schedule, schedule.capacity + 2)
    assert all(torch.equal(a, b) for a, b in zip(islice(endless, 3), ended, strict=False))


@every_method
def test_going_on_from_any_saved_state_gives_the_same_bytes(schedule: Schedule) -> None:
    sigmas, chunks = sigmas_of(schedule), 4
    clip = clean_latents(range(-5, 0))
    start = state_from_renoised_clip(schedule, clip, NOISE, sigmas)
    whole = run_mixing(schedule, chunks, start)
    for state in denoise(schedule, Mixing(), NOISE, build_solver(sigmas), chunks=chunks, start=start):
        rest = run_mixing(schedule, chunks, state)
        assert all(torch.equal(a, b) for a, b in zip(rest[::-1], whole[::-1], strict=False))


@every_method
def test_a_chunk_comes_as_soon_as_it_is_clean(schedule: Schedule) -> None:
    denoiser = Mixing()
    video = sample(schedule, denoiser, NOISE, build_solver(sigmas_of(schedule)), chunks=None)
    for index in range(4):
        next(video)
        before, place = divmod(index, schedule.restart) if schedule.restart else (0, index)
        whole = schedule.steps + (schedule.restart - 1) * schedule.stride
        assert denoiser.calls == schedule.steps + place * schedule.stride + before * whole


@pytest.fixture(scope="module")
def alone() -> None:
    """Nothing that earlier tests left is looked through."""
    gc.collect()
    gc.freeze()


def held_bytes() -> int:
    gc.collect()
    # Other objects hold no memory of the sampler's.
    tensors = [tensor for tensor in gc.get_objects() if type(tensor) is Tensor]
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


@every_method
@pytest.mark.usefixtures("alone")
def test_memory_does_not_grow_with_the_video(schedule: Schedule) -> None:
    uncached_noise, solver = seeded_noise(5, SHAPE), build_solver(sigmas_of(schedule))  # not NOISE, which is cached
    video = sample(schedule, Mixing(), uncached_noise, solver, chunks=None)
    for _ in range(schedule.capacity + schedule.context + 2):
        next(video)
    before = held_bytes()
    for _ in range(24):  # whole windows, where they restart
        chunk = next(video)
    assert chunk.untyped_storage().nbytes() == chunk.nbytes
    assert held_bytes() == before


@every_method
def test_no_global_random_state_is_read_or_moved(schedule: Schedule) -> None:
    state = torch.get_rng_state()
    first = run_mixing(schedule, 2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(run_mixing(schedule, 2), first, strict=True))


def test_every_method_starts_a_latent_from_the_same_noise() -> None:
    noises = []
    for schedule in (pa(4, 4, 2), rn(4, 4, 2), rw(4, 4, 2), fifo(4, 4, 2)):
        draws: dict[int, Tensor] = {}

        def noise(index: int, step: int | None = None, draws: dict[int, Tensor] = draws) -> Tensor:
            if step is None:
                draws[index] = NOISE(index, step)
            return NOISE(index, step)

        list(sample(schedule, Mixing(), noise, build_solver(sigmas_of(schedule)), chunks=8 // schedule.chunk))
        noises.append(torch.stack([draws[index] for index in range(8)]))
    assert all(torch.equal(latents, noises[0]) for latents in noises)


def test_a_linear_gaussian_denoiser_gives_the_closed_form() -> None:
    """Data N(m, s^2) in every value: the flow is affine, so each step multiplies the distance from its mean path."""
    schedule, mean, variance = pa(6, 6, 2), 1.5, 0.49
    sigmas = sigmas_of(schedule)

    def pull(sigma: Tensor) -> Tensor:
        return ((1 - sigma) * variance - sigma) / ((1 - sigma) ** 2 * variance + sigma**2)

    class Gaussian(Mixing):
        def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
            sigma = sigmas[levels][:, None, None, None]
            return mean + pull(sigma) * (window - (1 - sigma) * mean)

    factor = torch.prod(1 + sigmas.diff() * pull(sigmas[1:]))
    out = joined(list(sample(schedule, Gaussian(), NOISE, build_solver(sigmas), chunks=4)))
    noise = torch.stack([NOISE(index) for index in range(8)], dim=1).double()
    assert_same(out, mean + factor * noise)


# The start from a noised clip (algorithm 1).


class Overlaps(Mixing):
    """Keeps every overlap it is told to remember."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def prefill(self, overlap: Tensor, level: int, /) -> Tensor:
        self.seen.append(overlap)
        return super().prefill(overlap, level)


def test_originals_are_the_overlap_until_a_new_chunk_leaves() -> None:
    schedule, denoiser = pa(6, 6, 2), Overlaps()
    clip, sigmas = clean_latents(range(-6, 0)), sigmas_of(schedule)
    start = state_from_renoised_clip(schedule, clip, NOISE, sigmas)
    out = list(sample(schedule, denoiser, NOISE, build_solver(sigmas), chunks=3, start=start))
    expected = [clip[:, :2], clip[:, 2:4], clip[:, 4:], *out[:2]]
    assert len(out) == 3
    assert all(torch.equal(a, b) for a, b in zip(denoiser.seen, expected, strict=True))


def test_kept_copies_come_out_and_become_the_overlap() -> None:
    schedule, denoiser = pa(6, 6, 2), Overlaps()
    clip, sigmas = clean_latents(range(-6, 0)), sigmas_of(schedule)
    start = state_from_renoised_clip(schedule, clip, NOISE, sigmas, keep_copies=True)
    out = list(sample(schedule, denoiser, NOISE, build_solver(sigmas), chunks=3, start=start))
    assert len(out) == 5
    assert not torch.equal(out[0], clip[:, 2:4])
    assert all(torch.equal(a, b) for a, b in zip(denoiser.seen, [clip[:, :2], *out[:4]], strict=True))


def test_the_overlap_is_remembered_once_a_shift_and_re_noised_every_step() -> None:
    clean, noised = Overlaps(), Overlaps()
    list(sample(pa(6, 6, 2), clean, NOISE, build_solver(linear_sigmas(6)), chunks=5))
    list(sample(rw(6, 6, 2), noised, NOISE, build_solver(linear_sigmas(6)), chunks=3))
    assert (len(clean.seen), len(noised.seen)) == (4, 12)


def test_a_step_and_a_shift_read_no_value_back_from_the_device() -> None:
    """Tensors on the meta device have no values, so this fails where a captured graph would."""
    window, levels = torch.zeros(2, 6, 3, 2, 2, device="meta"), torch.zeros(6, dtype=torch.int32, device="meta")
    solver = build_solver(torch.zeros(7, device="meta"))
    result, _ = denoise_step(window, levels, None, (), denoiser=Mixing(), solver=solver)
    assert shift_latents(result, window[:, :2], 2).shape == window.shape


@every_method
def test_levels_and_noise_come_to_a_gpu_from_pinned_memory(schedule: Schedule, monkeypatch) -> None:
    brought, copied = list[torch.dtype](), loop.to_device_like
    for module in (loop, noise):
        monkeypatch.setattr(
            module, "to_device_like", lambda tensor, like: (brought.append(tensor.dtype), copied(tensor, like))[1]
        )
    run_mixing(schedule, 5)
    patterns = {schedule.levels(schedule.active_chunks(now, 0, 5), now) for now in range(schedule.total_steps(5))}
    assert brought.count(torch.int32) == len(patterns)
    assert brought.count(torch.float64) >= 2

    def to(tensor: Tensor, device: str, non_blocking: bool = False) -> tuple[Tensor, str, bool]:
        return tensor, device, non_blocking

    pinned, host = torch.ones(2), torch.ones(1)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned)
    monkeypatch.setattr(Tensor, "to", to)
    assert copied(host, SimpleNamespace(is_cuda=True, device="cuda")) == (pinned, "cuda", True)
    assert copied(host, SimpleNamespace(is_cuda=False, device="mps")) == (host, "mps", False)
