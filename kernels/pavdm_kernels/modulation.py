"""AdaLN modulation vectors (shift, scale, gate): one per noise level, plus a bias of the block that reads them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PerLevel(NamedTuple):
    """The vector of every level, `rows[level] + bias`; kernels gather and add, so that the sum is never stored."""

    rows: Tensor  # (N, D), any stride between rows
    bias: Tensor  # (D,)

    def gather(self, level_idx: Tensor) -> Tensor:  # (T,) or (B, T) -> (T, 1, D) or (B, T, 1, D)
        """The vector of every frame's level, to broadcast over the frame's tokens."""
        return (self.rows[level_idx] + self.bias).unsqueeze(-2)

    def gather_one_plus(self, level_idx: Tensor) -> Tensor:
        """1 + the gathered vector: the factor that a scale stands for."""
        return 1 + self.gather(level_idx)


class Gathered(NamedTuple):
    """A vector that was gathered for the frames of this step; on a CPU all vectors are, in one indexing operation."""

    vector: Tensor  # (T, 1, D) or (B, T, 1, D)
    one_plus: Tensor  # 1 + vector

    def gather(self, level_idx: Tensor) -> Tensor:
        """The vector; the levels were applied before."""
        return self.vector

    def gather_one_plus(self, level_idx: Tensor) -> Tensor:
        """1 + the vector."""
        return self.one_plus


ModulationVector = PerLevel | Gathered


def gather(modulation: Tensor, level_idx: Tensor) -> list[Gathered]:  # (N, V, D); (T,) or (B, T) -> V vectors
    """Gather all V vectors of a step at once from the sums `rows + bias` of every level."""
    vectors = modulation[level_idx].unsqueeze(-2)  # (..., T, V, 1, D)
    return [Gathered(*pair) for pair in zip(vectors.unbind(-3), (1 + vectors).unbind(-3), strict=True)]
