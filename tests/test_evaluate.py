"""The bars: real videos pass them, and every corruption fails the bar that should detect it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.models import find
from support.requests import make_request
from torch import Tensor

from pavdm_cli.evaluation import bars, corruptions, metrics, probe, probe_training
from pavdm_cli.evaluation.bars import Bar, ChunkTiming
from pavdm_cli.evaluation.probe import ATTRIBUTES, COUNTS, Probe
from pavdm_cli.evaluation.videos import FIELDS, PARTIAL, Video, VideoSet, generate_videos, render_videos, scene_prompt
from pavdm_cli.models.pixels import from_bytes, to_bytes
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import VAE_FILE
from pavdm_cli.models.pocket.transformer import Pocket, PocketConfig
from pavdm_cli.models.pocket.vae import PocketVAE, PocketVAEConfig
from pavdm_cli.pocket_world.parse import parse
from pavdm_cli.pocket_world.render import Canvas, canvas, render
from pavdm_cli.pocket_world.vocabulary import MOTION_PHRASES
from pavdm_cli.pocket_world.world import Scene, sample_scene

TIMING = ChunkTiming(chunk=4, fps=8.0)
LENGTH = 32  # frames
SEEDS = range(40, 46)
CANVAS = canvas((64, 96), 0.3)

Renderer = Callable[[list[Scene], Tensor, Canvas], Tensor]


@pytest.fixture(scope="module")
def shipped() -> Probe:
    return probe.load(probe.SHIPPED)


@pytest.fixture(scope="module")
def real() -> list[Video]:
    return list(render_videos(VideoSet(SEEDS, LENGTH / TIMING.fps)))


@pytest.fixture(scope="module")
def vae() -> PocketVAE:
    return checkpoint.load_vae(find("pocket").folder / VAE_FILE)


def times(count: int = LENGTH) -> Tensor:
    return torch.arange(count)[None] / TIMING.fps


def corrupt(real: list[Video], renderer: Renderer, seconds: Tensor | None = None) -> list[Video]:
    """The same scenes, rendered with a corruption or at other times."""
    seconds = times() if seconds is None else seconds
    return [replace(v, frames=to_bytes(renderer([v.scene], seconds, CANVAS)[0])) for v in real]


def render_plain(scenes: list[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    return render(scenes, seconds, on).frames


def duplicate(scenes: list[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    return corruptions.duplicate_objects(scenes, seconds, on, random.Random(1))


def fade(scenes: list[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    return corruptions.fade_objects(scenes, seconds, on, 0.3)


def smear(scenes: list[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    return corruptions.smear_objects(scenes, seconds, on, 0.45)


def cut(scenes: list[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    return corruptions.cut_objects(scenes, seconds, on, 0.3)


def failures(results: list[Bar]) -> set[str]:
    return {bar.name for bar in results if not bar.passed}


def test_real_videos_pass_every_bar(shipped: Probe, real: list[Video]) -> None:
    assert failures(bars.video_bars(shipped, real, real, TIMING)) == set()


def test_the_stored_probe_reads_real_clips(shipped: Probe) -> None:
    accuracy = probe_training.clip_accuracy(shipped, range(60, 92), 0.3)
    assert min(accuracy.values()) >= 0.9, "the world has changed: train the probe again (benchmarks/pocket_bars.py)"


@pytest.mark.parametrize("renderer", [corruptions.remove_objects, duplicate, fade, smear, cut])
def test_missing_or_corrupted_objects_fail_the_count(shipped: Probe, real: list[Video], renderer: Renderer) -> None:
    assert "frames with exactly one object" in failures(bars.video_bars(shipped, corrupt(real, renderer), real, TIMING))


@pytest.mark.parametrize(("missing", "is_detected"), [(slice(0, 4), True), (slice(1, 4), False), (slice(8, 12), False)])
def test_an_object_missing_at_the_start_fails(
    shipped: Probe, real: list[Video], missing: slice, is_detected: bool
) -> None:
    empty = corrupt(real, corruptions.remove_objects)
    videos = [replace(v, frames=v.frames.copy()) for v in real]
    for video, other in zip(videos, empty, strict=True):
        video.frames[missing] = other.frames[missing]
    failed = failures(bars.video_bars(shipped, videos, real, TIMING))
    assert ("videos without an object in frame 0" in failed) == is_detected
    assert ("first 8 frames with exactly one object" in failed) == (missing.start < 8)


def test_motion_frozen_inside_chunks_fails(shipped: Probe, real: list[Video]) -> None:
    videos = corrupt(real, render_plain, corruptions.freeze_chunks(times(), TIMING.chunk))
    failed = failures(bars.video_bars(shipped, videos, real, TIMING))
    assert failed >= {"change inside chunks, of real", "boundary ratio, of real"}


def test_a_still_video_fails_motion(shipped: Probe, real: list[Video]) -> None:
    videos = corrupt(real, render_plain, corruptions.freeze_chunks(times(), LENGTH))
    failed = failures(bars.video_bars(shipped, videos, real, TIMING))
    assert failed >= {"change inside chunks, of real", "motion accuracy"}


def test_a_jump_at_chunk_boundaries_fails(shipped: Probe, real: list[Video]) -> None:
    videos = corrupt(real, render_plain, corruptions.jump_between_chunks(times(), TIMING.chunk, 0.5))
    assert "boundary ratio, of real" in failures(bars.video_bars(shipped, videos, real, TIMING))


@pytest.mark.parametrize("attribute", ["terrain", "time", "object", "color"])
def test_a_video_of_another_scene_fails(shipped: Probe, real: list[Video], attribute: str) -> None:
    def other(scene: Scene) -> Scene:
        values = [v for v in ATTRIBUTES[attribute] if v not in (getattr(scene, attribute), "boat")]
        return replace(scene, **{attribute: values[0]})

    videos = corrupt(real, lambda s, t, on: render_plain([other(scene) for scene in s], t, on))
    assert f"{attribute} accuracy" in failures(bars.video_bars(shipped, videos, real, TIMING))


def test_a_reversed_camera_motion_fails(shipped: Probe, real: list[Video]) -> None:
    opposite = {"left": "right", "right": "left", "still": "left"}
    videos = corrupt(real, lambda s, t, on: render_plain([replace(x, camera=opposite[x.camera]) for x in s], t, on))
    assert failures(bars.video_bars(shipped, videos, real, TIMING)) >= {
        "camera accuracy",
        "camera accuracy over land, by registration",
    }


def night_pans() -> list[Video]:
    """Pans over land at night, and one still."""
    return [video for seed in (6, 7, 66, 73) for video in render_videos(VideoSet(range(seed, seed + 1), 5.0))]


def test_camera_motion_is_measured_at_night_and_through_the_vae(vae) -> None:
    videos = night_pans()
    assert {(v.scene.time, v.scene.camera) for v in videos} >= {("night", way) for way in ("left", "right", "still")}
    stripes = 4 * (torch.arange(96) % 2) - 2  # of 255
    for change in (
        lambda pixels: vae.decode(vae.encode(pixels[None]))[0],
        lambda pixels: pixels + stripes / 255,
    ):
        assert bars.camera_accuracy([replace(v, frames=to_bytes(change(v.pixels()).clamp(0, 1))) for v in videos]) == 1
    assert bars.camera_accuracy([replace(v, frames=v.frames[:12]) for v in videos]) == 1
    still = [replace(v, frames=v.frames[:1].repeat(40, axis=0)) for v in videos]
    assert bars.camera_accuracy(still) == sum(v.scene.camera == "still" for v in videos) / len(videos)
    assert bars.camera_accuracy([replace(v, frames=v.frames[::-1]) for v in videos]) == bars.camera_accuracy(still)


@pytest.mark.integration
def test_a_long_real_video_does_not_degrade(shipped: Probe) -> None:
    results = bars.long_video_bars(shipped, minute_ends(range(16)), minute_ends(range(20, 36)), TIMING, 32)
    assert all(b.name.startswith("drift") and b.value < 1.25 for b in results if not b.passed)  # 0.8, and noise


@pytest.mark.integration
def test_fading_and_late_duplicates_fail(shipped: Probe) -> None:
    many = minute_ends(range(20, 36))
    faded = [replace(v, frames=to_bytes(corruptions.fade_to_white(v.pixels(), 0.5))) for v in minute_ends()]
    failed = failures(bars.long_video_bars(shipped, faded, many, TIMING, 32))
    assert failed >= {f"drift of {aspect}, z" for aspect in ("brightness", "contrast", "saturation")}
    assert "one object, last seconds minus first" in failures(
        bars.long_video_bars(shipped, late_duplicates(), many, TIMING, 32)
    )


def minute_ends(seeds: range = range(6)) -> list[Video]:
    return list(render_videos(VideoSet(seeds, 60.0), spans=32))


def late_duplicates() -> list[Video]:
    seconds = torch.arange(448, 480)[None] / TIMING.fps
    videos = minute_ends()
    for video in videos:
        video.frames[32:] = to_bytes(duplicate([video.scene], seconds, CANVAS)[0])
    return videos


def test_a_vae_that_freezes_motion_fails(vae: PocketVAE) -> None:
    class Freezing(PocketVAE):
        def decode(self, latents: Tensor) -> Tensor:
            return super().decode(latents)[:, ::4].repeat_interleave(4, dim=1)

    freezing = Freezing(vae.config)
    freezing.load_state_dict(vae.state_dict())
    name = "motion unevenness of the VAE"
    plain, frozen = ({b.name: b.value for b in bars.vae_bars(c, range(4), TIMING)} for c in (vae, freezing))
    assert plain["PSNR at 96x64, dB"] > 31
    assert plain[name] < 0.5 < frozen[name]


def test_nan_misses_every_bar() -> None:
    assert not Bar("nothing", float("nan"), low=0).passed
    assert Bar("at most", 1.0, high=1.5).row() == {"value": 1.0, "high": 1.5, "passed": True}


def test_a_profile_separates_boundaries_from_insides() -> None:
    levels = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11, 16.0]) / 20
    profile = metrics.profile(levels[:, None, None, None].expand(-1, 3, 4, 4), 4)
    assert profile.tolist() == pytest.approx([0.05, 0.05, 0.05, 0.25])
    assert metrics.boundary_ratio(profile) == pytest.approx(5)
    assert metrics.max_relative_deviation(profile, torch.full((4,), 0.05)) == pytest.approx(4)


def test_drift_is_in_standard_deviations_of_real_videos() -> None:
    real_drifts = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * 0.02
    assert metrics.z_scores(torch.full((1, 4), 0.2), real_drifts).min() > 5
    assert metrics.appearance_drift(torch.rand(1, 3, 8, 8).expand(20, -1, -1, -1), 5).abs().max() < 1e-6


def test_an_unmentioned_motion_is_not_requested() -> None:
    videos = [Video(sample_scene(s), scene_prompt(s), to_bytes(torch.zeros(1, 3, 8, 8))) for s in range(80)]
    without_motion = [v for v in videos if "motion" not in v.requested]
    assert 0 < len(without_motion) < 20
    assert all(not any(w in v.prompt for w in MOTION_PHRASES[v.scene.motion]) for v in without_motion)


@pytest.mark.parametrize(("name", "kinds"), PARTIAL.items())
def test_partial_prompts_mention_only_their_kinds(name: str, kinds: tuple[str, ...]) -> None:
    for seed in range(60):
        prompt, scene = scene_prompt(seed, kinds), sample_scene(seed)
        assert parse(prompt).slots.keys() == {*kinds}
        assert parse(prompt).unused_words == parse(prompt).notes == ()
        video = Video(scene, prompt, to_bytes(torch.zeros(1, 3, 8, 8)))
        requested = {FIELDS[kind]: getattr(scene, FIELDS[kind]) for kind in kinds}
        assert video.requested == {"camera": "still", "weather": "clear"} | requested
    assert scene_prompt(11, ("object",)) == "a moth"


def test_partial_prompt_bars_separate_real_videos(shipped: Probe, real: list[Video]) -> None:
    prompted = [replace(video, prompt=scene_prompt(seed, ("object",))) for seed, video in zip(SEEDS, real, strict=True)]
    other = [
        replace(video, frames=prompted[(index + 2) % len(prompted)].frames) for index, video in enumerate(prompted)
    ]
    groups = {"right": prompted, "other": other, "doubled": corrupt(prompted, duplicate)}
    failed = failures(bars.partial_bars(shipped, groups, TIMING))
    assert failed >= {"object accuracy, other", "exactly one object, doubled"}
    assert not failed & {"object accuracy, right", "exactly one object, right"}


def test_clips_cover_the_whole_video() -> None:
    video = torch.arange(80.0)[:, None, None, None].expand(-1, 3, 2, 2)
    clips = probe.split_into_clips(video, 8.0)
    assert clips[:, 0, 0, 0, 0].tolist() == [0, 32, 48]
    assert clips[-1, -1, 0, 0, 0] == 78


def test_an_untrained_probe_is_not_reliable() -> None:
    assert not bars.is_reliable(Probe().eval(), range(8))


def test_frame_batches_contain_every_class() -> None:
    batch = probe_training.frame_batch(range(16), 0.3)
    assert batch.counts.bincount().tolist() == [4] * len(COUNTS)
    whole = render([sample_scene(s) for s in range(16)], torch.zeros(16, 1), CANVAS)
    missing = corruptions.remove_objects([sample_scene(s) for s in range(16)], torch.zeros(16, 1), CANVAS)
    assert torch.equal(*(f.where(whole.mask[:, :, None] == 0, torch.zeros(())) for f in (whole.frames, missing)))


def test_probe_training_is_deterministic_and_round_trips(tmp_path: Path, vae: PocketVAE) -> None:
    config = probe_training.ProbeTraining(clip_steps=1, clips=2, frame_steps=2, frames=4)
    state = torch.get_rng_state()
    first, second = (probe_training.train(vae, config, lambda name, step, loss: None) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    loaded = probe.load(probe.save(first, tmp_path / "probe.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    torch.testing.assert_close(dict(loaded.state_dict()), dict(first.state_dict()), rtol=2e-3, atol=1e-4)


def test_videos_come_from_the_given_weights(tmp_path: Path) -> None:
    checkpoint.save(PocketVAE(PocketVAEConfig()), tmp_path / "vae.safetensors", {})
    checkpoint.save(Pocket(PocketConfig()), tmp_path / "denoiser.safetensors", {})
    video_set = VideoSet(range(2), 0.5, tmp_path, make_request("a ball", steps=6, device="cpu"))
    videos = list(generate_videos(video_set))
    assert [v.prompt for v in videos] == [scene_prompt(0), scene_prompt(1)]
    assert [v.frames.shape for v in videos] == [(4, 64, 96, 3)] * 2
    assert torch.equal(videos[0].pixels(), from_bytes(videos[0].frames))
