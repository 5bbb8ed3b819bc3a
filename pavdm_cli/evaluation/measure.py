"""Measures one video file: reads it once, and summarizes the metrics of its frames overall and per two-second clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pavdm_cli.evaluation.frame_metrics import APPEARANCE, FrameMeter, FrameSeries
from pavdm_cli.video import FrameReader, VideoInfo

if TYPE_CHECKING:
    from pavdm_cli.evaluation.ground_truth import WorldMeter

CLIP_SECONDS = 2.0
MIN_SLOPE_CLIPS = 3  # of CLIP_SECONDS each, for a slope
END_FRACTION = 0.15  # of the video: drift compares its first and last part
FROZEN = 0.05 / 255  # mean change of luma, below which a frame repeats the one before
EPSILON = 0.2 / 255  # keeps ratios finite for nearly still videos
SCENE_THRESHOLD, SCENE_SECONDS = 3.0, 0.6  # PySceneDetect's default ratio; shortest scene

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The metrics of one video as plain numbers; None if a video is too short or has no chunk boundaries."""

    path: str
    frames: int
    fps: float
    width: int
    height: int
    chunk_frames: int | None
    metrics: dict[str, float | None]
    clips: dict[str, list[float]]  # each series, averaged over every two seconds
    features: list[list[float]] = field(default_factory=list)  # of the probe, where sets are compared
    spans: list[dict[str, Any]] = field(default_factory=list)  # of prompts: start, end, caption, metrics

    def to_json(self) -> dict[str, Any]:
        """The measurement in JSON's types."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """The same without features, which are not readable."""
        return {name: value for name, value in self.to_json().items() if name != "features"}


def measure(
    video: VideoInfo,
    *,
    chunk_frames: int | None = None,
    first_chunk: int | None = None,
    flow: bool = False,
    world: WorldMeter | None = None,
    on_progress: Callable[[int], object] = lambda count: None,
) -> Measurement:
    """Measure every frame of a video, also with `world`; calls `on_progress` with 1 after each.

    first_chunk: frames of the first chunk, if other than `chunk_frames`. Raises: InputError.
    """
    meter, scenes = FrameMeter(float(video.rate), flow), SceneCounter(float(video.rate))
    for frame, _ in FrameReader(video):
        meter.add(frame)
        scenes.add(frame)
        if world:
            world.add(frame)
        on_progress(1)
    series, fps = meter.series, float(video.rate)
    count = len(series["brightness"])
    metrics = {"scenes": float(scenes.finish())} | summarize(series, chunk_frames, first_chunk)
    metrics |= {f"drift_{name}": drift(series[name]) for name in APPEARANCE}
    metrics |= {f"slope_{name}": slope(clip_means(series[name], fps)) for name in APPEARANCE}
    clips = {name: clip_means(series[name], fps).round(6).tolist() for name in series.values}
    world_metrics, world_clips = world.finish() if world else ({}, {})
    features = world.features if world else []
    properties = (str(video.path), count, fps, video.width, video.height, chunk_frames)
    spans = world.spans if world else []
    return Measurement(*properties, metrics | world_metrics, clips | world_clips, features, spans)


def summarize(
    series: FrameSeries, chunk_frames: int | None = None, first_chunk: int | None = None
) -> dict[str, float | None]:
    """Metrics of the whole video; those of optical flow only where the series has them."""
    change = series["change"]
    if not len(change):
        return {"dynamics": None}
    metrics: dict[str, float | None] = {
        "dynamics": float(change.mean()),
        "frozen": float((change < FROZEN).mean()),
        "largest_jump": float(change.max() / (np.median(change) + EPSILON)),
        "boundary_ratio": boundary_ratio(change, chunk_frames, first_chunk),
        "min_color_similarity": float(series["color_similarity"].min()),
        "flicker": second_difference(series["brightness"]),
        "shake": shake(series),
    }
    if len(series["motion"]):
        metrics["dynamic_degree"] = float(np.median(series["motion"]))
    if len(series["unpredicted"]):
        metrics["unpredicted"] = float(series["unpredicted"].sum() / (series["predictable"] + EPSILON).sum())
    return metrics


def boundary_ratio(change: Values, chunk_frames: int | None, first_chunk: int | None = None) -> float | None:
    """Mean change across chunk boundaries over that inside chunks; None without boundaries."""
    if chunk_frames is None or chunk_frames < 2 or len(change) < chunk_frames:
        return None
    at_boundary = (np.arange(1, len(change) + 1) - (first_chunk or chunk_frames)) % chunk_frames == 0
    return float(change[at_boundary].mean() / (change[~at_boundary].mean() + EPSILON))


def second_difference(values: Values) -> float | None:
    """Mean absolute second difference, which is small for smooth changes."""
    return float(np.abs(np.diff(values, n=2)).mean()) if len(values) > 2 else None


def shake(series: FrameSeries) -> float | None:
    """Median change of the global shift from frame to frame, in pixels: 0 for a smooth pan."""
    shifts = np.stack([series["shift_x"], series["shift_y"]], axis=1)  # (n - 1, 2)
    return float(np.median(np.abs(np.diff(shifts, axis=0)).sum(axis=1))) if len(shifts) > 1 else None


def drift(values: Values) -> float | None:
    """Mean of the last 15 % of frames less that of the first 15 %, as a share of the latter."""
    count = round(len(values) * END_FRACTION)
    if not count:
        return None
    first, last = values[:count].mean(), values[-count:].mean()
    return float((last - first) / max(abs(first), 1e-3))


def slope(clips: Values) -> float | None:
    """Least-squares slope over two-second clips, as a share of their mean per minute."""
    if len(clips) < MIN_SLOPE_CLIPS:
        return None
    per_clip = np.polyfit(np.arange(len(clips)), clips, 1)[0]
    return float(per_clip * 60 / CLIP_SECONDS / max(abs(clips.mean()), 1e-3))


def clip_means(values: Values, fps: float) -> Values:
    """Means over two-second clips; the last one includes the remaining frames."""
    length = max(1, round(CLIP_SECONDS * fps))
    starts = np.arange(max(1, len(values) // length)) * length
    counts = np.diff([*starts, len(values)])
    return np.add.reduceat(values, starts) / counts if len(values) else values


class SceneCounter:
    """Counts scenes by PySceneDetect's AdaptiveDetector."""

    def __init__(self, fps: float) -> None:
        from scenedetect.detectors import AdaptiveDetector

        shortest = max(1, round(SCENE_SECONDS * fps))
        self._detector = AdaptiveDetector(adaptive_threshold=SCENE_THRESHOLD, min_scene_len=shortest)
        self._fps, self._frames, self._cuts = float(fps), 0, 0

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Process the next frame, (H, W, 3) RGB."""
        self._cuts += len(self._detector.process_frame(self._time(), np.ascontiguousarray(frame[..., ::-1])))
        self._frames += 1

    def finish(self) -> int:
        """The number of scenes."""
        return 1 + self._cuts + len(self._detector.post_process(self._time()) or ())

    def _time(self) -> Any:
        from scenedetect import FrameTimecode

        return FrameTimecode(self._frames, self._fps)
