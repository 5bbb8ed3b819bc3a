"""From a request to frames: exact counts, deterministic bytes, and the common start of videos of any length."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.requests import make_request
from support.tiers import integration
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.registry import get
from pavdm_cli.models.streams import unit_stream
from pavdm_cli.sampling.noise import linear_sigmas
from pavdm_cli.sampling.schedule import pa

GOLDEN = Path(__file__).parent / "golden"
PROMPT = "a blue kite circling above the sea by day"


def job_of(frames: int, **sampling: object) -> GenerationConfig:
    """A job of a few quick steps."""
    return resolve(make_request(PROMPT, frames=frames, **{"steps": 6, "seed": 3, "warmup": 0} | sampling))


@pytest.fixture(scope="module")
def model():
    return pipeline.open_model(job_of(1))


def video(job: GenerationConfig, model) -> np.ndarray:
    return np.concatenate(list(pipeline.generate_frames(job, model)))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 17])
def test_a_video_has_exactly_the_frames_asked_for(count, model):
    assert video(job_of(count), model).shape == (count, 64, 96, 3)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(model):
    assert np.array_equal(video(job_of(9), model), video(job_of(9), model))
    assert not np.array_equal(video(job_of(9), model), video(job_of(9, seed=4), model))


@pytest.mark.parametrize("method", ["pa", *integration("rn", "rw")])
def test_a_longer_video_has_all_but_the_last_chunks_of_a_window_in_common(model, method):
    job = job_of(4 * 8, method=method)
    short, long = video(job, model), video(replace(job, frames=4 * 8 + 12), model)
    chunk = int(job.frames_per_chunk)
    same = job.chunks - job.schedule.capacity + 1
    assert (same == job.chunks) == (method != "pa")
    common = short[: chunk * same]
    assert np.array_equal(common, long[: len(common)])
    assert same == job.chunks or not np.array_equal(short[chunk * same :][:chunk], long[chunk * same :][:chunk])


def test_making_a_video_leaves_global_randomness_alone(model):
    before = torch.get_rng_state()
    video(job_of(4), model)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.integration
def test_guidance_as_it_was_taught_is_a_single_pass_and_any_other_takes_two(model):
    calls = []
    handle = model.transformer.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    taught = video(job_of(4), model)
    others = [video(job_of(4, guidance=guidance), model) for guidance in (1.0, 3.3 + 1e-12, 4.0)]
    handle.remove()
    count = len(calls) // 4
    assert set(calls[:count]) == {1}
    assert set(calls[count:]) == {2}
    nearly = np.abs(taught.astype(int) - others[1])
    assert nearly.max() <= 2
    assert not np.array_equal(others[0], others[2])


def test_guidance_goes_on_top_of_what_one_pass_gives(model):
    spec = replace(model.spec, distilled_guidance=1.0)
    assert job_of(4, guidance=6.6).guidance_scale == 2
    assert replace(job_of(4, guidance=3.0), spec=spec).guidance_scale == 3
    assert replace(job_of(4, guidance=3.0), prompt="").guidance_scale == 1


@pytest.mark.parametrize("noised", [False, True])
@pytest.mark.integration
def test_a_clip_goes_on_for_as_long_as_asked(noised, model):
    clip = from_bytes(video(job_of(24), model))
    job = job_of(10)
    frames = np.concatenate(
        list(pipeline.generate_frames(job, model, pipeline.state_after_clip(job, model, clip, noised)))
    )
    assert frames.shape == (10, 64, 96, 3)


def test_a_prompt_of_no_words_is_for_extend_alone():
    with pytest.raises(UsageError, match="empty"):
        resolve(make_request("", frames=4))


def test_frames_stream_chunk_by_chunk(model):
    sizes = [len(chunk) for chunk in pipeline.generate_frames(job_of(14), model)]
    assert sizes == [4, 4, 4, 2]


def test_latents_are_decoded_in_whole_units_whatever_the_chunk():
    chunks = list(torch.arange(13.0).view(1, 13, 1, 1, 1).split([1, 1, 1, 2, 1, 5, 2], dim=1))
    for unit, whole in ((5, 10), (1, 13)):
        calls: list[Tensor] = []
        stream = unit_stream(lambda latents, calls=calls: calls.append(latents) or latents, unit)
        frames = torch.cat([part for part in map(stream.push, chunks) if part.shape[1]], dim=1)
        assert frames.flatten().tolist() == list(range(whole))
        assert all(call.shape[1] % unit == 0 for call in calls)
        assert stream.replay == 13 - whole
        assert stream.flush().flatten().tolist() == list(range(whole, 13))
        again = unit_stream(lambda latents: latents, unit, context=torch.cat(chunks, dim=1))
        assert again.replay == 13 - whole


def test_levels_follow_size_and_window_only_where_the_model_was_trained_so():
    job = job_of(4)
    assert torch.equal(pipeline.make_levels(job).sigmas[:-2], linear_sigmas(6))
    spec = get("opensora-v1.2").spec
    paper = replace(job, video_model=get("opensora-v1.2"), spec=spec, schedule=pa(30, 30, 5))
    expected = torch.tensor(json.loads((GOLDEN / "schedule_paper.json").read_text())["t_transformed_fp32"]) / 1000
    torch.testing.assert_close(pipeline.make_levels(paper).sigmas[1:-2], expected, rtol=0, atol=1e-6)
    shorter = replace(paper, schedule=pa(30, 10, 5))
    assert (pipeline.make_levels(shorter).sigmas[1:-3] < pipeline.make_levels(paper).sigmas[1:-3]).all()
