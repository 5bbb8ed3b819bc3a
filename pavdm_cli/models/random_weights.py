"""Random weights at a model's full size, created on its device: speed can be measured without a download."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from pavdm_cli.models.meta_init import meta_init

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def init_random(
    build: Callable[[], M], device: torch.device, dtype: torch.dtype, fixed_weights: Mapping[str, Tensor]
) -> M:
    """A model with random weights except for `fixed_weights`; deterministic, and initialized in place."""
    with meta_init():
        model = build().to(dtype)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, weight in model.state_dict().items():
        if name in fixed_weights:
            weight.copy_(fixed_weights[name])
        else:
            _fill(name, weight, generator)
    return model.eval().requires_grad_(False)


def _fill(name: str, weight: Tensor, generator: torch.Generator) -> None:
    if not weight.is_floating_point():
        weight.zero_()
    elif weight.ndim > 1:
        weight.normal_(std=(weight.numel() / weight.shape[0]) ** -0.5, generator=generator)
    else:  # norm weights near one, biases near zero
        weight.normal_(std=0.02, generator=generator).add_(name.endswith(("weight", "running_var")))
