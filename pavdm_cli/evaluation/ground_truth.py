"""Compares a video of the painted world with its prompt: words, object count, colour, speed and identity over time.

The scene of a caption can be rendered. Words and counts are classified by the probe, which was trained on renders; the
object's colour, speed and identity are measured by template matching.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pavdm_cli.errors import PavdmError
from pavdm_cli.evaluation.clip_features import Frame, ProbeMeter, Resampler
from pavdm_cli.evaluation.object_tracker import color_error, expected_speed, find_object, templates_of
from pavdm_cli.evaluation.probe import ATTRIBUTES, PROBE_FPS
from pavdm_cli.evaluation.videos import FIELDS
from pavdm_cli.generation.metadata import valid_fields
from pavdm_cli.models import registry
from pavdm_cli.pocket_world.parse import parse
from pavdm_cli.pocket_world.world import Scene, sample_scene
from pavdm_cli.video import read_metadata

WORDS = {"terrain": "place", "colour": "color"}  # names of attributes in metrics, where they differ
LOST_FRAMES = 4  # a second at the probe's rate: for so long an object must be missing to be lost
BIN_FRAMES = 8  # two seconds at the probe's rate: as the other series over time
ENDS = 0.15  # share of the video whose mean is its end

Metrics = dict[str, float | None]
Series = dict[str, list[float]]


def stored_scene(path: Path) -> Scene | None:
    """The scene that the caption of a video of the painted world describes; None for any other video.

    Also None for continuations and videos that start from an image, since the caption describes only a part.
    """
    try:
        metadata, _ = valid_fields(read_metadata(path) or {})
        if "source" in metadata or "image" in metadata:
            return None
        if registry.find(metadata["model"]).published.name != registry.DEFAULT:
            return None
        return scene_of(str(metadata.get("caption") or metadata["prompt"]))
    except (KeyError, PavdmError):
        return None


def scene_of(caption: str) -> Scene | None:
    """The scene that a caption describes; None unless it mentions everything but the camera."""
    slots: dict[str, Any] = {FIELDS[kind]: mention.meaning for kind, mention in parse(caption).slots.items()}
    if slots.keys() | {"camera"} < ATTRIBUTES.keys():
        return None
    return replace(sample_scene(0), home=(0.0, 0.0), period=1.0, **{"camera": "still"} | slots)


class WorldMeter:
    """Applies the probe to a video frame by frame; with a scene, also tracks its object."""

    def __init__(self, fps: float, scene: Scene | None = None) -> None:
        self._resampler, self._probe, self._scene = Resampler(fps), ProbeMeter(counting=scene is not None), scene
        self._tracker = ObjectMeter(scene) if scene else None

    def add(self, frame: Frame) -> None:
        """Read the next frame of the video, (H, W, 3) RGB of any size."""
        for image in self._resampler.add(frame):
            self._probe.add(image)
            if self._tracker:
                self._tracker.add(image)

    @property
    def features(self) -> list[list[float]]:
        """Features of each clip of four seconds."""
        return [row.round(5).tolist() for row in self._probe.features]

    def finish(self) -> tuple[Metrics, Series]:
        """Metrics of the whole video, and their series over two-second clips; both empty without a scene."""
        if not self._scene or not self._tracker:
            return {}, {}
        words = adherence(self._scene, self._probe)
        one = np.array([count == "one" for count in self._probe.counts], np.float64)
        metrics: Metrics = {name: float(np.mean(values)) if values else None for name, values in words.items()}
        metrics |= {"one_object": float(one.mean()) if len(one) else None, "object_survival": survival(one)}
        return metrics | self._tracker.metrics(), words | {"one_object": bin_means(one)} | self._tracker.series()


def adherence(scene: Scene, probe: ProbeMeter) -> Series:
    """Whether each clip shows what the caption says, by word: 0 or 1."""
    return {
        f"adherence_{WORDS.get(name, name)}": [float(words[name] == getattr(scene, name)) for words in probe.words]
        for name in ATTRIBUTES
    }


def survival(one: NDArray[np.float64]) -> float | None:  # (n,), 1 where a frame shows exactly one object
    """Share of the video before the object is first missing, doubled or broken for a second."""
    if not len(one):
        return None
    run = np.convolve(one == 0, np.ones(LOST_FRAMES), "valid") if len(one) >= LOST_FRAMES else np.zeros(0)
    lost = np.flatnonzero(run >= LOST_FRAMES - 0.5)
    return float(lost[0] / len(one)) if len(lost) else 1.0


def bin_means(values: NDArray[np.float64]) -> list[float]:
    """Means over two-second bins, ignoring NaN; bins of NaN alone are dropped."""
    bins = [values[start : start + BIN_FRAMES] for start in range(0, len(values), BIN_FRAMES)]
    return [float(np.nanmean(one)) for one in bins if not np.isnan(one).all()]


class ObjectMeter:
    """Follows the scene's object from frame to frame."""

    def __init__(self, scene: Scene) -> None:
        self._templates, self._speed = templates_of(scene), expected_speed(scene)
        self._before: tuple[float, float] | None = None
        self._first = PatchMean()  # of the first two seconds in which the object is seen
        self._now = PatchMean()
        self._errors: list[float] = []  # NaN where the object is not found
        self._speeds: list[float] = []
        self._identity: list[float] = []  # of every two seconds in which the object is seen, after the first

    def add(self, frame: Frame) -> None:
        """Take the next frame at the probe's rate and size."""
        sighting = find_object(frame, self._templates)
        self._errors.append(color_error(sighting, self._templates) if sighting else float("nan"))
        here = (sighting.x, sighting.y) if sighting else None
        if here and self._before:
            self._speeds.append(float(np.hypot(here[0] - self._before[0], here[1] - self._before[1])) * PROBE_FPS)
        self._before = here
        if sighting:
            self._add_patch(sighting.patch)

    def _add_patch(self, patch: NDArray[np.float32]) -> None:
        if self._first.count < BIN_FRAMES:
            self._first.add(patch)
            return
        self._now.add(patch)
        if self._now.count == BIN_FRAMES:
            covered = 3 * float(self._templates.weights.sum())
            difference = (self._now.mean - self._first.mean) ** 2
            self._identity.append(float(np.sqrt(difference.sum() / covered)))
            self._now = PatchMean()

    def metrics(self) -> Metrics:
        """Errors of color and speed, and the change of the object by the end."""
        errors, ends = np.array(self._errors), self._identity[-max(1, round(ENDS * len(self._identity))) :]
        is_visible = bool((~np.isnan(errors)).any())
        speed = abs(float(np.mean(self._speeds)) - self._speed) if self._speeds else None
        return {
            "object_found": float((~np.isnan(errors)).mean()) if len(errors) else None,
            "color_error": float(np.nanmean(errors)) if is_visible else None,
            "speed_error": speed,
            "identity_drift": float(np.mean(ends)) if ends else None,
        }

    def series(self) -> Series:
        """Color error and change of the object over two-second clips."""
        return {"color_error": bin_means(np.array(self._errors)), "identity_drift": list(self._identity)}


class PatchMean:
    """The mean of a few aligned images."""

    def __init__(self) -> None:
        self.count, self._sum = 0, np.zeros((), np.float64)

    def add(self, patch: NDArray[Any]) -> None:
        """Take one more."""
        self.count, self._sum = self.count + 1, self._sum + patch

    @property
    def mean(self) -> NDArray[np.float64]:
        """Of those so far."""
        return np.asarray(self._sum / self.count)
