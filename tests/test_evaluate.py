"""The bars: real videos pass them, and every planted failure moves the figure that should catch it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pavdm_cli.evaluation import bars, corruptions, metrics, probe, probe_training
from pavdm_cli.evaluation.bars import Bar, Rhythm
from pavdm_cli.evaluation.probe import ATTRIBUTES, COUNTS, Probe
from pavdm_cli.evaluation.videos import FIELDS, PARTIAL, Video, Wanted, generated, prompt_of, real
from pavdm_cli.generation.request import Sampling
from pavdm_cli.models.pixels import from_bytes, to_bytes
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.transformer import Pocket, PocketConfig
from pavdm_cli.models.pocket.vae import CodecConfig, PocketCodec
from pavdm_cli.models.specs import find
from pavdm_cli.pocket_world.parse import parse
from pavdm_cli.pocket_world.render import Canvas, canvas, render
from pavdm_cli.pocket_world.vocabulary import MOTION_WORDINGS
from pavdm_cli.pocket_world.world import Scene, sample_scene

RHYTHM = Rhythm(chunk=4, fps=8.0)
LENGTH = 32  # frames
SEEDS = range(40, 46)
KEPT = Path(__file__).parent.parent / "benchmarks" / "probe.safetensors"
ON = canvas((64, 96), 0.3)

Painter = Callable[[list[Scene], Tensor, Canvas], Tensor]


@pytest.fixture(scope="module")
def reader() -> Probe:
    return probe.load(KEPT)


@pytest.fixture(scope="module")
def true() -> list[Video]:
    return list(real(Wanted(SEEDS, LENGTH / RHYTHM.fps)))


@pytest.fixture(scope="module")
def codec() -> PocketCodec:
    return checkpoint.load_codec(find("pocket").codec)


def times(count: int = LENGTH) -> Tensor:
    return torch.arange(count)[None] / RHYTHM.fps


def planted(true: list[Video], paint: Painter, seconds: Tensor | None = None) -> list[Video]:
    """The same videos, painted another way or at other times."""
    seconds = times() if seconds is None else seconds
    return [replace(v, frames=to_bytes(paint([v.scene], seconds, ON)[0])) for v in true]


def truth(scenes: list[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    return render(scenes, seconds, on).frames


def twice(scenes: list[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    return corruptions.doubled(scenes, seconds, on, random.Random(1))


def ghost(scenes: list[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    return corruptions.faded(scenes, seconds, on, 0.3)


def smear(scenes: list[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    return corruptions.smeared(scenes, seconds, on, 0.45)


def half(scenes: list[Scene], seconds: Tensor, on: Canvas) -> Tensor:
    return corruptions.halved(scenes, seconds, on, 0.3)


def missed(found: list[Bar]) -> set[str]:
    return {bar.name for bar in found if not bar.passed}


def test_real_videos_pass_every_bar(reader: Probe, true: list[Video]) -> None:
    assert missed(bars.video_bars(reader, true, true, RHYTHM)) == set()


def test_the_kept_probe_reads_real_clips(reader: Probe) -> None:
    accuracy = probe_training.clip_accuracy(reader, range(60, 92), 0.3)
    assert min(accuracy.values()) >= 0.9, "the world has changed: train the probe again (benchmarks/pocket_bars.py)"


@pytest.mark.parametrize("paint", [corruptions.missing, twice, ghost, smear, half])
def test_a_missing_doubled_or_spoilt_object_is_not_one(reader: Probe, true: list[Video], paint: Painter) -> None:
    assert "frames with exactly one object" in missed(bars.video_bars(reader, planted(true, paint), true, RHYTHM))


@pytest.mark.parametrize(("gone", "caught"), [(slice(0, 4), True), (slice(1, 4), False), (slice(8, 12), False)])
def test_an_object_missing_at_the_start_is_caught(reader: Probe, true: list[Video], gone: slice, caught: bool) -> None:
    empty = planted(true, corruptions.missing)
    made = [replace(v, frames=v.frames.copy()) for v in true]
    for video, other in zip(made, empty, strict=True):
        video.frames[gone] = other.frames[gone]
    found = missed(bars.video_bars(reader, made, true, RHYTHM))
    assert ("videos without an object in frame 0" in found) == caught
    assert ("first 8 frames with exactly one object" in found) == (gone.start < 8)


def test_motion_frozen_inside_chunks_is_caught(reader: Probe, true: list[Video]) -> None:
    made = planted(true, truth, corruptions.frozen(times(), RHYTHM.chunk))
    assert missed(bars.video_bars(reader, made, true, RHYTHM)) >= {
        "change inside chunks, of real",
        "hop at chunk joints",
    }


def test_a_still_picture_is_no_motion(reader: Probe, true: list[Video]) -> None:
    made = planted(true, truth, corruptions.frozen(times(), LENGTH))
    assert missed(bars.video_bars(reader, made, true, RHYTHM)) >= {"change inside chunks, of real", "motion right"}


def test_a_hop_at_joints_is_caught(reader: Probe, true: list[Video]) -> None:
    made = planted(true, truth, corruptions.hopping(times(), RHYTHM.chunk, 0.5))
    assert "hop at chunk joints" in missed(bars.video_bars(reader, made, true, RHYTHM))


@pytest.mark.parametrize("attribute", ["terrain", "time", "object", "colour"])
def test_a_video_of_another_scene_is_caught(reader: Probe, true: list[Video], attribute: str) -> None:
    def other(scene: Scene) -> Scene:
        values = [v for v in ATTRIBUTES[attribute] if v not in (getattr(scene, attribute), "boat")]
        return replace(scene, **{attribute: values[0]})

    made = planted(true, lambda s, t, on: truth([other(scene) for scene in s], t, on))
    assert f"{attribute} right" in missed(bars.video_bars(reader, made, true, RHYTHM))


def test_a_camera_the_wrong_way_round_is_caught(reader: Probe, true: list[Video]) -> None:
    turned = {"left": "right", "right": "left", "still": "left"}
    made = planted(true, lambda s, t, on: truth([replace(x, camera=turned[x.camera]) for x in s], t, on))
    assert missed(bars.video_bars(reader, made, true, RHYTHM)) >= {"camera right", "camera right on land, by matching"}


def dark() -> list[Video]:
    """Pans over land at night, and one still."""
    return [video for seed in (8, 18, 47, 59) for video in real(Wanted(range(seed, seed + 1), 5.0))]


def test_the_camera_is_told_at_night_through_the_codec_and_under_a_pattern_that_stands_still(codec) -> None:
    videos = dark()
    assert {(v.scene.time, v.scene.camera) for v in videos} >= {("night", way) for way in ("left", "right", "still")}
    stripes = 4 * (torch.arange(96) % 2) - 2  # of 255
    for change in (
        lambda pixels: codec.decode(codec.encode(pixels[None]))[0],
        lambda pixels: pixels + stripes / 255,
    ):
        assert bars.panned([replace(v, frames=to_bytes(change(v.pixels()).clamp(0, 1))) for v in videos]) == 1
    assert bars.panned([replace(v, frames=v.frames[:12]) for v in videos]) == 1
    standing = [replace(v, frames=v.frames[:1].repeat(40, axis=0)) for v in videos]
    assert bars.panned(standing) == sum(v.scene.camera == "still" for v in videos) / len(videos)
    assert bars.panned([replace(v, frames=v.frames[::-1]) for v in videos]) == bars.panned(standing)


@pytest.mark.integration
def test_a_long_real_video_ends_as_it_began(reader: Probe) -> None:
    found = bars.minute_bars(reader, minute(), minute(range(20, 36)), RHYTHM, 32)
    assert missed(found) == set()


@pytest.mark.integration
def test_bleaching_and_late_doubles_are_caught(reader: Probe) -> None:
    many = minute(range(20, 36))
    bleached = [replace(v, frames=to_bytes(corruptions.drifting(v.pixels(), 0.5))) for v in minute()]
    found = missed(bars.minute_bars(reader, bleached, many, RHYTHM, 32))
    assert found >= {f"drift of {look}, z" for look in ("brightness", "contrast", "saturation")}
    assert "one object, last seconds less first" in missed(bars.minute_bars(reader, late_doubles(), many, RHYTHM, 32))


def minute(seeds: range = range(6)) -> list[Video]:
    return list(real(Wanted(seeds, 60.0), spans=32))


def late_doubles() -> list[Video]:
    seconds = torch.arange(448, 480)[None] / RHYTHM.fps
    found = minute()
    for video in found:
        video.frames[32:] = to_bytes(twice([video.scene], seconds, ON)[0])
    return found


def test_the_codec_keeps_motion_and_one_that_freezes_it_is_caught(codec: PocketCodec) -> None:
    class Freezing(PocketCodec):
        def decode(self, latents: Tensor) -> Tensor:
            return super().decode(latents)[:, ::4].repeat_interleave(4, dim=1)

    freezing = Freezing(codec.config)
    freezing.load_state_dict(codec.state_dict())
    name = "codec, unevenness of motion"
    plain, frozen = ({b.name: b.value for b in bars.codec_bars(c, range(4), RHYTHM)} for c in (codec, freezing))
    assert plain["codec, dB"] > 34
    assert plain[name] < 0.5 < frozen[name]


def test_a_bar_is_missed_by_what_is_no_number() -> None:
    assert not Bar("nothing", float("nan"), low=0).passed
    assert Bar("at most", 1.0, high=1.5).row() == {"value": 1.0, "high": 1.5, "passed": True}


def test_a_profile_tells_joints_from_insides() -> None:
    levels = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11, 16.0]) / 20
    profile = metrics.profile(levels[:, None, None, None].expand(-1, 3, 4, 4), 4)
    assert profile.tolist() == pytest.approx([0.05, 0.05, 0.05, 0.25])
    assert metrics.hop(profile) == pytest.approx(5)
    assert metrics.unevenness(profile, torch.full((4,), 0.05)) == pytest.approx(4)


def test_drift_is_told_in_real_deviations() -> None:
    real_drifts = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * 0.02
    assert metrics.z_scores(torch.full((1, 4), 0.2), real_drifts).min() > 5
    assert metrics.drift(torch.rand(1, 3, 8, 8).expand(20, -1, -1, -1), 5).abs().max() < 1e-6


def test_an_unsaid_motion_is_not_asked_for() -> None:
    videos = [Video(sample_scene(s), prompt_of(s), to_bytes(torch.zeros(1, 3, 8, 8))) for s in range(80)]
    silent = [v for v in videos if "motion" not in v.asked]
    assert 0 < len(silent) < 20
    assert all(not any(w in v.prompt for w in MOTION_WORDINGS[v.scene.motion]) for v in silent)


@pytest.mark.parametrize(("name", "kinds"), PARTIAL.items())
def test_partial_prompts_name_their_kinds_of_the_scene_alone(name: str, kinds: tuple[str, ...]) -> None:
    for seed in range(60):
        prompt, scene = prompt_of(seed, kinds), sample_scene(seed)
        assert parse(prompt).slots.keys() == {*kinds}
        assert parse(prompt).unused == parse(prompt).refused == ()
        video = Video(scene, prompt, to_bytes(torch.zeros(1, 3, 8, 8)))
        asked = {FIELDS[kind]: getattr(scene, FIELDS[kind]) for kind in kinds}
        assert video.asked == {"camera": "still"} | asked
    assert prompt_of(0, ("object",)) == "a sailboat"


def test_real_videos_pass_the_bars_of_partial_prompts_and_others_miss_them(reader: Probe, true: list[Video]) -> None:
    said = [replace(video, prompt=prompt_of(seed, ("object",))) for seed, video in zip(SEEDS, true, strict=True)]
    other = [replace(video, frames=said[(index + 2) % len(said)].frames) for index, video in enumerate(said)]
    made = {"right": said, "other": other, "doubled": planted(said, twice)}
    found = missed(bars.partial_bars(reader, made, RHYTHM))
    assert found >= {"object right, other", "exactly one object, doubled"}
    assert not found & {"object right, right", "exactly one object, right"}


def test_clips_cover_a_video_to_its_end() -> None:
    video = torch.arange(80.0)[:, None, None, None].expand(-1, 3, 2, 2)
    cut = probe.clips(video, 8.0)
    assert cut[:, 0, 0, 0, 0].tolist() == [0, 32, 48]
    assert cut[-1, -1, 0, 0, 0] == 78


def test_an_untrained_probe_is_not_trusted() -> None:
    assert not bars.trusted(Probe().eval(), range(8))


def test_a_batch_of_frames_shows_every_count() -> None:
    shown = probe_training.frame_batch(range(16), 0.3)
    assert shown.counts.bincount().tolist() == [4] * len(COUNTS)
    whole = render([sample_scene(s) for s in range(16)], torch.zeros(16, 1), ON)
    gone = corruptions.missing([sample_scene(s) for s in range(16)], torch.zeros(16, 1), ON)
    assert torch.equal(*(f.where(whole.mask[:, :, None] == 0, torch.zeros(())) for f in (whole.frames, gone)))


def test_training_is_the_same_twice_and_survives_a_file(tmp_path: Path, codec: PocketCodec) -> None:
    lessons = probe_training.Lessons(clip_steps=1, clips=2, frame_steps=2, frames=4)
    state = torch.get_rng_state()
    first, second = (probe_training.train(codec, lessons, lambda name, step, loss: None) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    kept = probe.load(probe.save(first, tmp_path / "probe.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    torch.testing.assert_close(dict(kept.state_dict()), dict(first.state_dict()), rtol=2e-3, atol=1e-4)


def test_videos_come_from_the_weights_given(tmp_path: Path) -> None:
    checkpoint.save(PocketCodec(CodecConfig()), tmp_path / "codec.safetensors", {})
    checkpoint.save(Pocket(PocketConfig()), tmp_path / "denoiser.safetensors", {})
    wanted = Wanted(range(2), 0.5, tmp_path, Sampling(steps=6, device="cpu"))
    made = list(generated(wanted))
    assert [v.prompt for v in made] == [prompt_of(0), prompt_of(1)]
    assert [v.frames.shape for v in made] == [(4, 64, 96, 3)] * 2
    assert torch.equal(made[0].pixels(), from_bytes(made[0].frames))
