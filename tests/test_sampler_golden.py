"""Whole runs against recordings of the released code: the inputs of every step, and the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.exact import build_solver, one_clip
from torch import Tensor

from pavdm_cli.models.opensora.config import timestep_shift
from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser, batched_cfg
from pavdm_cli.sampling.loop import SamplerState, denoise, sample, state_from_clip, state_from_renoised_clip
from pavdm_cli.sampling.masked_clips import sample_masked_clip
from pavdm_cli.sampling.noise import Noise, linear_sigmas, shifted_sigmas
from pavdm_cli.sampling.schedule import Schedule, pa

pytestmark = pytest.mark.usefixtures("either_way")
GOLDEN = Path(__file__).parent / "golden"
SMALL = STDiTConfig(hidden=64, depth=2, heads=4, in_channels=4, out_channels=8, text_width=32, text_length=12)
Run = dict[str, Tensor]
Masked = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """A recorded run, and the same in our words."""

    name: str
    schedule: Schedule
    warped: bool
    chunks: int | None  # None: the recording stops while the window is full
    given: int = 0  # clean latents of its input, before those that pure noise replaces
    noised: int = 0  # of these, latents noised to start from

    def sigmas(self, run: Run) -> Tensor:
        sizes = (int(run[f"arg.{key}"][0]) for key in ("height", "width", "num_frames"))
        steps = self.schedule.steps
        return shifted_sigmas(steps, timestep_shift(*sizes)) if self.warped else linear_sigmas(steps)

    def noise(self, run: Run) -> Noise:
        """The recorded draws in a row; the plain sampler made none, since its input is the noise."""
        draws = [run[key] for key in sorted(run) if key.startswith("noise.")] or [run["z_in"]]
        row = torch.cat(draws, dim=1)
        return lambda index, step=None, /: row[:, index + self.noised]

    def start(self, run: Run) -> SamplerState | None:
        clip, sigmas = run["z_in"][:, : self.given], self.sigmas(run)
        if self.noised:
            return state_from_renoised_clip(self.schedule, clip, self.noise(run), sigmas, keep_copies=True)
        return state_from_clip(self.schedule, clip, sigmas) if self.given else None


SMALL_RUNS = [
    Case("pavdm_c2_keep1_var1_tt0", pa(6, 6, 2), warped=False, chunks=7, given=2),
    Case("pavdm_c2_keep1_var1_tt1", pa(6, 6, 2), warped=True, chunks=7, given=2),
    Case("pavdm_c2_keep1_var0_tt0", pa(6, 6, 2), warped=False, chunks=None, given=6, noised=4),
    Case("pavdm_c2_keep0_var0_tt0", pa(6, 6, 2, context=False), warped=False, chunks=None, given=4, noised=4),
]
ALL_RUNS = [
    *SMALL_RUNS,
    Case("pavdm_paper_keep1_var1_tt1", pa(30, 30, 5), warped=True, chunks=8, given=5),
    Case("base_nomask_tt", one_clip(6, 5), warped=True, chunks=1),
]


def load(case: Case) -> Run:
    """The recording with latents as (B, T, C, H, W), and the plain sampler's steps put as the others are."""
    run = load_file(GOLDEN / f"{case.name}.safetensors")
    run = {key: value.transpose(1, 2).contiguous() if value.ndim == 5 else value for key, value in run.items()}
    for now in range(len([key for key in run if key.endswith(".z_in")])):
        run[f"step.{now:03d}.t_model"] = run[f"step.{now:03d}.t"][:1].expand(1, case.schedule.chunk)
        run[f"step.{now:03d}.z"] = run.get(f"step.{now + 1:03d}.z_in", run["out"])
    return run


@pytest.fixture(scope="module")
def model() -> STDiT:
    small = STDiT(SMALL)
    small.load_state_dict(load_file(GOLDEN / "stdit3_small_weights.safetensors"))
    return small.eval()


@torch.no_grad()
def bind(model: STDiT, run: Run, sigmas: Tensor) -> Denoiser:
    """As the released model sees it: clean and noisy latents attend to one another, so they go through it together."""
    batch = len(run["z_in"])
    y = torch.cat([run["y"][:, 0], model.y_embedder.y_embedding.expand(batch, -1, -1)])
    text = model.encode_text(y, run["text_mask"].repeat(2, 1))
    table = model.embed_timesteps(1000 * sigmas, run["arg.fps"][:1])
    size = (float(run["arg.height"][0]), float(run["arg.width"][0]))

    def velocity(window: Tensor, levels: Tensor, overlap: Tensor | None) -> Tensor:
        before = window[:, :0] if overlap is None else overlap
        rows = torch.cat([levels.new_zeros(*levels.shape[:-1], before.shape[1]), levels], dim=-1)
        out: Tensor = model(torch.cat([before, window], dim=1), rows, table, text, size=size)
        return out[:, before.shape[1] :]

    return batched_cfg(FunctionDenoiser(lambda overlap, level: overlap, velocity), 7.0)


def replay(run: Run) -> Denoiser:
    """The recorded velocities, one a call."""
    calls = count()
    return FunctionDenoiser(lambda overlap, level: overlap, lambda *args: run[f"step.{next(calls):03d}.v"])


def watched(denoiser: Denoiser, fractions: list[Tensor], sigmas: Tensor) -> Denoiser:
    """Notes the noise fractions of all latents that each call is shown; the memory is the overlap itself."""

    def velocity(window: Tensor, levels: Tensor, overlap: Tensor | None) -> Tensor:
        before = 0 if overlap is None else overlap.shape[1]
        fractions.append(torch.cat([torch.zeros(before), sigmas[levels]])[None])
        return denoiser(window, levels, overlap)

    return FunctionDenoiser(denoiser.prefill, velocity)


def check_steps(case: Case, run: Run, denoiser: Denoiser, tolerance: float) -> None:
    """Noise fractions shown, and latents after it with the overlap in front, of every recorded step."""
    sigmas, fractions = case.sigmas(run), list[Tensor]()
    watching = watched(denoiser, fractions, sigmas)
    steps = len([key for key in run if key.endswith(".t_model")])
    states = denoise(
        case.schedule, watching, case.noise(run), build_solver(sigmas), chunks=case.chunks, start=case.start(run)
    )
    for state in islice(states, steps):
        step = f"step.{state.now - 1:03d}"
        torch.testing.assert_close(fractions[-1], run[f"{step}.t_model"] / 1000, atol=1e-6, rtol=0)
        latents = torch.cat([state.context, state.window], dim=1)
        torch.testing.assert_close(latents, run[f"{step}.z"], atol=tolerance, rtol=0)
    assert len(fractions) == steps
    assert case.chunks is None or next(states, None) is None


@pytest.mark.parametrize("case", SMALL_RUNS, ids=lambda case: case.name)
def test_with_the_recorded_velocities_every_step_is_the_recorded_one(case: Case) -> None:
    run = load(case)
    check_steps(case, run, replay(run), tolerance=1e-5)


@pytest.mark.parametrize("case", ALL_RUNS, ids=lambda case: case.name)
def test_with_the_model_every_step_is_the_recorded_one(case: Case, model: STDiT) -> None:
    run = load(case)
    check_steps(case, run, bind(model, run, case.sigmas(run)), tolerance=1e-4)


@pytest.mark.parametrize("case", ALL_RUNS, ids=lambda case: case.name)
def test_with_the_model_the_video_is_the_recorded_one(case: Case, model: STDiT) -> None:
    run = load(case)
    sigmas, start = case.sigmas(run), case.start(run)
    conditioning = run["out"][:, : case.schedule.context]
    chunks = sample(
        case.schedule, bind(model, run, sigmas), case.noise(run), build_solver(sigmas), chunks=case.chunks, start=start
    )
    num_chunks = (run["out"].shape[1] - conditioning.shape[1]) // case.schedule.chunk
    out = torch.cat([conditioning, *islice(chunks, num_chunks)], dim=1)
    torch.testing.assert_close(out, run["out"], atol=1e-4, rtol=0)
    assert case.chunks is None or next(chunks, None) is None


# Masks: clips of which some latents are given.

MASKED = {"base_mask_replace": 6, "base_mask_edit": 8}  # steps; the second has two rows with masks of their own


def check_masked(name: str, model: STDiT) -> None:
    """Every step's latents, which of them are shown at level 0, and the result of a recorded masked run."""
    run, steps = load(Case(name, one_clip(MASKED[name], 6), warped=True, chunks=1)), list[tuple[Tensor, Tensor]]()
    sigmas = Case(name, one_clip(MASKED[name], 6), warped=True, chunks=1).sigmas(run)
    real = bind(model, run, sigmas)

    def velocity(window: Tensor, levels: Tensor, memory: object) -> Tensor:
        steps.append((window, levels))
        return real(window, levels, memory)

    out = sample_masked_clip(
        FunctionDenoiser(real.prefill, velocity),
        run["z_in"],
        run["mask"],
        lambda now: run[f"noise.{now:03d}"],
        build_solver(sigmas),
    )
    for now, (window, levels) in enumerate(steps):
        step, active = f"step.{now:03d}", run[f"step.{now:03d}.x_mask"]
        assert torch.equal(levels > 0, active)
        torch.testing.assert_close(1000 * sigmas[levels], run[f"{step}.t"][:, None] * active, atol=1e-3, rtol=0)
        torch.testing.assert_close(window, run[f"{step}.z_in"], atol=1e-4, rtol=0)
    assert len(steps) == MASKED[name]
    torch.testing.assert_close(out, run["out"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", MASKED)
def test_with_masks_and_edit_ratios_every_step_and_the_result_are_the_recorded_ones(name: str, model: STDiT) -> None:
    check_masked(name, model)


def noised_at_every_step(masked: Masked) -> Masked:
    return lambda denoiser, latents, mask, fresh, solver: masked(denoiser, latents, mask.ceil(), fresh, solver)


def never_noised(masked: Masked) -> Masked:
    return lambda denoiser, latents, mask, fresh, solver: masked(denoiser, latents, mask.floor(), fresh, solver)


def noised_a_step_late(masked: Masked) -> Masked:
    return lambda denoiser, latents, mask, fresh, solver: masked(
        denoiser, latents, torch.where(mask < 1, mask - 0.2, mask), fresh, solver
    )


def noise_of_another_step(masked: Masked) -> Masked:
    return lambda denoiser, latents, mask, fresh, solver: masked(denoiser, latents, mask, lambda now: fresh(0), solver)


@pytest.mark.parametrize("bug", [noised_at_every_step, never_noised, noised_a_step_late, noise_of_another_step])
def test_a_mask_that_is_misread_is_caught(bug: Callable[[Masked], Masked], model: STDiT, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "sample_masked_clip", bug(sample_masked_clip))
    with pytest.raises(AssertionError):
        check_masked("base_mask_edit", model)
