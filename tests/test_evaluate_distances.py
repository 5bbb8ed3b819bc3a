"""Distances between sets of videos: known values, no bias, and corrupted videos farther away than real ones."""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from support.command import pavdm
from support.corruptions import CORRUPTIONS, clean

from pavdm_cli.evaluation.clip_features import ProbeMeter, Resampler
from pavdm_cli.evaluation.distances import (
    frechet_distance,
    jackknife,
    kernel_distance,
    student_t_quantile,
    sums_of,
)
from pavdm_cli.evaluation.set_distances import DIMENSIONS, GROUPS, compare_sets
from pavdm_cli.evaluation.videos import VideoSet, render_videos
from pavdm_cli.video import VideoWriter


def gaussian(count: int, seed: int, mean: float = 0.0, scale: float = 1.0, width: int = 8) -> np.ndarray:
    return mean + scale * np.random.default_rng(seed).standard_normal((count, width))


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (1.5, 1.0), (0.0, 2.0), (1.0, 0.5)])
def test_the_frechet_distance_of_gaussians_is_the_analytic_one(mean: float, scale: float) -> None:
    distance = frechet_distance(sums_of(gaussian(40_000, 0)), sums_of(gaussian(40_000, 1, mean, scale)))
    assert distance == pytest.approx(8 * (mean**2 + (1 - scale) ** 2), rel=0.03, abs=0.01)


def test_correlated_gaussians_have_the_analytic_frechet_distance() -> None:
    mixing = np.array([[1.0, 0.8], [0.0, 0.6]])  # covariance [[1, .8], [.8, 1]] has the roots 1.8 and .2
    a, b = gaussian(60_000, 0, width=2), gaussian(60_000, 1, width=2) @ mixing
    expected = 4 - 2 * (1.8**0.5 + 0.2**0.5)
    assert frechet_distance(sums_of(a), sums_of(b)) == pytest.approx(expected, rel=0.05)


def test_the_kernel_distance_is_the_mean_over_all_pairs() -> None:
    a, b = gaussian(7, 0, width=5), gaussian(9, 1, 0.5, width=5)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 5 + 1) ** 3)

    within = [np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    across = np.mean([kernel(x, y) for x, y in product(a, b)])
    assert kernel_distance(sums_of(a), sums_of(b)) == pytest.approx(sum(within) - 2 * across)


def test_the_kernel_distance_is_unbiased_in_small_sets_and_frechet_is_not() -> None:
    pairs = [(sums_of(gaussian(12, 2 * i)), sums_of(gaussian(12, 2 * i + 1))) for i in range(400)]
    kernel, frechet = ([distance(a, b) for a, b in pairs] for distance in (kernel_distance, frechet_distance))
    assert abs(np.mean(kernel)) < 3 * np.std(kernel) / 20
    assert np.mean(frechet) > 2


def test_sums_of_parts_are_the_sums_of_all_vectors() -> None:
    all_vectors, parts = gaussian(50, 0), np.split(gaussian(50, 0), [3, 20])
    total = sums_of(parts[0]) + sums_of(parts[1]) + sums_of(parts[2])
    other = sums_of(gaussian(30, 1))
    for distance in (frechet_distance, kernel_distance):
        expected = distance(sums_of(all_vectors), other)
        assert distance(total, other) == pytest.approx(expected)
        assert distance(total + other - other, other) == pytest.approx(expected)


def test_the_interval_covers_the_true_mean_in_most_trials() -> None:
    def mean(sums: object) -> float:
        return float(sums.mean[0])  # type: ignore[attr-defined]

    covered = 0
    for trial in range(200):
        value, low, high = jackknife(mean, [sums_of(row[None]) for row in gaussian(20, trial, 3.0)])
        covered += low <= 3 <= high
        assert low < value < high
    assert 0.88 <= covered / 200 <= 1


@pytest.mark.parametrize(("fps", "count"), [(8, 80), (4, 40), (25, 250), (29.97, 300), (3, 30), (60, 600)])
def test_frames_are_resampled_to_the_rate_of_the_probe(fps: float, count: int) -> None:
    resampler, numbers = Resampler(fps), []
    for number in range(count):
        numbers += [number] * len(resampler.add(np.zeros((64, 96, 3), np.uint8)))
    assert len(numbers) == pytest.approx(4 * count / fps, abs=1)
    assert all(abs(number / fps - index / 4) <= 1 / fps for index, number in enumerate(numbers))


def features_of(video: np.ndarray) -> list[list[float]]:
    resampler, meter = Resampler(8), ProbeMeter(counting=False)
    for frame in video:
        for image in resampler.add(frame):
            meter.add(image)
    return [row.tolist() for row in meter.features]


def test_a_video_has_a_clip_every_two_seconds() -> None:
    assert [len(features_of(clean(count=count))) for count in (30, 31, 46, 47, 64)] == [0, 1, 1, 2, 3]


@cache
def renders() -> tuple[np.ndarray, ...]:
    return tuple(video.frames for video in render_videos(VideoSet(range(4), 8.0)))


@cache
def values(name: str) -> dict[str, float]:
    """Distances of a failure, or of the same scenes two seconds later, from the first six seconds of four scenes."""
    first = [video[:48] for video in renders()]
    others = [CORRUPTIONS[name](video) for video in first] if name else [video[16:] for video in renders()]
    result = compare_sets([features_of(video) for video in others], [features_of(video) for video in first])
    return {distance: interval[0] for distance, interval in result.values.items()}


FAILURES = ("jitter", "static")
SLOW_FAILURES = ("noise", "exposure drift", "chunk jumps", "flicker", "collapse")
# What the probe's distances miss, because its world has weather and changing light.
MISSES = {("noise", "frechet_probe"), ("exposure drift", "kernel_probe")}


@pytest.mark.parametrize(
    "name", [*FAILURES, *(pytest.param(name, marks=pytest.mark.integration) for name in SLOW_FAILURES)]
)
def test_every_failure_is_farther_than_the_same_scenes_later(name: str) -> None:
    for distance, later in values("").items():
        assert (values(name)[distance] > later) != ((name, distance) in MISSES), distance
    is_far = values(name)["frechet_probe"] > 1.5 * values("")["frechet_probe"]
    assert is_far != ((name, "frechet_probe") in MISSES)


def test_worse_failures_are_farther() -> None:
    assert values("")["frechet_probe"] < values("jitter")["frechet_probe"] < values("static")["frechet_probe"]


def test_intervals_leave_out_whole_videos_however_many() -> None:
    rows = [gaussian(3, seed, width=DIMENSIONS).tolist() for seed in range(2 * GROUPS + 3)]
    result = compare_sets(rows, rows[:5])
    value, low, high = result.values["kernel_probe"]
    assert result.clips == (105, 15)
    assert low < value < high
    assert "biased" in result.note


def test_short_videos_give_no_distance_and_a_note() -> None:
    result = compare_sets([[], []], [[]])
    assert result.values["frechet_probe"] == (None, None, None)
    assert "each needs two clips" in result.note


def test_references_give_distances_of_the_sets(tmp_path: Path) -> None:
    for name, change in (("a", lambda video: video), ("b", CORRUPTIONS["static"])):
        (tmp_path / name).mkdir()
        for seed in range(2):
            with VideoWriter(tmp_path / name / f"{seed}.mp4", 108, 72, 8) as writer:
                writer.write(change(clean(seed, count=48)))
                writer.finish()
    words = ("evaluate", tmp_path / "b", "--reference", tmp_path / "a", "--output", tmp_path / "rows.jsonl")
    code, out, err = pavdm(*words, "--json")
    *videos, last = [json.loads(line) for line in out.splitlines()]
    assert (code, len(videos)) == (0, 2)
    assert not any("features" in video for video in videos)
    assert last["distances"]["clips"] == [4, 4]
    assert last["distances"]["frechet_probe"]["value"] > 1
    assert "biased" in err
    code, table, _ = pavdm(*words)
    assert code == 0
    assert {"frechet_probe", "kernel_probe"} <= {line.split()[0] for line in table.splitlines() if line}
    assert "fvd" not in table.lower()


@pytest.mark.parametrize(
    ("degrees_of_freedom", "value"), [(1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (15, 2.131), (30, 2.042)]
)
def test_quantiles_of_students_t_are_those_of_the_tables(degrees_of_freedom: int, value: float) -> None:
    assert student_t_quantile(degrees_of_freedom) == pytest.approx(value, abs=5e-4)


def test_many_degrees_of_freedom_give_the_normal_quantile() -> None:
    assert student_t_quantile(100_001) == pytest.approx(1.95996, abs=1e-4)
