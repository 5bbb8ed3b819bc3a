"""A linear layer with an optional GELU, by oneDNN's fused operation on CPUs.

y = x W^T + b,   or tanh-GELU(x W^T + b)

If the weight is narrower than x, the matmul runs in the weight's dtype; y has the dtype of x again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_kernels.dispatch import kernels_enabled


def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """Torch's own; on a CPU it materializes the bias first and reads the result again for the GELU."""
    narrow = cast_to_narrower(x, weight)
    y = F.linear(narrow, weight, bias)
    y = F.gelu(y, approximate="tanh") if gelu else y
    return y if narrow is x else y.to(x.dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """x (..., D), weight (E, D), bias (E,) -> (..., E)."""
    if not (can_use_onednn(x, weight) and kernels_enabled()):
        return linear_reference(x, weight, bias, gelu)
    if torch.compiler.is_compiling():
        y: Tensor = launch(x, weight, bias, gelu)
        return y
    return onednn_linear(x, weight, bias, gelu)


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """Always oneDNN; arguments as `linear`."""
    activation: tuple[str, list[float], str] = ("gelu", [], "tanh") if gelu else ("none", [], "")
    y: Tensor = torch.ops.mkldnn._linear_pointwise(cast_to_narrower(x, weight), weight, bias, *activation)
    return y.to(x.dtype)


@torch.library.custom_op("pavdm::linear", mutates_args=())
def launch(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """`onednn_linear` for torch.compile, whose own lowering requires weights that are part of the graph."""
    return onednn_linear(x, weight, bias, gelu)


@launch.register_fake
def outputs(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """Contiguous, in the dtype of x."""
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def cast_to_narrower(x: Tensor, weight: Tensor) -> Tensor:
    """x in the dtype of the weight if that is narrower; under autocast, x unchanged."""
    autocast = not x.is_meta and torch.is_autocast_enabled(x.device.type)
    return x if autocast or weight.dtype.itemsize >= x.dtype.itemsize else x.to(weight.dtype)


def can_use_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's matmul computes the same: on a CPU, in a dtype that it supports, no gradients, no autocast."""
    if weight.dtype not in ONEDNN_DTYPES or x.dtype not in (torch.float32, weight.dtype):
        return False
    if x.device.type != "cpu" or x.numel() == 0:
        return False
    return not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def onednn_dtypes() -> tuple[torch.dtype, ...]:
    """The dtypes of oneDNN's linear layers on this machine: bfloat16 only on CPUs with AVX-512 or better, or on Arm.

    Empty if torch was built without them (x86 and Arm builds have them).
    """
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return ()
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if has_bf16 else (torch.float32,)


ONEDNN_DTYPES = onednn_dtypes()
