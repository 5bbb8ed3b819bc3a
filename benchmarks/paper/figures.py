"""Figures of the study: metrics over time as in figure 3, contact sheets, and strips of the ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from pavdm_cli.evaluation.measure import CLIP_SECONDS
from pavdm_cli.evaluation.plot import COLORS, STYLE
from pavdm_cli.video import FrameReader, open_video

from .statistics import Rows

PANELS = {
    "motion": "Dynamic degree (optical flow, frame heights per second)",
    "adherence": "Clips that show the prompt's words",
    "one_object": "Frames with exactly one object",
    "identity_drift": "Change of the object since its first two seconds",
    "sharpness": "Sharpness (mean gradient)",
    "saturation": "Saturation",
    "brightness": "Brightness",
    "change": "Change from frame to frame",
}
COLUMNS = 2


def plot_over_time(path: Path, arms: Mapping[str, Rows]) -> None:
    """Means over prompts of each metric per two-second clip, with bands of the standard error."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 2.4 * len(PANELS) / COLUMNS), layout="constrained")
        panels = figure.subplots(len(PANELS) // COLUMNS, COLUMNS).ravel()
        for (name, title), panel in zip(PANELS.items(), panels, strict=True):
            panel.set_title(title)
            for number, (arm, rows) in enumerate(arms.items()):
                _plot_arm(panel, arm, [series_of(row, name) for row in rows.values()], COLORS[number % len(COLORS)])
        for panel in panels[-COLUMNS:]:
            panel.set_xlabel("seconds")
        handles, labels = max((panel.get_legend_handles_labels() for panel in panels), key=lambda both: len(both[1]))
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(path, dpi=80)


def series_of(row: Mapping[str, Any], name: str) -> list[float]:
    """A metric of one video per two-second clip; adherence is the mean over words that every clip can show.

    Not every clip shows how the camera moves.
    """
    clips: Mapping[str, list[float]] = row["measurement"]["clips"]
    if name != "adherence":
        return clips.get(name, [])
    words = [values for key, values in clips.items() if key.startswith("adherence_")]
    length = max(map(len, words), default=0)
    return np.mean([values for values in words if len(values) == length], axis=0).tolist() if length else []


def _plot_arm(panel: Any, arm: str, videos: Sequence[Sequence[float]], color: str) -> None:
    length = max(map(len, videos), default=0)
    if not length:
        return
    values = np.full((len(videos), length), np.nan)
    for row, video in zip(values, videos, strict=True):
        row[: len(video)] = video
    counts = (~np.isnan(values)).sum(axis=0)
    mean, error = np.nanmean(values, axis=0), np.nanstd(values, axis=0) / np.sqrt(counts)
    times = CLIP_SECONDS * (np.arange(length) + 0.5)
    style = {"linestyle": "--", "color": "#222222"} if arm == "real" else {"color": color}
    panel.plot(times, mean, label=arm, linewidth=1.6, **style)
    panel.fill_between(times, mean - error, mean + error, color=style["color"], alpha=0.15, linewidth=0)


def draw_strips(path: Path, strips: Mapping[str, np.ndarray], seconds: Sequence[float]) -> None:
    """Labeled rows of frames (n, H, W, 3), with the time above each column."""
    rows, columns = len(strips), len(seconds)
    height, width = next(iter(strips.values())).shape[1:3]
    figure = Figure(figsize=(1.1 + 1.25 * columns, 0.3 + 1.25 * rows * height / width), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for line, (label, frames) in zip(panels, strips.items(), strict=True):
        for column, (panel, frame) in enumerate(zip(line, frames, strict=True)):
            panel.imshow(frame, interpolation="nearest", aspect="equal")
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if line is panels[0]:
                panel.set_title(f"{seconds[column]:g} s", fontsize=8)
        line[0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=100, pil_kwargs={"quality": 85})


def frames_at(path: Path, seconds: Sequence[float]) -> np.ndarray:
    """The frames of a video that are shown at these times, (n, H, W, 3); the last one for times after its end."""
    video = open_video(path)
    numbers = [min(int(time * video.rate), video.frames - 1) for time in seconds]
    frames = {number: frame for number, (frame, _) in enumerate(FrameReader(video)) if number in numbers}
    return np.stack([frames[min(number, max(frames))] for number in numbers])
