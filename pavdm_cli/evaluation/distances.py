"""Fréchet and kernel distance between two sets of feature vectors, from sums that are added to vector by vector.

Both are distances of the features of our own probe (`clip_features`), not FVD, whose features are of another network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
DIMENSIONS = 64  # of the features of a clip: ten times as many clips are easily had
ENOUGH = 10  # vectors per dimension: with fewer, the Fréchet distance is biased upwards
# 97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom; the last one also for more.
QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


@dataclass(frozen=True, slots=True)
class FeatureSums:
    """Sums over vectors x of D dimensions: all that both distances need, in memory that does not grow.

    With y = [x / sqrt(D), 1], the cubic kernel (x . x' / D + 1)^3 is the inner product of third powers of y.
    """

    count: int
    cubes: Values  # (D + 1, D + 1, D + 1), sum of the third tensor powers of y
    own_kernels: float  # sum of the kernel of each vector with itself

    def __add__(self, other: FeatureSums) -> FeatureSums:
        return FeatureSums(self.count + other.count, self.cubes + other.cubes, self.own_kernels + other.own_kernels)

    def __sub__(self, other: FeatureSums) -> FeatureSums:
        return FeatureSums(self.count - other.count, self.cubes - other.cubes, self.own_kernels - other.own_kernels)

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
    """The sums of a few vectors."""
    features = np.asarray(features, np.float64)
    extended = np.pad(features / features.shape[1] ** 0.5, ((0, 0), (0, 1)), constant_values=1.0)  # (n, D + 1)
    squares = (extended[:, :, None] * extended[:, None]).reshape(len(extended), extended.shape[1] ** 2)
    cubes = (squares.T @ extended).reshape((extended.shape[1],) * 3)
    return FeatureSums(len(extended), cubes, float(((extended**2).sum(axis=1) ** 3).sum()))


def frechet_distance(a: FeatureSums, b: FeatureSums) -> float | None:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) of the covariances; None with fewer than two vectors in a set."""
    if min(a.count, b.count) < 2:
        return None
    root = _symmetric_root(a.covariance)
    product = np.linalg.eigvalsh(root @ b.covariance @ root).clip(min=0)
    traces = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(product).sum()
    return float(((a.mean - b.mean) ** 2).sum() + traces)


def kernel_distance(a: FeatureSums, b: FeatureSums) -> float | None:
    """Unbiased squared MMD with the kernel (x . y / D + 1)^3: about 0 for sets from one distribution, at any size."""
    if min(a.count, b.count) < 2:
        return None
    within = [(float((one.cubes**2).sum()) - one.own_kernels) / (one.count * (one.count - 1)) for one in (a, b)]
    return sum(within) - 2 * float((a.cubes * b.cubes).sum()) / (a.count * b.count)


Distance = Callable[[FeatureSums, FeatureSums], float | None]


def jackknife(statistic: Callable[[FeatureSums], float | None], groups: Sequence[FeatureSums]) -> Values | None:
    """Value, and low and high end of the 95 % interval, of a statistic of all groups by leaving out each (3,).

    A group holds the vectors of whole videos: clips of one video are not independent. None where it has no value.
    """
    total = reduce(FeatureSums.__add__, groups)
    value, without = statistic(total), [statistic(total - group) for group in groups]
    return None if value is None else jackknife_interval(value, without)


def jackknife_interval(value: float, without: Sequence[float | None]) -> Values | None:
    """The same from the statistic of all groups and that without each; None with fewer than two groups."""
    known = np.array([one for one in without if one is not None], np.float64)
    if len(known) < max(2, len(without)):
        return None
    error = float(np.sqrt((len(known) - 1) / len(known) * ((known - known.mean()) ** 2).sum()))
    margin = error * QUANTILES[min(len(known) - 1, len(QUANTILES)) - 1]
    return np.array([value, value - margin, value + margin])


def _symmetric_root(matrix: Values) -> Values:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(values.clip(min=0))) @ vectors.T)
