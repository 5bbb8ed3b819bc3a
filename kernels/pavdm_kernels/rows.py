"""How a modulation vector is stored: one row a noise level, plus one row of the block that reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from pavdm_kernels.jit import jit

if TYPE_CHECKING:
    import triton.language as tl


class Rows(NamedTuple):
    """A vector that depends on a frame's level: `table[level] + row`, added where it is read and never stored."""

    table: Tensor  # (N, D), any stride between rows
    row: Tensor  # (D,)

    def at(self, level_idx: Tensor) -> Tensor:  # (T,) or (B, T) -> (T, 1, D) or (B, T, 1, D)
        """The vector of every frame, ready to broadcast over that frame's tokens."""
        return (self.table[level_idx] + self.row).unsqueeze(-2)

    def above_one(self, level_idx: Tensor) -> Tensor:
        """1 + `at`: what a scale multiplies by."""
        return 1 + self.at(level_idx)


class Picked(NamedTuple):
    """The same vector looked up already, one of each frame: on a CPU all of a step's are, at once."""

    vector: Tensor  # (T, 1, D) or (B, T, 1, D)
    raised: Tensor  # 1 + vector

    def at(self, level_idx: Tensor) -> Tensor:
        """The vector, whatever the levels: they were chosen before."""
        return self.vector

    def above_one(self, level_idx: Tensor) -> Tensor:
        """1 + `at`."""
        return self.raised


Vector = Rows | Picked


def pick(every: Tensor, level_idx: Tensor) -> list[Picked]:  # (N, V, D); (T,) or (B, T) -> V vectors
    """All vectors of a step by one look-up in a table that holds, for every level, the sums of `Rows`."""
    chosen = every[level_idx].unsqueeze(-2)  # (..., T, V, 1, D)
    return [Picked(*pair) for pair in zip(chosen.unbind(-3), (1 + chosen).unbind(-3), strict=True)]


@jit
def load_rows(TABLE, ROW, level, stride, columns, WIDTH: tl.constexpr):
    """`Rows.at` of one frame in float32, some columns of it."""
    ours = tl.load(TABLE + level * stride + columns, mask=columns < WIDTH, other=0.0).to(tl.float32)
    return ours + tl.load(ROW + columns, mask=columns < WIDTH, other=0.0).to(tl.float32)
