"""Bars that only rise: a figure may not be worse than the best one stored for the same world, beyond its noise."""

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

SAME = ("world", "scenes", "seeds", "length", "method", "steps", "guidance")  # settings that two rows share
# Two standard errors over the videos, by bootstrap; fixed scenes have none, and keep a margin for training's own.
NOISE = {
    "codec, dB": 0.1,
    "codec on objects, dB": 0.1,
    "codec, unevenness of motion": 0.005,
    "frames with exactly one object": 0.026,
    "first 8 frames with exactly one object": 0.03,
    "videos without an object in frame 0": 1.0,
    "hop at chunk joints": 0.016,
    "change inside chunks, of real": 0.086,
}
DRIFT_NOISE = 0.5  # of a mean of 16 z-scores
# What real videos have: better than that is chance.
ENOUGH = {
    "hop at chunk joints": 1.0,
    "words right, last seconds less first": 0.0,
    "one object, last seconds less first": 0.0,
}
ENOUGH_DRIFT = 0.8


def stored(path: Path) -> list[Row]:
    """The rows of a results file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tightened(bars: Iterable[Bar], part: str, settings: Row, rows: Iterable[Row]) -> list[Bar]:
    """The bars, each at least as strict as the best of the comparable rows less noise."""
    earlier = [row["bars"] for row in rows if row["part"] == part and comparable(row["settings"], settings)]
    return [_tightened(bar, [row[bar.name]["value"] for row in earlier if bar.name in row], settings) for bar in bars]


def comparable(one: Row, other: Row) -> bool:
    """Whether two rows measured the same scenes the same way; never where one does not say which world."""
    return "world" in one and all(one.get(name) == other.get(name) for name in SAME)


def _tightened(bar: Bar, values: list[float], settings: Row) -> Bar:
    if not values:
        return bar
    both, enough = math.isfinite(bar.low) and math.isfinite(bar.high), _enough(bar.name)
    if both:  # the middle is best
        middle = (bar.low + bar.high) / 2
        reach = min(abs(value - middle) for value in values) + _noise(bar.name, middle, settings)
        return replace(bar, low=max(bar.low, middle - reach), high=min(bar.high, middle + reach))
    if math.isfinite(bar.low):
        best = min(max(values), math.inf if enough is None else enough)
        return replace(bar, low=max(bar.low, best - _noise(bar.name, best, settings)))
    best = max(min(values), -math.inf if enough is None else enough)
    return replace(bar, high=min(bar.high, best + _noise(bar.name, best, settings)))


def _enough(name: str) -> float | None:
    return ENOUGH_DRIFT if name.startswith("drift of") else ENOUGH.get(name)


def _noise(name: str, best: float, settings: Row) -> float:
    """What a figure varies by; of a share of videos or frames two standard errors, and one more of them."""
    if name in NOISE:
        return NOISE[name]
    if name.startswith("drift of"):
        return DRIFT_NOISE
    first, last = settings.get("seeds", (0, settings.get("scenes", 1)))
    classes = len(PARTIAL) if name.endswith(tuple(f", {one}" for one in PARTIAL)) else 1  # which share the seeds
    count = max(1, (int(last) - int(first)) // classes)
    share = min(1.0, max(0.0, best))
    return 2 * math.sqrt(share * (1 - share) / count) + 1 / count
