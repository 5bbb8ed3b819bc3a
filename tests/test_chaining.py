"""Clip by clip: each clip is conditioned on the previous one, and every frame is yielded once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.decoding import decoded_frames
from support.exact import NOISE, Mixing, build_solver, clean_latents, sigmas_of
from support.requests import make_request
from support.tape import Tape
from torch import Tensor
from typer.testing import CliRunner

from pavdm_cli.app import app
from pavdm_cli.errors import UsageError
from pavdm_cli.generation import pipeline, recovery
from pavdm_cli.generation import reencode as chaining
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.reencode import with_reencoding
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.sampling.cuda_graphs import GraphCapturer
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser
from pavdm_cli.sampling.loop import denoise, sample, state_from_clip
from pavdm_cli.sampling.noise import add_noise
from pavdm_cli.sampling.schedule import rn

pytestmark = pytest.mark.usefixtures("own_cache")

PROMPT = "a red balloon drifts over green hills"
CLIP, SHOWN = 34, 17  # frames of a clip of ten latents, and of the five that the next one is shown


def job_of(folder: Path | str, frames: int = 2 * CLIP, **options: object) -> GenerationConfig:
    """Two steps a clip of ten latents."""
    sampling = {"model": str(folder), "method": "rn", "steps": 2, "window": 10, "chunk": 5, "seed": 1, "device": "cpu"}
    return resolve(make_request(PROMPT, frames=frames, size=(64, 72), **(sampling | options)))


@dataclass
class Watched:
    """Notes what a VAE is given to encode, and what it gives."""

    encode: Callable[[Tensor], Tensor]
    encoded: list[Tensor] = field(default_factory=list)
    given: list[Tensor] = field(default_factory=list)

    def __call__(self, frames: Tensor) -> Tensor:
        self.encoded.append(frames)
        self.given.append(self.encode(frames))
        return self.given[-1]


@dataclass
class Run:
    """A video, with all that its model was shown."""

    job: GenerationConfig
    vae: Watched
    video: np.ndarray
    shown: list[tuple[Tensor, int]]  # the overlap and its level, as often as it was remembered


def watch(job: GenerationConfig, monkeypatch: pytest.MonkeyPatch, clip: Tensor | None = None) -> Run:
    """Make the job's video, after a clip."""
    model = pipeline.open_model(job)
    vae, contexts, build = Watched(model.vae.encode), list[tuple[Tensor, int]](), type(model).denoiser

    def watching(self: Any, *args: Any, **options: Any) -> Denoiser:
        real = build(self, *args, **options)

        def prefill(overlap: Tensor, level: int) -> Any:
            contexts.append((overlap, level))
            return real.prefill(overlap, level)

        return FunctionDenoiser(prefill, real)

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "denoiser", watching)
        patch.setattr(model.vae, "encode", vae)
        start = None if clip is None else pipeline.state_after_clip(job, model, clip, renoise=False)
        video = np.concatenate(list(pipeline.generate_frames(job, model, start)))
    return Run(job, vae, video, contexts)


def check(run: Run) -> None:
    """Every clip but the first is shown five latents: the last 17 frames that came out before it, encoded anew."""
    whole = run.job.chunks - 1
    assert len(run.video) == run.job.frames
    assert len(run.vae.encoded) == len(run.shown) == whole
    for number, (frames, latents, (overlap, level)) in enumerate(
        zip(run.vae.encoded, run.vae.given, run.shown, strict=True), 1
    ):
        assert frames.shape[1] == SHOWN
        assert np.array_equal(to_bytes(frames[0]), run.video[CLIP * number - SHOWN : CLIP * number])
        assert overlap.shape[1] == 5
        assert torch.equal(overlap, latents)
        assert level == 0


@pytest.mark.integration
@pytest.mark.parametrize("frames", [1, CLIP, CLIP + 1, 80])
def test_open_sora_goes_from_clip_to_clip_by_its_last_frames_encoded_again(frames, folder, monkeypatch):
    check(watch(job_of(folder, frames), monkeypatch))


def first_group(model: Any, latents: Tensor) -> Tensor:
    return model.encode(model.decode(latents).roll(1, dims=1))


def not_at_all(model: Any, latents: Tensor) -> Tensor:
    return latents


def once_more(model: Any, latents: Tensor) -> Tensor:
    return real_again(model, real_again(model, latents))


def half(model: Any, latents: Tensor) -> Tensor:
    return model.encode(model.decode(latents)[:, -9:])


real_again = chaining.reencode


@pytest.mark.integration
@pytest.mark.parametrize("bug", [first_group, not_at_all, once_more, half])
def test_frames_encoded_otherwise_are_caught(bug, folder, monkeypatch):
    monkeypatch.setattr(recovery, "reencode", bug)
    with pytest.raises((AssertionError, RuntimeError)):
        check(watch(job_of(folder), monkeypatch))


def test_a_memory_that_outlives_its_clip_is_caught(folder, monkeypatch):
    def stale(denoiser: Denoiser, again: Any, start: Any = None) -> Denoiser:
        encodings: list[Any] = []
        return with_reencoding(
            denoiser,
            lambda latents: encodings[0] if encodings else encodings.append(again(latents)) or encodings[0],
            start,
        )

    monkeypatch.setattr(pipeline, "with_reencoding", stale)
    with pytest.raises(AssertionError):
        check(watch(job_of(folder, 3 * CLIP), monkeypatch))


def test_a_given_clip_is_encoded_once_and_shown_as_it_was(folder, monkeypatch):
    clip = torch.rand(SHOWN, 3, 64, 72, generator=torch.Generator().manual_seed(2))
    run = watch(job_of(folder), monkeypatch, clip)
    assert torch.equal(run.vae.encoded[0][0], clip)
    assert [frames.shape[1] for frames in run.vae.encoded] == [SHOWN, SHOWN]
    assert all(torch.equal(made, shown) for made, (shown, _) in zip(run.vae.given, run.shown, strict=True))


@pytest.mark.usefixtures("graph_capturer")
@pytest.mark.integration
def test_the_seed_alone_decides_and_a_longer_video_has_all_clips_of_a_shorter_one(folder):
    model = pipeline.open_model(job_of(folder))

    def make(**options: Any) -> Tensor:
        return torch.stack(list(pipeline.sample_latents(job_of(folder, **{"window": 5} | options), model)))

    short = make(frames=34)
    assert torch.equal(short, make(frames=34))
    assert torch.equal(short, make(frames=51)[:2])
    assert not torch.equal(short[0], make(frames=17, seed=2)[0])
    with_latents, edited = make(frames=34, reencode=False), make(frames=34, edit_ratio=0.6)
    assert torch.equal(short[0], with_latents[0])
    assert not torch.allclose(short[1], with_latents[1], atol=1e-3)
    assert torch.equal(short[0], edited[0])
    assert not torch.allclose(short[1], edited[1], atol=1e-3)
    assert torch.equal(edited, make(frames=51, edit_ratio=0.6)[:2])


@pytest.fixture(params=["eager", "replayed"])
def graph_capturer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A job's steps made one by one, or recorded on the tape and replayed; those of edit ratios never are."""
    capturers: list[GraphCapturer] = []
    if request.param == "replayed":
        monkeypatch.setattr(
            pipeline, "choose_graphs", lambda *args: capturers.append(GraphCapturer(Tape())) or capturers[-1]
        )
    yield
    assert not capturers or {capturer.count > 0 for capturer in capturers} == {True, False}


def anew(latents: Tensor) -> Tensor:
    """Stands for decoding and encoding: not the same latents, and applied twice not the same either."""
    return torch.tanh(latents) + 0.5


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("num_given", [0, 2])
def test_going_on_from_any_saved_state_encodes_the_same_frames(num_given):
    schedule = rn(4, 5, 2)
    sigmas = sigmas_of(schedule)
    start = state_from_clip(schedule, clean_latents(range(-num_given, 0)), sigmas) if num_given else None

    def run(state: Any, **how: Any) -> list[Tensor]:
        return list(
            sample(
                schedule,
                with_reencoding(Mixing(), anew, state),
                NOISE,
                build_solver(sigmas),
                chunks=4,
                start=state,
                **how,
            )
        )

    whole = run(start, graph_capturer=None)
    for state in denoise(
        schedule, with_reencoding(Mixing(), anew, start), NOISE, build_solver(sigmas), chunks=4, start=start
    ):
        assert all(torch.equal(a, b) for a, b in zip(run(state)[::-1], whole[::-1], strict=False))


@pytest.mark.integration
def test_under_rw_open_sora_is_shown_latents_noised_again_at_every_step(folder, monkeypatch):
    run = watch(job_of(folder, method="rw"), monkeypatch)
    assert run.vae.encoded == []
    assert [level for _, level in run.shown] == [2, 1]
    assert len(run.video) == run.job.frames
    model = pipeline.open_model(run.job)
    before = next(pipeline.sample_latents(run.job, model))[:, -5:]
    sigmas, noise = pipeline.make_levels(run.job).sigmas, pipeline.seeded_noise(1, model.noise_shape())
    for now, (overlap, level) in enumerate(run.shown, 2):
        fresh = torch.stack([noise(index, now) for index in range(5, 10)], dim=1)
        torch.testing.assert_close(overlap, add_noise(before, fresh, sigmas[level]))
    longer = replace(run.job, frames=3 * CLIP)
    assert np.array_equal(np.concatenate(list(pipeline.generate_frames(longer, model)))[: 2 * CLIP], run.video)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pa", "edit_ratio": 0.3}, "--edit-ratio only applies to --method rn, not pa"),
        ({"method": "rw", "reencode": True}, "--reencode only applies to --method rn, not rw"),
        ({"edit_ratio": 1.0}, "at least 0 and below 1"),
        ({"edit_ratio": float("nan")}, "at least 0 and below 1"),
        ({"reencode": True, "window": 12}, "encodes 5 latents together"),
    ],
)
def test_incompatible_options_are_rejected(options, message, folder):
    with pytest.raises(UsageError, match=message):
        job_of(folder, **options)


def test_latents_that_are_no_whole_groups_stay_as_they_are_and_a_note_says_so(folder, monkeypatch):
    job = job_of(folder, window=12)
    assert any("latents without re-encoding" in note for note in job.notes)
    assert watch(job, monkeypatch).vae.encoded == []
    assert not any(
        "latents without re-encoding" in note for note in job_of(folder).notes + job_of(folder, reencode=False).notes
    )


@pytest.mark.integration
def test_the_command_line_chains_clips_and_info_gives_the_command_again(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--size", "72x64", "--method", "rn", "--steps", "2", "--window", "5", "--seed", "1", "--frames", "20")
    more = ("--edit-ratio", "0.5", "--threads", "1", "--json", "-o", "v.mp4")
    run = CliRunner()
    result = run.invoke(app, ["generate", PROMPT, "--model", str(folder), *words, *more])
    assert result.exit_code == 0, result.output
    metadata = json.loads(result.stdout)["metadata"]
    assert (metadata["reencode"], metadata["edit_ratio"]) == (True, 0.5)
    command = shlex.split(run.invoke(app, ["info", "v.mp4"]).stdout.strip().splitlines()[-1])
    assert any(pair == ("--edit-ratio", "0.5") for pair in pairwise(command))
    assert "--reencode" in command
    assert run.invoke(app, [*command[1:], "-o", "again.mp4"]).exit_code == 0
    again, before = decoded_frames(tmp_path / "again.mp4").astype(int), decoded_frames(tmp_path / "v.mp4")
    assert again.shape == before.shape
    assert np.abs(again - before).mean() < 1  # an encoder may decide a block otherwise
