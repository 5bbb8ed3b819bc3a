"""Compares a video of the rendered world with its prompt: words, object count, color, speed and identity over time.

The scene of a caption can be rendered. Words and counts are classified by the probe, which was trained on renders; the
object's color, speed and identity are measured by template matching.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pavdm_cli.evaluation.clip_features import CLIP_STRIDE, Frame, ProbeMeter, Resampler
from pavdm_cli.evaluation.object_tracker import color_error, expected_speed, find_object, object_templates
from pavdm_cli.evaluation.probe import ATTRIBUTES, CLIP_FRAMES, PROBE_FPS
from pavdm_cli.evaluation.prompt_spans import PromptSpan
from pavdm_cli.pocket_world.world import Scene

METRIC_NAMES = {"terrain": "place"}  # names of attributes in metrics, where they differ
LOST_FRAMES = 4  # one second at the probe's rate, after which a missing object counts as lost
BIN_FRAMES = 8  # two seconds at the probe's rate, like the other series
END_FRACTION = 0.15  # of the video, averaged for its end

Metrics = dict[str, float | None]
Series = dict[str, list[float]]


class WorldMeter:
    """Applies the probe to a video frame by frame; with spans of prompts, also tracks the object of each."""

    def __init__(self, fps: float, spans: Sequence[PromptSpan] = ()) -> None:
        self._resampler, self._probe, self._spans = Resampler(fps), ProbeMeter(counting=bool(spans)), spans
        self._trackers = [ObjectMeter(span.scene) for span in spans]
        self._frames = 0  # at the probe's rate

    def add(self, frame: Frame) -> None:
        """Process the next frame of the video, (H, W, 3) RGB of any size."""
        for image in self._resampler.add(frame):
            self._probe.add(image)
            for span, tracker in zip(self._spans, self._trackers, strict=True):
                if span.contains(self._frames, self._frames + 1):
                    tracker.add(image)
            self._frames += 1

    @property
    def features(self) -> list[list[float]]:
        """Features of each clip of four seconds."""
        return [row.round(5).tolist() for row in self._probe.features]

    @property
    def spans(self) -> list[dict[str, Any]]:
        """Times, caption and metrics of each span."""
        results = zip(self._spans, self._measure(), strict=True)
        return [span.to_json() | {"metrics": result.metrics} for span, result in results]

    def finish(self) -> tuple[Metrics, Series]:
        """Metrics of all spans, and their series over two-second clips; both empty without a span."""
        results = self._measure()
        series = {
            name: [v for result in results for v in result.series.get(name, [])]
            for result in results
            for name in result.series
        }
        return weighted_means(results) | adherence_means(series), series

    def _measure(self) -> list[SpanResult]:
        pairs = zip(self._spans, self._trackers, strict=True)
        return [measure_span(span, self._probe, tracker) for span, tracker in pairs]


@dataclass(frozen=True, slots=True)
class SpanResult:
    """The metrics of a span, and their series over its clips."""

    frames: int  # at the probe's rate
    metrics: Metrics
    series: Series


def measure_span(span: PromptSpan, probe: ProbeMeter, tracker: ObjectMeter) -> SpanResult:
    """Compare the clips and frames of a span with its scene."""
    clips = [
        words for i, words in enumerate(probe.words) if span.contains(i * CLIP_STRIDE, i * CLIP_STRIDE + CLIP_FRAMES)
    ]
    counts = [count for i, count in enumerate(probe.counts) if span.contains(i, i + 1)]
    series = adherence(span, clips)
    has_one = np.array([count == "one" for count in counts], np.float64)
    metrics = adherence_means(series)
    metrics |= {"one_object": float(has_one.mean()) if len(has_one) else None, "object_survival": survival(has_one)}
    return SpanResult(
        len(has_one), metrics | tracker.metrics(), series | {"one_object": bin_means(has_one)} | tracker.series()
    )


def adherence(span: PromptSpan, clips: Sequence[Mapping[str, str]]) -> Series:
    """Whether each clip shows what the caption says, by word: 0 or 1.

    The camera is left out where the caption does not mention it, and in clips that do not show how it moves.
    """
    names = [name for name in ATTRIBUTES if name != "camera" or span.names_camera]
    return {
        f"adherence_{METRIC_NAMES.get(name, name)}": [
            float(words[name] == getattr(span.scene, name)) for words in clips if words[name]
        ]
        for name in names
    }


def adherence_means(series: Series) -> Metrics:
    """The share of clips that show each word; None without a clip."""
    means = {name: float(np.mean(values)) if values else None for name, values in series.items()}
    return {name: value for name, value in means.items() if name.startswith("adherence_")}


def weighted_means(results: Sequence[SpanResult]) -> Metrics:
    """The mean of every metric over spans, weighted by their frames."""
    means: Metrics = {}
    for name in dict.fromkeys(name for result in results for name in result.metrics):
        values = [
            (value, result.frames)
            for result in results
            if (value := result.metrics.get(name)) is not None and result.frames
        ]
        means[name] = (
            sum(value * count for value, count in values) / sum(count for _, count in values) if values else None
        )
    return means


def survival(has_one: NDArray[np.float64]) -> float | None:  # (n,), 1 where a frame shows exactly one object
    """Share of the video before the object is first missing, doubled or broken for a second."""
    if not len(has_one):
        return None
    run = np.convolve(has_one == 0, np.ones(LOST_FRAMES), "valid") if len(has_one) >= LOST_FRAMES else np.zeros(0)
    first_losses = np.flatnonzero(run >= LOST_FRAMES - 0.5)
    return float(first_losses[0] / len(has_one)) if len(first_losses) else 1.0


def bin_means(values: NDArray[np.float64]) -> list[float]:
    """Means over two-second bins, ignoring NaN; bins of NaN alone are dropped."""
    bins = [values[start : start + BIN_FRAMES] for start in range(0, len(values), BIN_FRAMES)]
    return [float(np.nanmean(bin_values)) for bin_values in bins if not np.isnan(bin_values).all()]


class ObjectMeter:
    """Tracks the scene's object from frame to frame."""

    def __init__(self, scene: Scene) -> None:
        self._templates, self._speed = object_templates(scene), expected_speed(scene)
        self._before: tuple[float, float] | None = None
        self._first = PatchMean()  # of the first two seconds in which the object is seen
        self._current = PatchMean()
        self._errors: list[float] = []  # NaN where the object is not found
        self._speeds: list[float] = []
        self._identity: list[float] = []  # of every two seconds in which the object is seen, after the first

    def add(self, frame: Frame) -> None:
        """Process the next frame at the probe's rate and size."""
        detection = find_object(frame, self._templates)
        self._errors.append(color_error(detection, self._templates) if detection else float("nan"))
        location = (detection.x, detection.y) if detection else None
        if location and self._before:
            self._speeds.append(
                float(np.hypot(location[0] - self._before[0], location[1] - self._before[1])) * PROBE_FPS
            )
        self._before = location
        if detection:
            self._add_patch(detection.patch)

    def _add_patch(self, patch: NDArray[np.float32]) -> None:
        if self._first.count < BIN_FRAMES:
            self._first.add(patch)
            return
        self._current.add(patch)
        if self._current.count == BIN_FRAMES:
            num_values = 3 * float(self._templates.weights.sum())
            difference = (self._current.mean - self._first.mean) ** 2
            self._identity.append(float(np.sqrt(difference.sum() / num_values)))
            self._current = PatchMean()

    def metrics(self) -> Metrics:
        """Errors of color and speed, and the change of the object by the end."""
        errors, last_changes = (
            np.array(self._errors),
            self._identity[-max(1, round(END_FRACTION * len(self._identity))) :],
        )
        is_visible = bool((~np.isnan(errors)).any())
        speed = abs(float(np.mean(self._speeds)) - self._speed) if self._speeds else None
        return {
            "object_found": float((~np.isnan(errors)).mean()) if len(errors) else None,
            "color_error": float(np.nanmean(errors)) if is_visible else None,
            "speed_error": speed,
            "identity_drift": float(np.mean(last_changes)) if last_changes else None,
        }

    def series(self) -> Series:
        """Color error and change of the object over two-second clips."""
        return {"color_error": bin_means(np.array(self._errors)), "identity_drift": list(self._identity)}


class PatchMean:
    """The mean of a few aligned images."""

    def __init__(self) -> None:
        self.count, self._sum = 0, np.zeros((), np.float64)

    def add(self, patch: NDArray[Any]) -> None:
        """Add an image."""
        self.count, self._sum = self.count + 1, self._sum + patch

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of the images so far."""
        return np.asarray(self._sum / self.count)
