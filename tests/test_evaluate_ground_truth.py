"""Videos of the rendered world against their prompts: true renders pass, planted faults are seen where they are."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import pavdm
from support.corruptions import clean

from pavdm_cli.evaluation import corruptions
from pavdm_cli.evaluation.clip_features import ProbeMeter, camera_motion
from pavdm_cli.evaluation.ground_truth import (
    Metrics,
    Series,
    WorldMeter,
    adherence,
    survival,
)
from pavdm_cli.evaluation.object_tracker import DETAIL, find_object, object_templates
from pavdm_cli.evaluation.probe import ATTRIBUTES, SIZE
from pavdm_cli.evaluation.prompt_spans import PromptSpan, scene_of, stored_spans
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.pocket_world.render import canvas, position, render
from pavdm_cli.pocket_world.world import Scene, sample_scene
from pavdm_cli.video import VideoWriter

ON, SECONDS, FPS = canvas(SIZE, DETAIL), 8.0, 8
SEEDS = (2, 9)  # a ball and a butterfly that bounce in the rain
MORE = (1, 6, 19, 23)  # a kite, a saucer, an umbrella and an airplane that drift, bounce and circle
DRIFTER = replace(sample_scene(6), object="ball", color="red", motion="drifting", terrain="hills", weather="clear")
TIMES = torch.arange(round(SECONDS * FPS))[None] / FPS
CAPTION = "a red ball drifting over the sea at sunset, the camera pans left"


def frames(scene: Scene, times: torch.Tensor = TIMES) -> np.ndarray:
    return to_bytes(render([scene], times, ON).frames[0])


def read(video: np.ndarray, scene: Scene, fps: float = FPS) -> tuple[Metrics, Series]:
    meter = WorldMeter(fps, [PromptSpan(scene)])
    for frame in video:
        meter.add(frame)
    return meter.finish()


@pytest.mark.parametrize("seed", [*SEEDS, *(pytest.param(seed, marks=pytest.mark.integration) for seed in MORE)])
def test_true_renders_are_right_in_everything(seed: int) -> None:
    scene = sample_scene(seed)
    metrics, series = read(frames(scene), scene)
    assert all(metrics[name] == 1 for name in metrics if name.startswith("adherence_"))
    assert metrics["one_object"] >= 1 - 2 / TIMES.shape[1]  # the probe counts 98 % of rendered frames right
    assert metrics["object_survival"] == metrics["object_found"] == 1
    assert metrics["color_error"] < 0.02
    assert metrics["speed_error"] < 0.03
    assert metrics["identity_drift"] < 0.06
    assert len(series["one_object"]) == len(series["color_error"]) == SECONDS / 2


def test_a_wrong_word_of_the_caption_is_seen_in_its_own_row() -> None:
    scene, probe = sample_scene(2), ProbeMeter(counting=False)
    for frame in frames(scene)[::2]:
        probe.add(frame)
    for attribute, values in ATTRIBUTES.items():
        other = next(value for value in values if value not in (getattr(scene, attribute), "boat"))
        shares = adherence(PromptSpan(replace(scene, **{attribute: other})), probe.words)
        wrong = {name for name, clips in shares.items() if np.mean(clips) < 0.5}
        assert wrong == {"adherence_" + {"terrain": "place"}.get(attribute, attribute)}


def test_a_wrong_color_and_a_wrong_motion_have_errors_of_their_size() -> None:
    scene = DRIFTER
    video = frames(scene)
    assert read(video, replace(scene, color="blue"))[0]["color_error"] > 0.4
    assert read(video, replace(scene, motion="hovering"))[0]["speed_error"] == pytest.approx(0.15, abs=0.03)
    slow, _ = read(frames(scene, TIMES / 2), scene)
    assert slow["speed_error"] == pytest.approx(0.08, abs=0.02)


def test_a_static_video_has_an_error_of_speed_alone() -> None:
    scene = DRIFTER
    metrics, _ = read(np.repeat(frames(scene, TIMES[:, :1]), TIMES.shape[1], 0), scene)
    assert metrics["speed_error"] > 0.1
    assert metrics["color_error"] < 0.02
    assert metrics["object_survival"] == 1


def test_an_object_that_is_elsewhere_after_a_gap_did_not_move_there() -> None:
    scene = DRIFTER
    video = np.concatenate([frames(scene, TIMES[:, :16]), frames(scene, TIMES[:, :24] + 5)])
    video[16:24] = to_bytes(corruptions.remove_objects([scene], TIMES[:, :8], ON)[0])
    whole, _ = read(frames(scene, TIMES[:, :16]), scene)
    metrics, _ = read(video, scene)
    assert metrics["object_found"] == pytest.approx(0.8)
    assert metrics["speed_error"] == pytest.approx(whole["speed_error"], abs=0.05)


def test_an_object_that_vanishes_ends_its_survival_then() -> None:
    scene, half = DRIFTER, TIMES.shape[1] // 2
    video = frames(scene)
    video[half:] = to_bytes(corruptions.remove_objects([scene], TIMES, ON)[0])[half:]
    metrics, series = read(video, scene)
    assert metrics["object_survival"] == pytest.approx(0.5, abs=0.03)
    assert metrics["object_found"] == pytest.approx(0.5, abs=0.03)
    assert metrics["color_error"] < 0.02  # of the frames in which it is there
    assert series["one_object"][0] == 1
    assert series["one_object"][-1] == 0


def test_a_second_object_ends_survival_too_but_one_bad_frame_does_not() -> None:
    scene = DRIFTER
    double = to_bytes(corruptions.duplicate_objects([scene], TIMES, ON, random.Random(1))[0])
    for first, last, expected in ((24, 64, 24 / 64), (24, 28, 1.0)):
        video = frames(scene)
        video[first:last] = double[first:last]
        assert read(video, scene)[0]["object_survival"] == pytest.approx(expected, abs=0.03)


def test_an_object_that_changes_loses_its_identity_over_time() -> None:
    scene, third = DRIFTER, TIMES.shape[1] // 3
    parts = [
        frames(replace(scene, color=color))[i * third : (i + 1) * third]
        for i, color in enumerate(("red", "red", "green"))
    ]
    metrics, series = read(np.concatenate(parts), scene)
    assert series["identity_drift"][0] < 0.06
    assert metrics["identity_drift"] > 0.2
    assert series["color_error"][-1] > 0.4


@pytest.mark.parametrize("seed", range(6))
def test_the_tracker_finds_the_middle_and_nothing_where_nothing_is(seed: int) -> None:
    scene, times = sample_scene(seed), torch.arange(0, 10, 2.3)[None]
    templates = object_templates(scene)
    detections = [find_object(frame, templates) for frame in frames(scene, times)]
    x, y = position([scene], times, SIZE[1] / SIZE[0])
    offsets = np.array([(one.x - x[0, i], one.y - y[0, i]) for i, one in enumerate(detections)])
    assert (
        np.abs(offsets - offsets.mean(axis=0)).max() < 0.005
    )  # a third of a pixel; the box of a kite is not about its middle
    empty = to_bytes(corruptions.remove_objects([scene], times, ON)[0])
    assert [find_object(frame, templates) for frame in empty] == [None] * len(empty)


def test_survival_counts_whole_seconds() -> None:
    assert survival(np.array([1.0] * 8)) == 1
    assert survival(np.array([1, 0, 0, 0, 1, 1.0])) == 1
    assert survival(np.array([1, 1, 0, 0, 0, 0, 1, 1.0])) == 0.25
    assert survival(np.zeros(0)) is None


def test_the_rate_and_the_size_of_a_file_do_not_matter() -> None:
    scene = DRIFTER
    times = torch.arange(round(SECONDS * 12))[None] / 12
    large = to_bytes(render([scene], times, canvas((128, 192), DETAIL)).frames[0])
    metrics, _ = read(large, scene, fps=12)
    assert metrics["adherence_object"] == metrics["object_found"] == 1
    assert metrics["speed_error"] < 0.03


def write(path: Path, video: np.ndarray, **metadata: object) -> Path:
    with VideoWriter(path, video.shape[2], video.shape[1], FPS, metadata or None) as writer:
        writer.write(video)
        return writer.finish()


def test_scenes_are_known_for_our_own_whole_videos_alone(tmp_path: Path) -> None:
    def stored(**metadata: object) -> Scene | None:
        spans = stored_spans(write(tmp_path / f"{len(list(tmp_path.iterdir()))}.mp4", clean(count=2), **metadata))
        return spans[0].scene if spans else None

    ours = {"prompt": "a ball", "caption": CAPTION, "model": "pocket", "seed": 1}
    scene = stored(**ours)
    assert scene is not None
    assert [getattr(scene, name) for name in ATTRIBUTES] == [
        "sea",
        "sunset",
        "ball",
        "red",
        "drifting",
        "left",
        "clear",
    ]
    assert stored(prompt=CAPTION, model="pocket") == scene
    others = (
        {"model": "opensora-v1.2"},
        {"model": "gone"},
        {"source": "v.mp4"},
        {"image": "i.png"},
        {"caption": "a ball"},
    )
    assert [stored(**ours | other) for other in others] == [None] * len(others)
    assert stored() is scene_of("nothing at all") is None


def test_evaluate_adds_these_rows_by_itself(tmp_path: Path) -> None:
    scene = scene_of(CAPTION)
    video = frames(scene, TIMES[:, :40])
    write(tmp_path / "ours.mp4", video, prompt=CAPTION, model="pocket", seed=1)
    write(tmp_path / "other.mp4", video, prompt=CAPTION, model="unknown", seed=1)
    code, out, _ = pavdm("evaluate", tmp_path / "ours.mp4", tmp_path / "other.mp4", "--json")
    ours, other = (json.loads(line) for line in out.splitlines())
    assert code == 0
    assert ours["metrics"]["adherence_object"] == 1
    assert ours["metrics"]["object_found"] > 0.9
    assert "one_object" in ours["clips"]
    assert not any(name.startswith(("adherence", "object")) for name in other["metrics"])


DAY, NIGHT = "a red ball hovering over green hills by day, still camera", "a blue kite hovering over dunes at night"


def test_every_prompt_of_a_timeline_is_compared_with_its_own_frames(tmp_path: Path) -> None:
    times = torch.arange(20 * FPS)[None] / FPS
    video = np.concatenate([frames(scene_of(DAY), times[:, :80]), frames(scene_of(NIGHT), times[:, 80:])])
    timeline = [{"at": 10.0, "prompt": NIGHT}]
    write(tmp_path / "v.mp4", video, prompt=DAY, model="pocket", timeline=timeline, window=12, chunk=2, blend=0.5)
    code, out, err = pavdm("evaluate", tmp_path / "v.mp4", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert [(span["start"], span["end"]) for span in result["spans"]] == [(0, 7), (14, None)]
    for metrics in (result["metrics"], *(span["metrics"] for span in result["spans"])):
        assert {metrics[name] for name in metrics if name.startswith("adherence_")} == {1}
    assert result["metrics"]["color_error"] < 0.05
    assert "adherence_camera" not in result["spans"][1]["metrics"]


def test_a_still_camera_over_land_is_right_and_no_words_are_not_scored() -> None:
    still = scene_of(DAY)
    for camera, share in (("still", 1), ("left", 0), ("right", 0)):
        assert read(frames(replace(still, motion="drifting", camera=camera)), still)[0]["adherence_camera"] == share
    clip = [dict.fromkeys(ATTRIBUTES, "")]
    assert "adherence_camera" not in adherence(PromptSpan(still, names_camera=False), clip)
    assert adherence(PromptSpan(still), clip)["adherence_camera"] == []  # it cannot be told


def sea_words(scene: Scene) -> dict[str, str]:
    return {"terrain": "sea", "time": scene.time, "weather": scene.weather}


def sea_clips(seeds: range) -> Iterator[tuple[Scene, np.ndarray]]:
    """True clips over the sea at any time of a video."""
    for seed in seeds:
        scene, start = replace(sample_scene(seed), terrain="sea"), random.Random(seed).uniform(0, 60)
        yield scene, frames(scene, start + torch.arange(16)[None] / 4)


@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 108), marks=pytest.mark.integration)])
def test_the_camera_over_the_sea_is_read_from_islands(seeds: range) -> None:
    pairs = [(scene.camera, camera_motion(clip, sea_words(scene))) for scene, clip in sea_clips(seeds)]
    assert all(result in ("", camera) for camera, result in pairs)
    assert sum(result == camera for camera, result in pairs) >= 0.9 * len(pairs)


def test_a_sea_without_islands_does_not_tell_the_camera() -> None:
    scene, clip = next(sea_clips(range(1)))
    without = clip.copy()
    without[:, 33:39] = clip[:, 33:39, :1]  # rows about the horizon have the color of their first pixel
    assert camera_motion(without, sea_words(scene)) == ""
    assert camera_motion(clip[:, :, ::-1], sea_words(scene)) == {"left": "right", "right": "left"}.get(
        scene.camera, "still"
    )
