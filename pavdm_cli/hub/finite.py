"""Whether weights are numbers, found out while they are loaded: each is read once more, the device waited for once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pavdm_cli.errors import ModelError


def extremes(weight: Tensor) -> Tensor:  # (2,) float32
    """The smallest and the largest value, NaN where one of them is, with no temporary of the weight's size."""
    if not weight.is_floating_point() or not weight.numel():
        return torch.zeros(2, device=weight.device)
    return torch.stack(torch.aminmax(weight.detach())).float()


def check_finite(found: Mapping[str, Tensor], file: Callable[[str], Path]) -> None:
    """Refuse weights that are not finite, by the `extremes` of each tensor. Raises: ModelError."""
    if not found:
        return
    finite = torch.stack(list(found.values())).isfinite().all(dim=1).tolist()
    wrong = [name for name, good in zip(found, finite, strict=True) if not good]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        message = f"{wrong[0]}{more} in {file(wrong[0])} holds values that are not finite"
        raise ModelError(
            message, "the file is damaged, or its training diverged: `pavdm models verify`, or fetch it again"
        )
