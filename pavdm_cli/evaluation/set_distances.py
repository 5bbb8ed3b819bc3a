"""Distances of a set of videos from a reference set: Fréchet and kernel distance of the probe's features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from pavdm_cli.evaluation.distances import (
    DIMENSIONS,
    MIN_VECTORS_PER_DIMENSION,
    Distance,
    FeatureSums,
    frechet_distance,
    jackknife,
    kernel_distance,
    sums_of,
)

GROUPS = 16  # maximum number of groups of videos that the jackknife leaves out one by one
DISTANCES: dict[str, Distance] = {"frechet_probe": frechet_distance, "kernel_probe": kernel_distance}

Features = Sequence[Sequence[float]]  # of the clips of one video
Interval = tuple[float | None, float | None, float | None]  # value, low, high


@dataclass(frozen=True, slots=True)
class SetDistances:
    """Distances by name, each with its 95 % interval, and a caveat if the sets are too small."""

    clips: tuple[int, int]
    values: dict[str, Interval]
    note: str = ""

    @property
    def title(self) -> str:
        """What was compared."""
        return f"{self.clips[0]} clips of four seconds, {self.clips[1]} of the reference"

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        names = ("value", "low", "high")
        return {"clips": list(self.clips)} | {
            name: dict(zip(names, interval, strict=True)) for name, interval in self.values.items()
        }


def compare_sets(videos: Sequence[Features], reference_videos: Sequence[Features]) -> SetDistances:
    """Distances of the clips of all videos from those of all reference videos; None if a set has too few."""
    groups, reference = group_sums(videos), sum_all(group_sums(reference_videos))
    values = {name: _interval(distance, groups, reference) for name, distance in DISTANCES.items()}
    clips = sum_all(groups).count, reference.count
    return SetDistances(clips, values, _note(clips, reference.dimensions))


def group_sums(videos: Sequence[Features]) -> list[FeatureSums]:
    """Sums over the clips of each video, or of several videos if there are more than GROUPS."""
    groups = [sum_all([features_of(video) for video in videos[start::GROUPS]]) for start in range(GROUPS)]
    return [group for group in groups if group.count]


def features_of(video: Features) -> FeatureSums:
    """Sums over the clips of one video, which may have none."""
    return sums_of(np.array(video, np.float64).reshape(len(video), -1) if len(video) else np.zeros((0, DIMENSIONS)))


def sum_all(groups: Sequence[FeatureSums]) -> FeatureSums:
    """The sums over all groups."""
    return reduce(FeatureSums.__add__, groups, sums_of(np.zeros((0, DIMENSIONS))))


def _interval(distance: Distance, groups: Sequence[FeatureSums], reference: FeatureSums) -> Interval:
    value = distance(sum_all(groups), reference)
    interval = jackknife(lambda sums: distance(sums, reference), groups) if groups else None
    return (value, None, None) if interval is None else (float(interval[0]), float(interval[1]), float(interval[2]))


def _note(clips: tuple[int, int], dimensions: int) -> str:
    if min(clips) < 2:
        return "no distance between the sets: each needs two clips of four seconds"
    if min(clips) < MIN_VECTORS_PER_DIMENSION * dimensions:
        enough = f"it is biased upwards with fewer than {MIN_VECTORS_PER_DIMENSION * dimensions} clips"
        return f"frechet_probe is of {min(clips)} clips: {enough}; kernel_probe is not"
    return ""
