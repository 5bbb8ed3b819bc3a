"""Fréchet and kernel distance between two sets of feature vectors, from sums accumulated vector by vector.

Features are those of our own probe (`clip_features`), so this is not FVD, which uses another network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
DIMENSIONS = 64  # of the features of a clip
MIN_VECTORS_PER_DIMENSION = 10  # with fewer, the Fréchet distance is biased upwards


@dataclass(frozen=True, slots=True)
class FeatureSums:
    """Sums over vectors x of D dimensions from which both distances are computed, in constant memory.

    With y = [x / sqrt(D), 1], the cubic kernel (x . x' / D + 1)^3 is the dot-product of third tensor powers of y.
    """

    count: int
    cubes: Values  # (D + 1, D + 1, D + 1), sum of the third tensor powers of y
    self_kernels: float  # sum of the kernel of each vector with itself

    def __add__(self, other: FeatureSums) -> FeatureSums:
        return FeatureSums(self.count + other.count, self.cubes + other.cubes, self.self_kernels + other.self_kernels)

    def __sub__(self, other: FeatureSums) -> FeatureSums:
        return FeatureSums(self.count - other.count, self.cubes - other.cubes, self.self_kernels - other.self_kernels)

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.cubes) - 1

    @property
    def mean(self) -> Values:  # (D,)
        """Mean of the vectors."""
        return np.asarray(self.cubes[:-1, -1, -1] * self.dimensions**0.5 / self.count)

    @property
    def covariance(self) -> Values:  # (D, D)
        """Unbiased covariance of the vectors."""
        squares = self.cubes[:-1, :-1, -1] * self.dimensions / self.count
        return np.asarray((squares - np.outer(self.mean, self.mean)) * self.count / (self.count - 1))


def sums_of(features: Values) -> FeatureSums:  # (n, D)
    """The sums over some vectors."""
    features = np.asarray(features, np.float64)
    vectors = np.pad(features / features.shape[1] ** 0.5, ((0, 0), (0, 1)), constant_values=1.0)  # (n, D + 1)
    squares = (vectors[:, :, None] * vectors[:, None]).reshape(len(vectors), vectors.shape[1] ** 2)
    cubes = (squares.T @ vectors).reshape((vectors.shape[1],) * 3)
    return FeatureSums(len(vectors), cubes, float(((vectors**2).sum(axis=1) ** 3).sum()))


def frechet_distance(a: FeatureSums, b: FeatureSums) -> float | None:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) of the covariances; None with fewer than two vectors in a set."""
    if min(a.count, b.count) < 2:
        return None
    root = _symmetric_root(a.covariance)
    product = np.linalg.eigvalsh(root @ b.covariance @ root).clip(min=0)
    traces = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(product).sum()
    return float(((a.mean - b.mean) ** 2).sum() + traces)


def kernel_distance(a: FeatureSums, b: FeatureSums) -> float | None:
    """Unbiased squared MMD with the kernel (x . y / D + 1)^3: about 0 for sets of any size from one distribution."""
    if min(a.count, b.count) < 2:
        return None
    within = [(float((sums.cubes**2).sum()) - sums.self_kernels) / (sums.count * (sums.count - 1)) for sums in (a, b)]
    return sum(within) - 2 * float((a.cubes * b.cubes).sum()) / (a.count * b.count)


Distance = Callable[[FeatureSums, FeatureSums], float | None]


def jackknife(statistic: Callable[[FeatureSums], float | None], groups: Sequence[FeatureSums]) -> Values | None:
    """A statistic of all groups and its 95 % interval, (3,), by leaving out each group; None if it has no value.

    A group holds the vectors of whole videos, since the clips of one video are not independent.
    """
    total = reduce(FeatureSums.__add__, groups)
    value, leave_one_out = statistic(total), [statistic(total - group) for group in groups]
    return None if value is None else jackknife_interval(value, leave_one_out)


def jackknife_interval(value: float, leave_one_out: Sequence[float | None]) -> Values | None:
    """The same from the value for all groups and those without each group; None with fewer than two groups."""
    values = np.array([estimate for estimate in leave_one_out if estimate is not None], np.float64)
    if len(values) < max(2, len(leave_one_out)):
        return None
    error = float(np.sqrt((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum()))
    margin = error * student_t_quantile(len(values) - 1)
    return np.array([value, value - margin, value + margin])


@lru_cache
def student_t_quantile(degrees_of_freedom: int, coverage: float = 0.95) -> float:
    """t such that a Student's t variable with these degrees of freedom is within -t to t with this probability.

    Bisects the closed form for integer degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4).
    """

    def probability(t: float) -> float:
        angle, odd = math.atan(t / math.sqrt(degrees_of_freedom)), degrees_of_freedom % 2
        term, total = math.cos(angle) if odd else 1.0, 0.0
        for power in range(odd, degrees_of_freedom - 1, 2):
            total += term
            term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
        return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total

    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < coverage else (low, middle)
    return low


def _symmetric_root(matrix: Values) -> Values:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(values.clip(min=0))) @ vectors.T)
