"""Image to video: frame 0 is the image, the model is conditioned on it, and the video continues from it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.clips import corners
from support.command import pavdm
from support.decoding import decoded_frames
from support.exact import NOISE, Exact, Mixing, assert_same, build_solver, clean_latents, joined, sigmas_of
from support.requests import make_request
from support.tiers import integration
from test_video_image import write

from pavdm_cli.errors import UsageError
from pavdm_cli.generation import image_start, pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.sampling import loop
from pavdm_cli.sampling.loop import denoise, sample, state_from_first_latents
from pavdm_cli.sampling.schedule import Schedule, fifo, pa, rn
from pavdm_cli.video import StillImage, read_image, scale_to_cover

pytestmark = pytest.mark.usefixtures("own_cache")

SCHEDULES = {
    "pa": pa(6, 6, 2),
    "pa-no-overlap": pa(6, 6, 2, context=False),
    "pa-widened": pa(2, 8, 2),
    "rn": rn(4, 5, 2),
    "fifo": fifo(4, 4, 2),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


class Holding(Exact):
    """Also told how many latents at the very beginning are given: they are shown clean, at level 0."""

    held = 1

    def __call__(self, window, levels, memory, /):
        schedule, first = self.schedule, self.active_chunks()[0][0]
        num_held = self.held if first == 0 else 0
        assert_same(window[:, :num_held], clean_latents(range(num_held)))
        assert levels[:num_held].tolist() == [0] * num_held
        level = schedule.level(first, self.now)
        noise = torch.stack([self.noise(index) for index in range(num_held)], dim=1) if num_held else window[:, :0]
        mixed = self.mix(clean_latents(range(num_held)), noise.double(), level)
        seen = torch.cat([mixed, window[:, num_held:]], dim=1)
        return super().__call__(seen, torch.cat([levels.new_full((num_held,), level), levels[num_held:]]), memory)


def run_held(schedule: Schedule, held: int, chunks: int = 4) -> torch.Tensor:
    sigmas = sigmas_of(schedule)
    checker = Holding(schedule, NOISE, sigmas, chunks)
    checker.held = held
    start = state_from_first_latents(schedule, clean_latents(range(held)), NOISE, sigmas)
    out = joined(list(sample(schedule, checker, NOISE, build_solver(sigmas), chunks=chunks, start=start)))
    assert checker.now == schedule.total_steps(chunks)
    return out


@every_schedule
@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("held", [1, 2])
def test_given_latents_are_shown_clean_in_the_first_chunk_and_come_out_with_it(schedule, held):
    held = min(held, schedule.chunk)
    assert_same(run_held(schedule, held), clean_latents(schedule.latents(range(4))))


def at_the_level_of_its_chunk(schedule, *rest):
    return replace(state_from_first_latents(schedule, *rest), num_fixed=0)


def noise_for_the_first(schedule, first, noise, sigmas):
    return state_from_first_latents(schedule, torch.zeros_like(first), noise, sigmas)


def held_for_ever(state, *rest):
    return replace(real_move_on(state, *rest), num_fixed=state.num_fixed)


real_move_on = loop.shift_window


@pytest.mark.parametrize("bug", [at_the_level_of_its_chunk, noise_for_the_first])
@every_schedule
def test_a_given_latent_shown_otherwise_is_caught(schedule, bug):
    sigmas = sigmas_of(schedule)
    checker = Holding(schedule, NOISE, sigmas, 3)
    start = bug(schedule, clean_latents(range(1)), NOISE, sigmas)
    with pytest.raises(AssertionError):
        list(sample(schedule, checker, NOISE, build_solver(sigmas), chunks=3, start=start))


@every_schedule
def test_a_latent_held_after_its_chunk_has_left_is_caught(schedule, monkeypatch):
    monkeypatch.setattr(loop, "shift_window", held_for_ever)
    with pytest.raises(AssertionError):
        run_held(schedule, 1)


@every_schedule
@pytest.mark.usefixtures("either_way")
def test_going_on_from_any_state_gives_the_same_bytes(schedule):
    sigmas = sigmas_of(schedule)
    start = state_from_first_latents(schedule, clean_latents(range(1)), NOISE, sigmas)
    whole = list(sample(schedule, Mixing(), NOISE, build_solver(sigmas), chunks=3, start=start))
    for state in denoise(schedule, Mixing(), NOISE, build_solver(sigmas), chunks=3, start=start):
        rest = list(sample(schedule, Mixing(), NOISE, build_solver(sigmas), chunks=3, start=state))
        assert all(torch.equal(a, b) for a, b in zip(rest[::-1], whole[::-1], strict=False))


# Whole pictures.


def picture(height: int = 90, width: int = 120) -> StillImage:
    return StillImage(Path("p.png"), corners(height, width), "0" * 16, ())


@pytest.fixture(scope="module")
def opensora(folder: Path) -> Path:
    return folder


def job_of(
    model: Path | str, frames: int, prompt: str = "a red balloon over green hills", **options: object
) -> GenerationConfig:
    """A few quick steps of either model."""
    sampling = {"model": str(model), "steps": 6, "seed": 1, "device": "cpu"} | options
    return resolve(make_request(prompt, frames=frames, size=None if model == "pocket" else (64, 72), **sampling))


def video(job: GenerationConfig, model=None, still: StillImage | None = None) -> np.ndarray:
    return np.concatenate(
        list(image_start.frames_from_image(job, model or pipeline.open_model(job), still or picture()))
    )


@pytest.mark.parametrize("method", ["pa", *integration("rn", "rw", "fifo")])
@pytest.mark.parametrize("name", ["pocket", "opensora"])
def test_frame_0_is_the_picture_and_every_method_continues(name, method, opensora):
    options = {"steps": 2, "window": 10, "chunk": 5} if name == "opensora" else {"steps": 2, "window": 4}
    job = job_of("pocket" if name == "pocket" else opensora, 20, method=method, **options)
    frames = video(job)
    assert frames.shape == (20, *job.spec.size, 3)
    assert np.array_equal(frames[0], scale_to_cover(picture().frame, job.spec.size))


@pytest.mark.parametrize("count", [1, 4, 5])
def test_there_are_as_many_frames_as_asked_for(count):
    assert len(video(job_of("pocket", count))) == count


def test_the_first_chunk_is_that_of_a_longer_video_and_the_picture_matters(opensora):
    job = job_of(opensora, 51, steps=2, window=10)
    model = pipeline.open_model(job)
    long, short = video(job, model), video(replace(job, frames=34), model)
    assert np.array_equal(long[:17], short[:17])
    other = video(replace(job, frames=34), model, replace(picture(), frame=picture().frame[::-1]))
    assert not np.array_equal(other[1:17], short[1:17])
    assert not np.array_equal(other[17:], short[17:])


def test_open_sora_is_shown_a_picture_as_one_latent_in_the_group_it_begins(opensora):
    job = job_of(opensora, 17)
    model = pipeline.open_model(job)
    frame = scale_to_cover(picture().frame, job.spec.size)[None]
    start = image_start.state_from_image(job, model, frame)
    assert (start.num_fixed, start.window.shape[1], start.context.shape[1]) == (1, 5, 0)
    alone = model.vae.encode(torch.from_numpy(frame).movedim(-1, -3)[None].float() / 255)
    assert torch.equal(start.window[:, :1], alone)
    chunk = next(pipeline.sample_latents(job, model, start))
    assert torch.equal(chunk[:, :1], alone)


def test_pocket_is_shown_a_picture_as_a_still_clean_chunk():
    job = job_of("pocket", 9)
    start = image_start.state_from_image(
        job, pipeline.open_model(job), scale_to_cover(picture().frame, job.spec.size)[None]
    )
    assert (start.num_fixed, start.window.shape[1], start.context.shape[1]) == (0, 0, 2)
    assert torch.equal(start.context[:, 0], start.context[:, 1])


def test_pocket_continues_from_a_picture_of_its_own_world():
    """The next frame is nearer to the picture than one that knew nothing of it."""
    job = job_of("pocket", 9, steps=12)
    model = pipeline.open_model(job)
    own = next(pipeline.generate_frames(job_of("pocket", 4, "a blue kite over the sea at night", steps=12), model))[-1]
    frames = video(job, model, replace(picture(), frame=own))
    alone = np.concatenate(list(pipeline.generate_frames(job, model)))
    assert np.abs(frames[1].astype(int) - own).mean() < np.abs(alone[1].astype(int) - own).mean() / 2


def test_a_picture_that_would_never_be_shown_is_rejected(opensora):
    with pytest.raises(UsageError, match="--context 0"):
        image_start.notes(job_of("pocket", 9, context=0), picture())
    assert image_start.notes(job_of(opensora, 9, context=0), picture()) == []
    assert "its own rendered world" in image_start.notes(job_of("pocket", 9), picture())[-1]


def test_a_picture_read_from_a_file_is_fitted_as_a_video_is(tmp_path):
    still = read_image(write(tmp_path / "p.png", corners(90, 200)))
    frames = video(job_of("pocket", 2), still=still)
    assert np.array_equal(frames[0], scale_to_cover(corners(90, 200), (64, 96)))


def test_the_command_line_takes_a_picture_and_info_gives_the_command_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "my picture.jpg", corners(90, 120))
    words = ("--frames", "6", "--seed", "5", "--steps", "6", "--threads", "1", "--scale", "1", "--json")
    result = pavdm("generate", "a red ball over hills", "--image", "my picture.jpg", *words, "-o", "v.mp4")
    assert result.code == 0, result.err
    assert "the video redraws the image in it" in result.err
    metadata = json.loads(result.out)["metadata"]
    assert (metadata["image"], metadata["frames"]) == (str(path), 6)
    assert metadata["image_digest"] == read_image(path).digest
    frames = decoded_frames(tmp_path / "v.mp4")
    assert len(frames) == 6
    assert np.abs(frames[0].astype(int) - scale_to_cover(read_image(path).frame, (64, 96))).mean() < 4
    command = shlex.split(pavdm("info", "v.mp4").out.strip().splitlines()[-1])
    assert pavdm(*command[1:], "-o", "again.mp4").code == 0
    assert np.array_equal(decoded_frames(tmp_path / "again.mp4"), frames)


@pytest.mark.integration
def test_open_sora_begins_with_a_picture_and_continues_noised_by_the_command_line(opensora, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "p.png", corners(64, 72))
    small = ("--model", opensora, "--size", "72x64", "--steps", "2", "--window", "10", "--threads", "1", "--json")
    result = pavdm("generate", "a boat", "--image", "p.png", "--method", "rw", "--frames", "34", *small, "-o", "v.mp4")
    assert result.code == 0, result.err
    assert json.loads(result.out)["metadata"]["method"] == "rw"
    frames = decoded_frames(tmp_path / "v.mp4")
    assert frames.shape == (34, 64, 72, 3)
    assert np.abs(frames[0].astype(int) - corners(64, 72)).mean() < 4
    ways = {}
    for start in ("clip", "noised"):
        result = pavdm("extend", "v.mp4", "--start", start, "--only-new", "--frames", "3", "--seed", "1", *small,
                     "-o", f"{start}.mp4")  # fmt: skip
        assert result.code == 0, result.err
        ways[start] = decoded_frames(tmp_path / f"{start}.mp4")
    assert ways["noised"].shape == (3, 64, 72, 3)
    assert not np.array_equal(*ways.values())


def test_an_invalid_image_is_rejected_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letter.png").write_text("a letter")
    result = pavdm("generate", "a red ball", "--image", "letter.png")
    assert (result.code, result.out) == (3, "")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.png"]
