"""Every synthetic corruption changes the metrics that should detect it, and no others."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from support.corruptions import CHUNK, CORRUPTIONS, FPS, clean

from pavdm_cli.evaluation.frame_metrics import FrameMeter, color_histogram, global_shift
from pavdm_cli.evaluation.measure import SceneCounter, boundary_ratio, clip_means, drift, slope, summarize

APPEARANCE = ("brightness", "contrast", "saturation", "sharpness", "noise")
# Metrics that must change, with the minimum change from the clean video.
EXPECTED = {
    "exposure drift": {"drift_brightness": 0.1},
    "saturation drift": {"drift_saturation": 0.15},
    "blur": {"drift_sharpness": -0.2},
    "noise": {"drift_noise": 1.0},
    "chunk jumps": {"boundary_ratio": 0.5, "largest_jump": 0.3},
    "held frames": {"frozen": 0.6},
    "cut": {"scenes": 1, "min_color_similarity": -0.05, "largest_jump": 1.0},
    "jitter": {"shake": 1.0},
    "flicker": {"flicker": 0.01},
    "static": {"dynamics": -0.01, "frozen": 0.9},
    "collapse": {"drift_noise": 1.0, "drift_sharpness": 0.5},
    "dissolving object": {"drift_sharpness": -0.1},
}
# Metrics that must stay within these bounds, unless ALSO_CHANGED lists the corruption.
MAX_CHANGE = {
    "scenes": 0.5, "boundary_ratio": 0.25, "frozen": 0.05, "min_color_similarity": 0.03, "flicker": 0.004, "shake": 0.6,
    "drift_brightness": 0.06, "drift_saturation": 0.1,
}  # fmt: skip
ALSO_CHANGED = {
    "exposure drift": {"drift_saturation"},
    "blur": {"drift_saturation"},
    "noise": {"min_color_similarity", "drift_saturation"},
    "chunk jumps": {"flicker", "shake", "min_color_similarity"},
    "held frames": {"scenes", "boundary_ratio", "shake", "flicker"},
    "cut": {"drift_brightness", "drift_saturation"},
    "jitter": {"flicker", "min_color_similarity"},
    "flicker": {"min_color_similarity"},
    "static": {"boundary_ratio", "shake"},
    "collapse": {"drift_brightness", "drift_saturation", "shake", "min_color_similarity"},
    "dissolving object": {"shake", "drift_saturation"},
}


def measure_metrics(video: np.ndarray, flow: bool = False) -> dict[str, float | None]:
    meter, scenes = FrameMeter(FPS, flow), SceneCounter(FPS)
    for frame in video:
        meter.add(frame)
        scenes.add(frame)
    drifts = {f"drift_{name}": drift(meter.series[name]) for name in APPEARANCE}
    return {"scenes": float(scenes.finish())} | summarize(meter.series, CHUNK) | drifts


@cache
def metrics_of(name: str) -> dict[str, float | None]:
    return measure_metrics(CORRUPTIONS[name](clean()) if name else clean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_failure_moves_its_metrics(name: str) -> None:
    before, after = metrics_of(""), metrics_of(name)
    for metric, min_change in EXPECTED[name].items():
        change = after[metric] - before[metric]
        assert change * np.sign(min_change) >= abs(min_change), (metric, before[metric], after[metric])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_failure_leaves_the_other_metrics(name: str) -> None:
    before, after = metrics_of(""), metrics_of(name)
    changed = {metric for metric, max_change in MAX_CHANGE.items() if abs(after[metric] - before[metric]) > max_change}
    unexpected = changed - EXPECTED[name].keys() - ALSO_CHANGED.get(name, set())
    assert not unexpected, {metric: (before[metric], after[metric]) for metric in unexpected}


def test_a_clean_video_looks_like_another_clean_video() -> None:
    first, second = metrics_of(""), measure_metrics(clean(5))
    for metric, max_change in MAX_CHANGE.items():
        assert abs(first[metric] - second[metric]) <= max_change, metric
    assert first["scenes"] == second["scenes"] == 1


def test_optical_flow_distinguishes_a_shuffled_video_from_a_steady_one() -> None:
    steady, shuffled = measure_metrics(clean(count=24), flow=True), clean(count=24)
    shuffled = measure_metrics(shuffled[np.random.default_rng(0).permutation(24)], flow=True)
    assert steady["unpredicted"] < 0.4 < shuffled["unpredicted"]
    assert (
        measure_metrics(np.repeat(clean(count=1), 6, 0), flow=True)["dynamic_degree"] < 0.01 < steady["dynamic_degree"]
    )


@pytest.mark.parametrize("size", [(64, 96), (300, 500)])
@pytest.mark.parametrize("shift", [(0, 0), (6, 0), (-4, 8)])
def test_a_shift_of_the_whole_frame_is_measured_in_pixels(size: tuple[int, int], shift: tuple[int, int]) -> None:
    texture = np.kron(np.random.default_rng(0).integers(0, 255, (size[0] // 4, size[1] // 4)), np.ones((4, 4)))
    before = texture.astype(np.uint8)
    after = np.roll(before, shift[::-1], axis=(0, 1))
    assert global_shift(before, after) == pytest.approx(shift, abs=0.7)


def test_color_similarity_is_one_for_equal_frames_and_zero_for_disjoint_colors() -> None:
    red, blue = (np.full((9, 9, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    assert color_histogram(red) @ color_histogram(red) == pytest.approx(1)
    assert color_histogram(red) @ color_histogram(blue) == pytest.approx(0)


@pytest.mark.parametrize(("deviation", "tolerance"), [(2, 0.5), (8, 1.0), (20, 2.0)])
def test_noise_is_measured_in_its_own_unit(deviation: float, tolerance: float) -> None:
    flat = 128 + np.random.default_rng(0).normal(0, deviation, (120, 160, 1)).repeat(3, axis=2)
    meter = FrameMeter(FPS)
    meter.add(np.clip(np.round(flat), 0, 255).astype(np.uint8))
    assert meter.series["noise"][0] * 255 == pytest.approx(deviation, abs=tolerance)


def test_the_boundary_ratio_is_one_without_jumps_and_none_without_boundaries() -> None:
    assert boundary_ratio(np.full(39, 0.02), 4) == pytest.approx(1, abs=0.05)
    jumps = np.where(np.arange(1, 40) % 4 == 0, 0.06, 0.02)
    assert boundary_ratio(jumps, 4) == pytest.approx(3, abs=0.2)
    assert boundary_ratio(jumps[1:], 4, first_chunk=3) == pytest.approx(3, abs=0.2)
    assert boundary_ratio(jumps, None) is boundary_ratio(jumps[:2], 4) is None


def test_drift_and_slope_are_relative_and_need_enough_frames() -> None:
    rising = np.linspace(1, 2, 200)
    assert drift(rising) == pytest.approx((1.925 - 1.075) / 1.075, rel=0.02)
    assert slope(clip_means(rising, 10.0)) == pytest.approx(3 / 1.5, rel=0.05)  # 20 s: three times as much in a minute
    assert drift(rising[:2]) is slope(np.ones(2)) is None


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 40])
def test_clip_means_cover_every_frame_once(count: int) -> None:
    values = np.arange(count, dtype=float)
    clips = clip_means(values, 8.0)
    assert len(clips) == max(1, count // 16)
    sizes = [16] * (len(clips) - 1) + [count - 16 * (len(clips) - 1)]
    assert np.dot(clips, sizes) == pytest.approx(values.sum())
