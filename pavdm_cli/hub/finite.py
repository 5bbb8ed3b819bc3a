"""Checks that weights are finite while they are loaded, with a single synchronization of the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pavdm_cli.errors import ModelError


def min_max(weight: Tensor) -> Tensor:  # (2,) float32
    """The smallest and the largest value, NaN if any value is; allocates nothing of the weight's size."""
    if not weight.is_floating_point() or not weight.numel():
        return torch.zeros(2, device=weight.device)
    return torch.stack(torch.aminmax(weight.detach())).float()


def check_finite(ranges: Mapping[str, Tensor], file: Callable[[str], Path]) -> None:
    """Reject weights that are not finite, by the `min_max` of each tensor. Raises: ModelError."""
    if not ranges:
        return
    finite = torch.stack(list(ranges.values())).isfinite().all(dim=1).tolist()
    wrong = [name for name, good in zip(ranges, finite, strict=True) if not good]
    if wrong:
        others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        message = f"{wrong[0]}{others} in {file(wrong[0])} holds values that are not finite"
        raise ModelError(
            message, "the file is damaged, or its training diverged: `pavdm models verify`, or download it again"
        )
