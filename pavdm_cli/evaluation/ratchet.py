"""Ratchet: a metric may not be worse than the best stored value of the same world, beyond noise."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pavdm_cli.evaluation.bars import Bar
from pavdm_cli.evaluation.videos import PARTIAL

Row = Mapping[str, Any]

COMPARED_SETTINGS = ("world", "scenes", "seeds", "length", "method", "steps", "guidance")  # equal in comparable rows
# Two standard errors over the videos, by bootstrap; metrics of fixed scenes get a margin for training noise.
NOISE = {
    "PSNR at 96x64, dB": 0.1,
    "object PSNR at 96x64, dB": 0.1,
    "motion unevenness of the VAE": 0.005,
    "frames with exactly one object": 0.026,
    "first 8 frames with exactly one object": 0.03,
    "videos without an object in frame 0": 1.0,
    "boundary ratio, of real": 0.016,
    "change inside chunks, of real": 0.086,
}
DRIFT_NOISE = 0.5  # of the mean of 16 z-scores
ROUNDING = 5e-5  # stored values have four decimals
# Values of real videos: anything better is due to chance.
REAL_VALUES = {
    "boundary ratio, of real": 1.0,
    "accuracy, last seconds minus first": 0.0,
    "one object, last seconds minus first": 0.0,
}
REAL_DRIFT = 0.8


def load_rows(path: Path) -> list[Row]:
    """The rows of a results file; empty if it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tighten(bars: Iterable[Bar], part: str, conditions: Row, rows: Iterable[Row]) -> list[Bar]:
    """Tighten each bar to the best comparable row, minus noise."""
    earlier = [row["bars"] for row in rows if row["part"] == part and is_comparable(row["settings"], conditions)]
    return [
        _tighten_bar(bar, [row[bar.name]["value"] for row in earlier if bar.name in row], conditions) for bar in bars
    ]


def is_comparable(row: Row, other_row: Row) -> bool:
    """Whether two rows measured the same scenes in the same way; False if the world is unknown."""
    return "world" in row and all(row.get(name) == other_row.get(name) for name in COMPARED_SETTINGS)


def _tighten_bar(bar: Bar, values: list[float], conditions: Row) -> Bar:
    if not values:
        return bar
    two_sided, real = math.isfinite(bar.low) and math.isfinite(bar.high), _real_value(bar.name)
    if two_sided:  # the middle is best
        middle = (bar.low + bar.high) / 2
        distance = min(abs(value - middle) for value in values) + _noise(bar.name, middle, conditions)
        return replace(bar, low=max(bar.low, middle - distance), high=min(bar.high, middle + distance))
    if math.isfinite(bar.low):
        best = min(max(values), math.inf if real is None else real)
        return replace(bar, low=max(bar.low, best - _noise(bar.name, best, conditions)))
    best = max(min(values), -math.inf if real is None else real)
    return replace(bar, high=min(bar.high, best + _noise(bar.name, best, conditions)))


def _real_value(name: str) -> float | None:
    return REAL_DRIFT if name.startswith("drift of") else REAL_VALUES.get(name)


def _noise(name: str, best: float, conditions: Row) -> float:
    """The noise of a metric; for a fraction of videos or frames, two standard errors plus one of them."""
    if name in NOISE:
        return NOISE[name]
    if name.startswith("drift of"):
        return DRIFT_NOISE
    first, last = conditions.get("seeds", (0, conditions.get("scenes", 1)))
    classes = (
        len(PARTIAL) if name.endswith(tuple(f", {prompt_class}" for prompt_class in PARTIAL)) else 1
    )  # the classes share the seeds
    count = max(1, (int(last) - int(first)) // classes)
    share = min(1.0, max(0.0, best))
    return 2 * math.sqrt(share * (1 - share) / count) + 1 / count + ROUNDING
