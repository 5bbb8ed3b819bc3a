"""Open-Sora at any window, chunk, step count, size and rate that fit, and with several prompts at once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from support.exact import build_solver
from support.requests import make_request
from support.tiers import integration
from typer.testing import CliRunner

from pavdm_cli.app import app
from pavdm_cli.errors import UsageError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import parse_size
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.stdit.denoiser import compute_modulation, with_full_context
from pavdm_cli.sampling.denoiser import batched_cfg
from pavdm_cli.sampling.loop import sample
from pavdm_cli.sampling.noise import seeded_noise

pytestmark = pytest.mark.usefixtures("own_cache")

PROMPT = "a red balloon drifts over green hills"


def job_of(folder: Path, size: tuple[int, int] = (64, 72), frames: int = 17, **options: object) -> GenerationConfig:
    sampling = {"model": str(folder), "steps": 1, "window": 5, "seed": 1, "device": "cpu"} | options
    return resolve(make_request(PROMPT, frames=frames, size=size, **sampling))


FITTING = [(2, 10, 5), (2, 8, 2), *integration((1, 5, 5), (6, 15, 5), (5, 10, 2), (4, 4, 1), (6, 30, 5), (3, 9, 3))]


@pytest.mark.parametrize(("steps", "window", "chunk"), FITTING)
@pytest.mark.integration
def test_any_window_chunk_and_step_count_that_fit_make_a_video_by_the_command_line(
    steps, window, chunk, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    counts = ("--steps", str(steps), "--window", str(window), "--chunk", str(chunk), "--frames", "19", "--fps", "12")
    words = ("--model", str(folder), "--size", "72x64", "--threads", "1", "--json", "-o", "v.mp4")
    result = CliRunner().invoke(app, ["generate", PROMPT, *counts, *words])
    assert result.exit_code == 0, result.output
    metadata = json.loads(result.stdout)["metadata"]
    assert (metadata["steps"], metadata["window"], metadata["chunk"], metadata["fps"]) == (steps, window, chunk, 12)
    with av.open("v.mp4") as file:
        assert file.streams.video[0].average_rate == 12
        assert sum(1 for _ in file.decode(video=0)) == 19


def released(steps: int, size: tuple[int, int], window: int, chunk: int) -> list[float]:
    """The timesteps of every level, as the released code spaces them for a window with its clean chunk."""
    frames = math.ceil((window + chunk) / 5) * 17
    ratio = math.sqrt(size[0] * size[1] / 512**2) * math.sqrt(frames // 17 * 5)
    return [ratio * k / steps / (1 + (ratio - 1) * k / steps) for k in range(steps + 1)]


SIDES = [(64, 64), (64, 72), (72, 64), (88, 104), (240, 424), (424, 240), (720, 1280)]


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize(("steps", "window", "chunk"), [(1, 5, 5), (6, 30, 5), (3, 9, 3)])
def test_timesteps_follow_every_size_and_window_as_in_the_released_code(size, steps, window, chunk, folder):
    job = job_of(folder, size, steps=steps, window=window, chunk=chunk)
    expected = torch.tensor(released(steps, size, window, chunk))
    torch.testing.assert_close(pipeline.make_levels(job).sigmas[:-2], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 72), (72, 64), (88, 104), (120, 64), *map(parse_size, ("144p", "240p"))])
def test_odd_latents_are_padded_and_cropped_at_every_size(size, folder):
    job = job_of(folder, size)
    model = pipeline.open_model(job)
    (chunk,) = pipeline.sample_latents(job, model)
    assert chunk.shape == (1, 5, 4, size[0] // 8, size[1] // 8)
    assert chunk.isfinite().all()


@pytest.mark.parametrize("aspect", ["9:16", "1:1", "4:3"])
def test_a_shape_by_name_reaches_the_latents(aspect, folder):
    size = parse_size("144p", aspect)
    job = job_of(folder, size)
    (chunk,) = pipeline.sample_latents(job, pipeline.open_model(job))
    assert chunk.shape[-2:] == (size[0] // 8, size[1] // 8)


@pytest.mark.integration
def test_the_command_line_takes_a_shape(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = ("--steps", "1", "--window", "5", "--frames", "1", "--size", "144p", "--aspect", "9:16")
    result = CliRunner().invoke(
        app, ["generate", PROMPT, "--model", str(folder), *counts, "--threads", "1", "-o", "v.mp4"]
    )
    assert result.exit_code == 0, result.output
    with av.open("v.mp4") as file:
        frame = next(file.decode(video=0))
    assert (frame.height, frame.width) == parse_size("144p", "9:16")


@pytest.mark.parametrize(
    ("size", "aspect", "hint"),
    [
        *(("720p", "2:1", "1280x640"), ("720p", "21:9", "1280x552"), ("720p", "1:4", "320x1280")),
        *(("1360x680", "", "1280x640"), ("100x60", "", "104x64"), ("426x240", "", "424x240")),
        *(("1281x720", "", "1280x720"), ("9000x64", "", "1280x64"), ("8x8", "", "64x64")),
    ],
)
def test_a_size_that_cannot_be_made_is_answered_with_the_nearest_of_its_shape(size, aspect, hint, folder):
    with pytest.raises(UsageError, match="sides of 64 to 1280 pixels in multiples of 8") as excinfo:
        job_of(folder, parse_size(size, aspect))
    assert excinfo.value.hint == f"try --size {hint}"
    job_of(folder, parse_size(hint))


@pytest.mark.parametrize("fps", [8, 60])
def test_the_rate_reaches_the_network(fps, folder):
    plain, other = job_of(folder), job_of(folder, fps=fps)
    model = pipeline.open_model(plain)
    (latents,), (other_latents,) = (
        pipeline.sample_latents(plain, model),
        pipeline.sample_latents(other, pipeline.open_model(other)),
    )
    assert not torch.allclose(latents, other_latents, atol=1e-4)


def test_two_prompts_in_a_batch_with_guidance_and_warped_timesteps_are_what_each_is_alone(folder):
    """The released code cannot: its ratio of a batch meets the frames."""
    prompts = ["a red balloon", "a small boat on calm water, the camera pans left"]
    job = job_of(folder, steps=2, window=10, frames=34)
    model, sigmas, schedule = pipeline.open_model(job), pipeline.make_levels(job).sigmas[:-2], job.schedule
    table, network = compute_modulation(model.transformer, 1000 * sigmas, 24), model.transformer

    def run(prompts: list[str], rows: slice) -> torch.Tensor:
        y, mask = model.model.pad_batch(model.text_encoder.encode(prompts))
        null = network.y_embedder.y_embedding[None, : y.shape[1]].expand(len(prompts), -1, -1)
        text = network.encode_text(torch.cat([y, null]), None if mask is None else mask.repeat(2, 1))
        noise = seeded_noise(1, model.noise_shape(batch=2))
        bound = batched_cfg(with_full_context(network, text, table, schedule.context, job.spec.size), 7.0)
        chunks = sample(
            schedule, bound, lambda index, step=None: noise(index, step)[rows], build_solver(sigmas), chunks=2
        )
        return torch.cat(list(chunks), dim=1)

    with torch.no_grad():
        both = run(prompts, slice(0, 2))
        apart = [run([prompt], slice(row, row + 1)) for row, prompt in enumerate(prompts)]
    assert len(both) == 2
    torch.testing.assert_close(both, torch.cat(apart), rtol=0, atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)
    assert np.isfinite(both.numpy()).all()
