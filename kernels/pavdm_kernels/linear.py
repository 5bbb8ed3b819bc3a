"""A linear layer by torch, in the form that is fast where it runs, with the GELU after it where there is one.

y = x W^T + b,   or tanh-GELU(x W^T + b)
"""

from __future__ import annotations

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
    if torch.compiler.is_compiling():
        traced: Tensor = launch(x, weight, bias, gelu)
        return traced
    return pointwise(x, weight, bias, gelu)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """Always oneDNN; arguments as `linear`."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, *("gelu", [], "tanh") if gelu else ("none", [], ""))
    return y


@torch.library.custom_op("pavdm::linear", mutates_args=())
def launch(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """`pointwise` for torch.compile, whose own rule for it takes only weights that are part of the graph."""
    return pointwise(x, weight, bias, gelu)


@launch.register_fake
def output(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """Contiguous, as wide as the layer."""
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def in_float32(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's product may stand in: float32 on a CPU, no gradients, no autocast."""
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    return plain and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def has_pointwise() -> bool:
    """Whether torch was built with oneDNN's linear layers (x86 and Arm builds are)."""
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
