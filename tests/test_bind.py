"""A transformer bound to a prompt: sampling with a cache agrees with the masks of training."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from support.exact import build_solver
from support.models import EXECUTION, MODELS, load
from support.tiny import tiny_pocket, tiny_runner
from torch import Tensor

from pavdm_cli.attention import Attention, attend
from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.models.runner import ModelRunner, with_attention
from pavdm_cli.models.stdit.denoiser import compute_modulation, make_backend_binder, with_full_context, with_kv_cache
from pavdm_cli.models.stdit.transformer import Conditioning, Modulation
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.loop import denoise, sample
from pavdm_cli.sampling.noise import linear_sigmas, noise_levels, seeded_noise
from pavdm_cli.sampling.schedule import METHODS, Schedule, fifo, pa, rw
from pavdm_cli.training.levels import Diagonal, WindowStage, progressive_timesteps
from pavdm_cli.training.losses import Batch, predict_velocity

DIAGONAL = Diagonal(8, 4, 2)
SCHEDULE = pa(8, 8, 2)
FPS = 8.0
PROMPTS = ["a red balloon over green hills", "a boat on the sea at night, panning left"]
NOISE = seeded_noise(1, (2, 4, 2, 3))


@pytest.fixture(scope="module")
def pocket() -> Pocket:
    return tiny_pocket().double().requires_grad_(False)


@pytest.fixture(scope="module")
def bound(pocket: Pocket) -> tuple[Conditioning, Modulation]:
    return pocket.encode_prompts(PROMPTS), compute_modulation(pocket.stdit, 1000 * linear_sigmas(8), FPS)


def latents(seed: int, length: int) -> Tensor:
    return torch.randn(2, length, 4, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=1e-10)


def trained_velocity(pocket: Pocket, window: WindowStage, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """What the function that trains shows its model, and gets from it, without a shift of the levels."""
    front = SCHEDULE.chunk if window.has_context else 0
    times = progressive_timesteps(DIAGONAL, window, torch.zeros(2)).clamp(max=999).double()
    times = torch.cat([times.new_zeros(2, front), times], dim=1)
    recorded: list[Tensor] = []
    hook = pocket.stdit.register_forward_hook(lambda _m, inputs, out: recorded.extend([inputs[0], out]))
    batch = Batch(clean, noise, times, torch.ones_like(times), front)
    predict_velocity(pocket.stdit, pocket.encode_prompts(PROMPTS), batch, torch.tensor(FPS).double())
    hook.remove()
    return recorded[0], recorded[1]


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize(("first", "chunks"), [(0, 4), (0, 2), (2, 2), (3, 1)])
def test_the_mask_of_training_is_the_reuse_of_sampling(pocket, bound, first, chunks, overlap):
    """At stage 1, where no level is pure noise; the first frames of training attend only to themselves."""
    window = WindowStage(first, chunks, 1, overlap)
    front = 2 if overlap else 0
    clean, noise = latents(1, front + 2 * chunks), latents(2, front + 2 * chunks)
    noisy, velocity = trained_velocity(pocket, window, clean, noise)
    denoiser = with_kv_cache(pocket.stdit, *bound, position=2)
    levels = torch.tensor([2 * place - 1 for place in range(first + 1, first + chunks + 1) for _ in range(2)])
    memory = denoiser.prefill(clean[:, :2], 0) if overlap else None
    assert_same(noisy[:, :front], clean[:, :front])
    assert_same(denoiser(noisy[:, front:], levels.int(), memory), velocity[:, front:])


def run(denoiser: Denoiser, schedule: Schedule = SCHEDULE) -> Tensor:
    sigmas = linear_sigmas(schedule.steps).double()
    return torch.cat(list(sample(schedule, denoiser, NOISE, build_solver(sigmas), chunks=7)), dim=1)


def test_a_video_with_reuse_is_the_video_without(pocket, bound):
    plain = with_full_context(pocket.stdit, *bound, position=2, causal=True)
    assert_same(run(with_kv_cache(pocket.stdit, *bound, position=2)), run(plain))


def test_what_is_remembered_is_computed_once_a_shift(pocket, bound):
    denoiser, prefill_levels = with_kv_cache(pocket.stdit, *bound, position=2), list[int]()

    class Counting:
        def prefill(self, frames: Tensor, level: int, /) -> object:
            prefill_levels.append(level)
            return denoiser.prefill(frames, level)

        def __call__(self, window: Tensor, levels: Tensor, memory: object, /) -> Tensor:
            return denoiser(window, levels, memory)

    steps = len(list(denoise(SCHEDULE, Counting(), NOISE, build_solver(linear_sigmas(8).double()), chunks=7)))
    assert prefill_levels == [0] * 6  # every chunk but the last, after which nothing comes
    assert steps == SCHEDULE.total_steps(7)


def test_recomputing_shows_the_overlap_in_full_attention_at_its_level(pocket, bound):
    frames, window = latents(3, 2), latents(4, 4)
    levels = torch.tensor([5, 5, 5, 5], dtype=torch.int32)
    denoiser = with_full_context(pocket.stdit, *bound, position=2)
    for level in (0, 5):
        rows = torch.tensor([level, level, 5, 5, 5, 5], dtype=torch.int32)
        text, table = bound
        full = pocket.stdit(torch.cat([frames, window], 1), rows, table, text)[:, 2:]
        assert_same(denoiser(window, levels, denoiser.prefill(frames, level)), full)
    cached = with_kv_cache(pocket.stdit, *bound, position=2)
    apart = cached(window, levels, cached.prefill(frames, 0)) - denoiser(window, levels, denoiser.prefill(frames, 0))
    assert apart.abs().max() > 1e-3  # there the clean frames see the noisy ones


def test_recomputing_for_a_causal_model_lets_the_overlap_see_only_itself(pocket, bound):
    text, table = bound
    frames, window, levels = latents(3, 2), latents(4, 4), torch.tensor([5, 5, 8, 8], dtype=torch.int32)
    denoiser = with_full_context(pocket.stdit, text, table, 2, causal=True)
    rows = torch.cat([torch.zeros(2, dtype=torch.int32), levels])
    full = pocket.stdit(torch.cat([frames, window], 1), rows, table, text, num_context_latents=2)[:, 2:]
    assert_same(denoiser(window, levels, denoiser.prefill(frames, 0)), full)


def test_what_is_remembered_was_shown_at_its_level(pocket, bound):
    text, table = bound
    frames, window, levels = latents(3, 2), latents(4, 4), torch.tensor([5, 5, 8, 8], dtype=torch.int32)
    denoiser = with_kv_cache(pocket.stdit, text, table, position=2)
    rows = torch.cat([torch.tensor([3, 3], dtype=torch.int32), levels])
    full = pocket.stdit(torch.cat([frames, window], 1), rows, table, text, num_context_latents=2)[:, 2:]
    assert_same(denoiser(window, levels, denoiser.prefill(frames, 3)), full)


@pytest.mark.parametrize("kind", [with_kv_cache, with_full_context, partial(with_full_context, causal=True)])
def test_each_row_of_a_batch_may_have_its_own_levels(kind, pocket, bound):
    window, levels = latents(4, 4), torch.tensor([[5, 5, 8, 8], [2, 2, 6, 6]], dtype=torch.int32)
    denoiser = kind(pocket.stdit, *bound, position=2)
    cache = denoiser.prefill(latents(3, 2), 0)
    rows = [denoiser(window, row_levels, cache)[n] for n, row_levels in enumerate(levels)]
    assert_same(denoiser(window, levels, cache), torch.stack(rows))


@pytest.mark.parametrize("kind", [with_kv_cache, with_full_context])
def test_without_an_overlap_the_window_stands_alone(kind, pocket, bound):
    window, levels = latents(4, 4), torch.tensor([1, 1, 3, 3], dtype=torch.int32)
    text, table = bound
    assert_same(kind(pocket.stdit, text, table, 2)(window, levels, None), pocket.stdit(window, levels, table, text))


def test_the_table_holds_the_timestep_of_every_level(pocket, bound):
    text, table = bound
    window = latents(5, 3)
    times = torch.tensor([125.0, 500.0, 1000.0]).double()
    rows = torch.tensor([0, 1, 2], dtype=torch.int32)
    alone = pocket.stdit(window, rows, pocket.stdit.embed_timesteps(times, torch.tensor(FPS).double()), text)
    assert_same(pocket.stdit(window, torch.tensor([1, 4, 8], dtype=torch.int32), table, text), alone)


SPEC = replace(MODELS["pocket"], name="tiny", folder=Path(), size=(16, 24), window=8, chunk=2, steps=8)


@pytest.fixture(scope="module")
def loaded(pocket: Pocket) -> ModelRunner:
    return tiny_runner(SPEC, pocket)


def passes(loaded: ModelRunner, schedule: Schedule, guidance: float) -> tuple[Tensor, list[tuple[int, int]]]:
    """A short video of one prompt, and (batch, latents) of every pass through the network."""
    shapes: list[tuple[int, int]] = []
    hook = loaded.transformer.register_forward_hook(lambda _m, inputs, out: shapes.append(tuple(inputs[0].shape[:2])))
    sigmas = linear_sigmas(schedule.steps).double()
    denoiser = loaded.denoiser(PROMPTS[0], schedule, noise_levels(sigmas), guidance, EXECUTION)
    noise = seeded_noise(1, loaded.noise_shape())
    video = torch.cat(list(sample(schedule, denoiser, noise, build_solver(sigmas), chunks=3)), dim=1)
    hook.remove()
    return video, shapes


def test_without_guidance_there_is_one_pass_a_step_and_with_it_a_batch_of_two(loaded):
    plain, single = passes(loaded, SCHEDULE, 1)
    strong, double = passes(loaded, SCHEDULE, 2.5)
    assert {batch for batch, _ in single} == {1}
    assert {batch for batch, _ in double} == {2}
    assert len(single) == len(double) == SCHEDULE.total_steps(3)
    assert plain.shape == strong.shape
    assert (plain - strong).abs().max() > 1e-3
    nearly = passes(loaded, SCHEDULE, 1 + 1e-12)[0]
    assert_same(plain, nearly)


def test_a_renoised_overlap_is_shown_in_full_and_a_long_window_in_spans(loaded):
    _, calls = passes(loaded, rw(8, 8, 2), 1)
    assert {length for _, length in calls} == {8, 10}
    _, spans = passes(loaded, fifo(16, 8, 2), 1)
    assert max(length for _, length in spans) <= SPEC.window


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_in_latents_that_depend_on_the_prompt(method, loaded):
    schedule = METHODS[method](8, 8, 2)
    sigmas = linear_sigmas(8).double()
    videos = []
    for prompt in PROMPTS:
        denoiser = loaded.denoiser(prompt, schedule, noise_levels(sigmas), 2.0, EXECUTION)
        videos.append(
            torch.cat(
                list(sample(schedule, denoiser, seeded_noise(1, loaded.noise_shape()), build_solver(sigmas), chunks=2)),
                1,
            )
        )
    assert all(video.isfinite().all() for video in videos)
    assert (videos[0] - videos[1]).abs().max() > 1e-4


class Heard:
    """An attention back end that counts its calls."""

    def __init__(self) -> None:
        self.masks: list[bool] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        self.masks.append(mask is not None)
        return attend(q, k, v, mask)


def heard(loaded: ModelRunner, prompt: str) -> tuple[Tensor, int, int]:
    """One step, and how often the back end and its stand-in were called."""
    plain, rest = Heard(), Heard()
    runner = replace(loaded, attention=Attention("plain", "for a test", plain, rest, "rest", min_keys=2))
    window, levels = latents(4, 4)[:1], torch.tensor([1, 1, 3, 3], dtype=torch.int32)
    out = runner.denoiser(prompt, SCHEDULE, noise_levels(linear_sigmas(8).double()), 1, EXECUTION)(window, levels, None)
    assert not any(plain.masks)
    unchanged = loaded.denoiser(prompt, SCHEDULE, noise_levels(linear_sigmas(8).double()), 1, EXECUTION)
    assert torch.equal(out, unchanged(window, levels, None))
    return out, len(plain.masks), len(rest.masks)


def test_space_and_text_are_attended_to_by_the_chosen_back_end(loaded):
    depth = loaded.transformer.config.depth
    _, plain, rest = heard(loaded, PROMPTS[0])
    assert (plain, rest) == (depth + 2 * depth, 0)  # one over space for each pair, one over the words for each block
    _, plain, rest = heard(loaded, "ball")
    assert (plain, rest) == (depth, 2 * depth)


def test_a_frame_of_one_token_goes_to_the_stand_in(loaded):
    plain, rest = Heard(), Heard()
    runner = replace(loaded, attention=Attention("plain", "for a test", plain, rest, "rest", min_keys=2))
    denoiser = runner.denoiser(PROMPTS[0], SCHEDULE, noise_levels(linear_sigmas(8).double()), 1, EXECUTION)
    depth = loaded.transformer.config.depth
    denoiser(latents(4, 4)[:1, ..., :2, :2], torch.tensor([1, 1, 3, 3], dtype=torch.int32), None)
    assert (len(plain.masks), len(rest.masks)) == (2 * depth, depth)  # the words are more than one


def test_a_text_with_padding_goes_to_the_stand_in(pocket):
    text = pocket.encode_prompts(["a red ball", "a boat on the sea at night"])
    assert text.mask is not None
    plain, rest = Heard(), Heard()
    attends = make_backend_binder(Attention("plain", "for a test", plain, rest, "rest"))(text).attention
    assert (attends.space, attends.text) == (plain, rest)


def test_what_is_loaded_keeps_its_choice():
    runner = load(MODELS["pocket"], torch.device("cpu"))
    assert with_attention(runner, "auto").attention.name == "sdpa"
    assert with_attention(runner, "sdpa-math").attention.name == "sdpa-math"


def test_a_dropped_prompt_reads_as_no_prompt_whatever_its_words(pocket):
    sentences = ["a red ball", "a white kite"]  # as long as one another
    text = pocket.encode_prompts([*sentences, *sentences], torch.tensor([False, False, True, True]))
    for kv in text.text_kv:
        assert torch.equal(kv[2], kv[3])
        assert not torch.equal(kv[0], kv[1])
