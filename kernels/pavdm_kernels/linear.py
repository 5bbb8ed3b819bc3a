"""A linear layer with an optional GELU, by oneDNN's operation on CPUs, fused where that is faster.

y = x W^T + b,   or tanh-GELU(x W^T + b)

If the weight is narrower than x, the matmul runs in the weight's dtype; y has the dtype of x again.
"""

from __future__ import annotations

import math

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
    fused_gelu = gelu and FUSES_GELU
    y: Tensor = (launch if torch.compiler.is_compiling() else onednn_linear)(x, weight, bias, fused_gelu)
    return tanh_gelu(y) if gelu and not fused_gelu else y


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """Always oneDNN, in float32 if it does not support the weight's dtype; arguments as `linear`."""
    narrow = cast_to_narrower(x, weight)
    activation: tuple[str, list[float], str] = ("gelu", [], "tanh") if gelu else ("none", [], "")
    dtype = weight.dtype if weight.dtype in ONEDNN_DTYPES else torch.float32
    operands = (narrow.to(dtype), weight.to(dtype), bias if bias is None else bias.to(dtype))
    y: Tensor = torch.ops.mkldnn._linear_pointwise(*operands, *activation)
    return y.to(weight.dtype).to(x.dtype)


def tanh_gelu(y: Tensor) -> Tensor:
    """The same GELU as y sigmoid(2u), whose exponential is cheaper than a tanh."""
    wide = y.float()
    two_u = wide.square().mul_(0.044715).add_(1).mul_(wide).mul_(2 * math.sqrt(2 / math.pi))
    return two_u.sigmoid_().mul_(wide).to(y.dtype)


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
    """Whether oneDNN's matmul computes the same: on a CPU, float32 or bfloat16, no gradients, no autocast."""
    has_supported_dtypes = weight.dtype in (torch.float32, torch.bfloat16) and x.dtype in (torch.float32, weight.dtype)
    if not (has_supported_dtypes and ONEDNN_DTYPES) or x.device.type != "cpu" or x.numel() == 0:
        return False
    return not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def onednn_dtypes() -> tuple[torch.dtype, ...]:
    """The dtypes of oneDNN's linear layers on this machine: bfloat16 requires AVX-512 on x86.

    Empty if torch was built without them (x86 and Arm builds have them).
    """
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return ()
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if has_bf16 else (torch.float32,)


ONEDNN_DTYPES = onednn_dtypes()
FUSES_GELU = torch.backends.cpu.get_cpu_capability() != "AVX2"  # there, a separate GELU is faster
