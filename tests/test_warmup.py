"""The warm-up: chunks that are generated before a video and dropped, since the first ones are the worst."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.command import pavdm
from support.models import OPENSORA, POCKET
from support.requests import make_request
from support.tiers import integration

from pavdm_cli.bench import stages, steps
from pavdm_cli.commands.info import command
from pavdm_cli.errors import UsageError
from pavdm_cli.generation import memory_plan, pipeline, write
from pavdm_cli.generation.checks import resolve_warmup
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import Extension, Output, Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models import registry
from pavdm_cli.models.pixels import from_bytes

PROMPT = "a blue kite circling above the sea by day"


def job_of(frames: int, **sampling: object) -> GenerationConfig:
    return resolve(make_request(PROMPT, frames=frames, **{"steps": 6, "seed": 3} | sampling))


@pytest.fixture(scope="module")
def model():
    return pipeline.open_model(job_of(1))


def video(job: GenerationConfig, model, *args: object) -> np.ndarray:
    return np.concatenate(list(pipeline.generate_frames(job, model, *args)))


@pytest.mark.parametrize(
    ("how", "frames"),
    [
        ({"sink": 0}, 8),
        ({"method": "fifo"}, 4),
        *integration(({"context": 0}, 8), ({"method": "rn", "window": 4, "steps": 2}, 16)),
    ],
)
def test_a_warm_up_is_the_beginning_of_the_same_video(how, frames, model):
    long = video(job_of(9 + frames, warmup=0, **how), model)
    assert np.array_equal(video(job_of(9, warmup=2, **how), model), long[frames:])


def test_pocket_warms_up_and_open_sora_does_not(model):
    assert job_of(4).warmup == POCKET.warmup > 0
    assert np.array_equal(video(job_of(4), model), video(job_of(4, warmup=POCKET.warmup), model))
    assert OPENSORA.warmup == 0


def test_every_method_warms_up_for_as_many_latents(monkeypatch):
    model = replace(registry.get("pocket"), spec=replace(POCKET, warmup=3, chunk=2))
    monkeypatch.setattr(Request, "video_model", property(lambda self: model))
    counts = {name: resolve_warmup(make_request(method=name)) for name in ("pa", "fifo", "rn", "rw")}
    assert counts == {"pa": 3, "fifo": 6, "rn": 0, "rw": 0}  # the last two fill a window at once
    assert resolve_warmup(make_request(steps=3)) == 2  # chunks of four latents


def test_a_warm_up_ends_with_a_whole_group_of_the_vae(monkeypatch):
    monkeypatch.setattr(Request, "video_model", property(lambda self: registry.get("opensora-v1.2")))
    assert [resolve_warmup(make_request(method="fifo", warmup=count)) for count in (0, 1, 5, 6)] == [0, 5, 5, 10]


def test_what_follows_given_frames_has_no_warm_up(tmp_path, model):
    picture = make_request(PROMPT, frames=4, steps=6, image=tmp_path / "picture.png")
    clip = make_request(PROMPT, frames=4, steps=6, extension=Extension(tmp_path / "clip.mp4"))
    assert [resolve(request).warmup for request in (picture, clip)] == [0, 0]
    for request in (picture, clip):
        with pytest.raises(UsageError, match="starts from existing frames"):
            replace(request, warmup=1)


def test_a_start_is_followed_at_once(model):
    start = pipeline.state_after_clip(job_of(9), model, from_bytes(video(job_of(4), model)), False)
    assert np.array_equal(video(job_of(9), model, start), video(job_of(9, warmup=0), model, start))


def test_steps_and_memory_count_the_warm_up():
    plain, warmed = job_of(4, warmup=0), job_of(4, warmup=2)
    assert warmed.total_steps == plain.total_steps + 2 * plain.schedule.stride
    assert (warmed.chunks, warmed.warmup_frames) == (1, 8)
    assert (memory_plan.largest_step(plain).noisy, memory_plan.largest_step(warmed).noisy) == (2, 6)


def test_progress_counts_the_warm_up(tmp_path, model):
    job, progress = job_of(6, warmup=2), list[tuple[str, int]]()
    control = write.RunControl(
        lambda n: progress.append(("video", n)), lambda: False, on_warmup=lambda n: progress.append(("warm-up", n))
    )
    write.write_video(job, model, Output(tmp_path / "video.mp4"), control)
    assert progress[:2] == [("warm-up", 4), ("warm-up", 4)]
    assert sum(count for stage, count in progress[2:] if stage == "video") == 6  # each as soon as it is safe


def test_figures_of_speed_count_the_warm_up(model, monkeypatch):
    job = job_of(6, warmup=2)
    inputs = steps.prepare_sampling(job, model)
    assert len(steps.time_all_steps(job, model, inputs)) == job.total_steps
    watch = stages.Watch(model.device)
    assert np.array_equal(np.concatenate(list(stages.decode_timed(job, model, watch))), video(job, model))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("warm") / "video.mp4"
    result = pavdm("generate", PROMPT, "--frames", "5", "--steps", "6", "--seed", "3", "--warmup", "1", "-o", path)
    assert result.code == 0, result.err
    return path


def test_the_stored_command_repeats_the_warm_up(made):
    output = pavdm("info", made).out
    assert "--warmup 1" in output.splitlines()[-1]


def test_a_continuation_is_repeated_without_one():
    assert "--warmup" not in command({"prompt": PROMPT, "source": "a.mp4", "warmup": 0})


@pytest.mark.parametrize("count", [-1, 101, 10**9])
def test_an_absurd_warm_up_is_rejected_in_a_line(count):
    result = pavdm("generate", PROMPT, "--warmup", count)
    assert result.code == 2
    assert f"--warmup must be 0 to 100 chunks, got {count}" in result.err
