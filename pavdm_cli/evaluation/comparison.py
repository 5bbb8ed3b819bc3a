"""Paired comparison of two sets of videos: bootstrap intervals, sign tests, correction for many comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES, SEED, LEVEL = 10_000, 0, 0.05
# Drifts and slopes count by their absolute value; metrics that are not listed have no better direction.
LOWER_IS_BETTER = {
    **dict.fromkeys(("boundary_ratio", "largest_jump", "flicker", "shake", "frozen", "unpredicted", "scenes"), True),
    **dict.fromkeys(("color_error", "speed_error", "identity_drift"), True),
    **dict.fromkeys(("min_color_similarity", "one_object", "object_survival", "object_found"), False),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of paired videos, A against B; the interval is of the mean difference B - A."""

    metric: str
    pairs: int
    mean_a: float
    mean_b: float
    low: float
    high: float
    p_value: float  # of the sign test, corrected for the number of metrics (Holm)
    result: str  # "A better", "B better", "A lower", "B lower" or "tie"

    def to_json(self) -> dict[str, Any]:
        """The comparison in JSON's types."""
        return asdict(self)


def compare(a: Sequence[Mapping[str, float | None]], b: Sequence[Mapping[str, float | None]]) -> list[Comparison]:
    """Compare the metrics of paired videos: the same index is the same prompt and seed."""
    names = [name for name in a[0] if name in b[0]] if a else []
    values = {name: _paired_values(name, a, b) for name in names}
    values = {name: pairs for name, pairs in values.items() if len(pairs)}
    p_values = holm([sign_test(pairs[:, 1] - pairs[:, 0]) for pairs in values.values()])
    return [_comparison(name, pairs, p) for (name, pairs), p in zip(values.items(), p_values, strict=True)]


def _paired_values(
    name: str, a: Sequence[Mapping[str, float | None]], b: Sequence[Mapping[str, float | None]]
) -> NDArray[np.float64]:  # (n, 2)
    """The values of both sides where both have one; drifts and slopes by their absolute value."""
    pairs = [(x[name], y[name]) for x, y in zip(a, b, strict=True)]
    complete = np.array([pair for pair in pairs if None not in pair], np.float64).reshape(-1, 2)
    return np.abs(complete) if name.startswith(("drift_", "slope_")) else complete


def _comparison(name: str, pairs: NDArray[np.float64], p_value: float) -> Comparison:
    low, high = bootstrap_interval(pairs[:, 1] - pairs[:, 0])
    mean_a, mean_b = pairs.mean(axis=0)
    is_significant = p_value < LEVEL and not low <= 0 <= high
    verdict = result(name, bool(mean_a < mean_b)) if is_significant else "tie"
    return Comparison(name, len(pairs), float(mean_a), float(mean_b), low, high, p_value, verdict)


def result(name: str, a_is_lower: bool) -> str:
    """The result of a significant difference."""
    adherence = False if name.startswith("adherence_") else None
    lower_is_better = name.startswith(("drift_", "slope_")) or LOWER_IS_BETTER.get(name, adherence)
    if lower_is_better is None:
        return f"{'A' if a_is_lower else 'B'} lower"
    return f"{'A' if a_is_lower == lower_is_better else 'B'} better"


def bootstrap_interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of the mean, by resampling pairs with a fixed seed."""
    rng = np.random.default_rng(SEED)
    samples = rng.choice(differences, size=(RESAMPLES, len(differences))).mean(axis=1)
    low, high = np.quantile(samples, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def sign_test(differences: NDArray[np.float64]) -> float:
    """The exact two-sided p-value that either sign is as likely; zero differences are left out."""
    count, positive = int((differences != 0).sum()), int((differences > 0).sum())
    tail: float = sum(comb(count, k) for k in range(min(positive, count - positive) + 1)) / 2**count
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the given order."""
    corrected_values, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected_values[index] = running
    return corrected_values


MIN_REFERENCES = 3  # videos for a standard deviation


def z_scores(
    metrics: Mapping[str, float | None], reference_videos: Sequence[Mapping[str, float | None]]
) -> dict[str, float | None]:
    """How many standard deviations each metric is from the mean of reference videos; None with fewer than three."""
    return {
        name: _z_score(value, [reference.get(name) for reference in reference_videos])
        for name, value in metrics.items()
    }


def _z_score(value: float | None, reference: Sequence[float | None]) -> float | None:
    values = np.array([number for number in reference if number is not None], np.float64)
    if value is None or len(values) < MIN_REFERENCES or values.std(ddof=1) < 1e-12:
        return None
    return float((value - values.mean()) / values.std(ddof=1))
