"""Statistics of raw samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least this share of them does not exceed (nearest rank)."""
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


def median_deviation(samples: Sequence[float]) -> float:
    """Median absolute deviation (MAD), robust against single slow samples."""
    middle = median(samples)
    return median(abs(sample - middle) for sample in samples)


def times(name: str, samples: Sequence[float]) -> dict[str, float | None]:
    """Median and 99th percentile in milliseconds of samples in seconds."""
    if not samples:
        return {f"{name}_p50_ms": None, f"{name}_p99_ms": None}
    return {f"{name}_p50_ms": 1e3 * median(samples), f"{name}_p99_ms": 1e3 * percentile(samples, 0.99)}


def round_samples(samples: Sequence[float]) -> list[float]:
    """Samples in seconds, rounded to microseconds for storage."""
    return [round(sample, 6) for sample in samples]
