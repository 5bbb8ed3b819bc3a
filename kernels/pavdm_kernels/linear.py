"""A linear layer by torch, in the form that is fast where it runs, with the GELU after it where there is one.

y = x W^T + b,   or tanh-GELU(x W^T + b)
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_kernels.jit import fused


def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """Torch's own, which on a CPU writes the bias out first and reads the product again for the GELU."""
    y = F.linear(x, weight, bias)
    return F.gelu(y, approximate="tanh") if gelu else y


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """The layer of every token: x (..., D), weight (E, D), bias (E,) to (..., E)."""
    if not (in_float32(x, weight) and fused() and has_pointwise()):
        return linear_reference(x, weight, bias, gelu)
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, *("gelu", [], "tanh") if gelu else ("none", [], ""))
    return y


def in_float32(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's product may stand in: float32 on a CPU, no gradients, no autocast, nothing being traced."""
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    traced = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    return plain and not traced


@cache
def has_pointwise() -> bool:
    """Whether torch was built with oneDNN's linear layers (x86 and Arm builds are)."""
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
