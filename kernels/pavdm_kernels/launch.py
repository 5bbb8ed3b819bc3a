"""One launch of a Triton kernel, described so that it can be run, or compiled without being run."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

NUM_STAGES = 1  # no software pipelining by the compiler: the loops that matter prefetch explicitly


class KernelLaunch(NamedTuple):
    """A `@triton.jit` function with its grid and all its arguments, in the order of its parameters."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Tensor | int | float | None]
    num_warps: int

    def run(self) -> None:
        """Launch on the device of the first tensor; on a CPU this needs Triton's interpreter."""
        first = next(value for value in self.arguments.values() if isinstance(value, Tensor))
        with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
            self.kernel[self.grid](**self.arguments, num_warps=self.num_warps, num_stages=NUM_STAGES)


def split_width(width: int, min_split: int = 512) -> tuple[int, int]:
    """Two powers of two that cover a width: 1152 is 1024 + 128, 1872 is 1024 + 1024, 72 is 64 + 8.

    Triton's blocks have a power of two of columns: a single block for 1152 would be 2048 wide and nearly half empty.
    Widths below `min_split`, and powers of two, fit the first block; the second is then 1.
    """
    ceiling = 1 << (width - 1).bit_length()
    if width < min_split or width == ceiling:
        return ceiling, 1
    return ceiling // 2, 1 << (width - ceiling // 2 - 1).bit_length()
