"""The sampler on the tiny Wan model against recordings: rolling windows, and the windows of the original pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from support.wan import golden, index, tiny_transformer, tiny_vae
from torch import Tensor

from pavdm_cli.models.wan.denoiser import with_full_context
from pavdm_cli.models.wan.levels import wan_levels
from pavdm_cli.models.wan.transformer import Conditioning
from pavdm_cli.models.wan.vae_streams import decode_stream
from pavdm_cli.sampling.denoiser import Denoiser, batched_cfg, sequential_cfg
from pavdm_cli.sampling.loop import SamplerState, denoise, new_chunks, state_from_clip
from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solver import Solver
from pavdm_cli.sampling.solvers import build_solver
from pavdm_cli.sampling.unipc import UniPC, unipc

GUIDANCE = 6.0


def bound(case: dict[str, Tensor], levels: NoiseLevels, fps: float, position: int, *, batched: bool = True) -> Denoiser:
    """The tiny model under guidance, for the recorded prompt, whose rows are not padded."""
    model = tiny_transformer()
    with torch.no_grad():
        modulation = model.embed_timesteps(levels.timesteps, torch.tensor(fps))
        texts = (case["text_cond"], case["text_uncond"])
        if batched:
            both = Conditioning(modulation, model.encode_text(torch.cat(texts)))
            return batched_cfg(with_full_context(model, lambda: both, position), GUIDANCE)
        single = [Conditioning(modulation, model.encode_text(text)) for text in texts]
    first, second = (with_full_context(model, lambda own=own: own, position) for own in single)
    return sequential_cfg(first, second, GUIDANCE)


def latents_of(recorded: Tensor) -> Tensor:  # (C, F, h, w) -> (1, F, C, h, w)
    return recorded.transpose(0, 1)[None]


def recorded_noise(noise: Tensor, offset: int = 0) -> Any:
    """Noise of latent i: that of recorded frame i + offset."""
    return lambda index, step=None: noise[:, index + offset][None]


@dataclass
class NoisedPrefix:
    """A denoiser whose given context is noised again at every step; the latents that follow it are shown clean."""

    denoiser: Denoiser
    levels: NoiseLevels
    given: Tensor
    noise: Tensor  # (rows, C, E, h, w)
    now: int = 0

    def prefill(self, context: Tensor, level: int, /) -> Tensor:
        return context

    def __call__(self, window: Tensor, rows: Tensor, cache: Tensor | None, /) -> Tensor:
        if cache is None:
            return self.denoiser(window, rows, None)
        context, level = cache, 0
        if torch.equal(cache, self.given):
            sigma = self.levels.sigmas[self.levels.context_level]
            fresh, level = latents_of(self.noise[self.now]), self.levels.context_level
            context = (1 - sigma) * cache + sigma * fresh
        self.now += 1
        return self.denoiser(window, rows, self.denoiser.prefill(context, level))


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "sequential"])
@pytest.mark.parametrize("kind", ["unipc", "euler"])
@pytest.mark.parametrize("name", ["pa_roll", "pa_roll_clean", "pa_roll_noised_context"])
def test_a_rolling_window_gives_the_recorded_latents(name: str, kind: str, batched: bool) -> None:
    case, about = golden(name), index()[name]
    num_given, levels = about["num_pre_ready"], wan_levels(about["steps"], about["shift"], about["addnoise_condition"])
    schedule = Schedule(about["steps"], about["ar_step"], about["block"], num_given, full_window=True)
    denoiser = bound(case, levels, 24.0, num_given, batched=batched)
    start = None
    if num_given:
        clip = latents_of(case["noise"][:, :num_given])
        start = state_from_clip(schedule, clip, levels.sigmas)
        if about["addnoise_condition"]:
            denoiser = NoisedPrefix(denoiser, levels, clip, case["context_noise"])
            levels = replace(levels, context_sigma=0.0)  # what is noised, and when, is the wrapper's business
    chunks = (about["F"] - num_given) // about["block"]
    states = list(
        denoise(
            schedule,
            denoiser,
            recorded_noise(case["noise"], num_given),
            build_solver(kind, levels),
            chunks=chunks,
            start=start,
        )
    )
    assert len(states) == about["rows"]
    for row in (int(name.rsplit(".")[-1]) for name in case if name.startswith(f"{kind}.x.")):
        torch.testing.assert_close(shown(states[row]), latents_of(case[f"{kind}.x.{row:03d}"]), rtol=0, atol=1e-4)
    new = torch.cat([chunk.latents for chunk in new_chunks(schedule, states)], dim=1)
    torch.testing.assert_close(new, latents_of(case[f"{kind}.out"])[:, num_given:], rtol=0, atol=1e-4)


def shown(state: SamplerState) -> Tensor:
    """The clean latents in front of the window, and the window."""
    return torch.cat([state.context, state.window], dim=1)


def aliased(levels: NoiseLevels) -> Solver:
    """UniPC as the original pipeline runs it: at its second step the corrector starts from the wrong state."""
    solver, steps = unipc(levels), levels.steps
    now, then, after = (levels.sigmas[level].double() for level in (steps - 1, steps, steps - 2))
    step = torch.log((1 - now) / now) - torch.log((1 - then) / then)
    factor = (1 - now) * torch.expm1(-step)
    wrong = after / now * torch.tensor([now / then - 1, 0, -factor, 0], dtype=torch.float64)
    coefficients = solver.coefficients.double()
    coefficients[steps - 1, 1] += wrong
    return UniPC(levels, coefficients.float())


def test_the_original_pipeline_gives_the_recorded_video_when_all_latents_share_a_level() -> None:
    case, about = golden("df_t2v_sync"), index()["df_t2v_sync"]
    schedule = Schedule(about["steps"], about["steps"], 4, 0)
    check_pipeline(case, about, schedule, chunks=1)


def test_the_original_pipeline_gives_the_recorded_video_when_blocks_are_staggered() -> None:
    case, about = golden("df_t2v_async"), index()["df_t2v_async"]
    schedule = Schedule(about["steps"], about["ar_step"], about["block"], 0, full_window=True, restart=3)
    check_pipeline(case, about, schedule, chunks=3)


def check_pipeline(case: dict[str, Tensor], about: dict[str, Any], schedule: Schedule, chunks: int) -> None:
    levels = wan_levels(about["steps"], about["shift"])
    denoiser = bound(case, levels, about["fps"], 0)
    states = denoise(schedule, denoiser, recorded_noise(case["noise.000"]), aliased(levels), chunks=chunks)
    latents = torch.cat([chunk.latents for chunk in new_chunks(schedule, states)], dim=1)
    frames = decode_stream(tiny_vae("2.1")).push(latents)
    truncated = (frames[0].movedim(1, -1) * 255).byte()
    assert (truncated.int() - case["video_uint8"].int()).abs().max() <= 1
    torch.testing.assert_close(latents, case["final.0.latents"].transpose(1, 2), rtol=0, atol=5e-4)


@pytest.mark.parametrize(("name", "windows"), [("df_long", 3), ("df_extend", 1)])
def test_the_original_pipelines_next_windows_begin_with_the_recorded_prefix(name: str, windows: int) -> None:
    case, about = golden(name), index()[name]
    levels, draws = wan_levels(about["steps"], about["shift"], about["addnoise_condition"]), iter(range(100))
    for number in range(windows):
        noise = case[f"noise.{next(draws):03d}"]
        prefix = case.get(f"prefix.{number - (name == 'df_long')}.latents")
        final = case[f"final.{number}.latents"].transpose(1, 2)
        count = 0 if prefix is None else prefix.shape[2]
        schedule = Schedule(about["steps"], about["steps"], noise.shape[1] - count, count)
        denoiser, start = bound(case, levels, about["fps"], count), None
        if prefix is not None:
            clip = prefix.transpose(1, 2)
            again = torch.stack([case[f"noise.{next(draws):03d}"] for _ in range(about["steps"])])
            denoiser = NoisedPrefix(denoiser, levels, clip, again)
            start = state_from_clip(schedule, clip, levels.sigmas)
        clean = replace(levels, context_sigma=0.0)
        noises = recorded_noise(noise, count)
        states = denoise(schedule, denoiser, noises, aliased(clean), chunks=1, start=start)
        new = torch.cat([chunk.latents for chunk in new_chunks(schedule, states)], dim=1)
        torch.testing.assert_close(new, final[:, count:], rtol=0, atol=5e-4)
