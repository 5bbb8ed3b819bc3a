"""A linear layer by torch, in the form that is fast where it runs, with the GELU after it where there is one.

y = x W^T + b,   or tanh-GELU(x W^T + b)

A weight in fewer bits than x decides in which the product is made; y is as wide as x again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_kernels.jit import fused


def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """Torch's own, which on a CPU writes the bias out first and reads the product again for the GELU."""
    narrow = narrowed(x, weight)
    y = F.linear(narrow, weight, bias)
    y = F.gelu(y, approximate="tanh") if gelu else y
    return y if narrow is x else y.to(x.dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """The layer of every token: x (..., D), weight (E, D), bias (E,) to (..., E)."""
    if not (by_onednn(x, weight) and fused() and has_pointwise()):
        return linear_reference(x, weight, bias, gelu)
    if torch.compiler.is_compiling():
        traced: Tensor = launch(x, weight, bias, gelu)
        return traced
    return pointwise(x, weight, bias, gelu)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """Always oneDNN; arguments as `linear`."""
    after: tuple[str, list[float], str] = ("gelu", [], "tanh") if gelu else ("none", [], "")
    y: Tensor = torch.ops.mkldnn._linear_pointwise(narrowed(x, weight), weight, bias, *after)
    return y.to(x.dtype)


@torch.library.custom_op("pavdm::linear", mutates_args=())
def launch(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """`pointwise` for torch.compile, whose own rule for it takes only weights that are part of the graph."""
    return pointwise(x, weight, bias, gelu)


@launch.register_fake
def output(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """Contiguous, as wide as the layer."""
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def narrowed(x: Tensor, weight: Tensor) -> Tensor:
    """x in the precision of the weight, where that is the narrower one and nobody else decides."""
    autocast = not x.is_meta and torch.is_autocast_enabled(x.device.type)
    return x if autocast or weight.dtype.itemsize >= x.dtype.itemsize else x.to(weight.dtype)


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's product may stand in: on a CPU, no gradients, no autocast."""
    known = weight.dtype in (torch.float32, torch.bfloat16) and x.dtype in (torch.float32, weight.dtype)
    plain = known and x.device.type == "cpu" and x.numel() > 0
    return plain and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def has_pointwise() -> bool:
    """Whether torch was built with oneDNN's linear layers (x86 and Arm builds are)."""
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
