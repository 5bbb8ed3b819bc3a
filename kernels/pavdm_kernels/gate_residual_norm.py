"""Gated residual sum, then a LayerNorm with weight and bias; returns both.

x' = x + gate[level] * branch
y  = LN(x') * weight + bias
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_kernels.dispatch import use_kernel
from pavdm_kernels.gate_residual import gate_arguments, gate_residual_reference
from pavdm_kernels.gate_residual_modulate import DATA_REGISTERS
from pavdm_kernels.launch import KernelLaunch
from pavdm_kernels.modulate import token_blocks, token_grid
from pavdm_kernels.modulation import PerLevel
from pavdm_kernels.op import TOLERANCES, Op, RandomInputs, Sizes


def gate_residual_norm_reference(
    x: Tensor, branch: Tensor, level_idx: Tensor, gate: PerLevel, norm: tuple[Tensor, Tensor], eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """`gate_residual_reference`, then the norm in the dtype of x."""
    x = gate_residual_reference(x, branch, level_idx, gate)
    return x, F.layer_norm(x, x.shape[-1:], *norm, eps)


def gate_residual_norm(
    x: Tensor, branch: Tensor, level_idx: Tensor, gate: PerLevel, norm: tuple[Tensor, Tensor], eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Add a branch to the residual stream and normalize the next branch's input: (x', y), shapes and dtype of x.

    x, branch (B, T, S, D); level_idx int32 (T,) or (B, T); norm: weight and bias, (D,) each.
    """
    if not use_kernel(x):
        return gate_residual_norm_reference(x, branch, level_idx, gate, norm, eps)
    out: tuple[Tensor, Tensor] = launch(x, branch, level_idx, gate, norm, eps)
    return out


def prepare_launch(
    x: Tensor, branch: Tensor, level_idx: Tensor, gate: Sequence[Tensor], norm: Sequence[Tensor], eps: float = 1e-6
) -> tuple[KernelLaunch, tuple[Tensor, Tensor]]:
    """The launch of the kernel, and the outputs that it fills."""
    from pavdm_kernels.triton_kernels.gate_residual_norm import gate_residual_norm_kernel

    total, y = outputs(x, branch, level_idx, gate, norm, eps)
    blocks = token_blocks(x, live=4, num_prefetched=2, registers=DATA_REGISTERS)
    arguments: dict[str, Any] = {
        "weight_ptr": norm[0],
        "bias_ptr": norm[1],
        "sum_ptr": total,
        "out_ptr": y,
        "eps": eps,
        **gate_arguments(x, branch, level_idx, gate, blocks),
    }
    return KernelLaunch(gate_residual_norm_kernel, token_grid(x), arguments, blocks.num_warps), (total, y)


@torch.library.custom_op("pavdm::gate_residual_norm", mutates_args=())
def launch(
    x: Tensor, branch: Tensor, level_idx: Tensor, gate: Sequence[Tensor], norm: Sequence[Tensor], eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Always the kernel; arguments as `gate_residual_norm`."""
    kernel, results = prepare_launch(x, branch, level_idx, gate, norm, eps)
    kernel.run()
    return results


@launch.register_fake
def outputs(
    x: Tensor, branch: Tensor, level_idx: Tensor, gate: Sequence[Tensor], norm: Sequence[Tensor], eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Both contiguous, in the dtype of x."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty(x.shape, dtype=x.dtype, device=x.device)


def make_inputs(sizes: Sizes, random: RandomInputs) -> tuple[Any, ...]:
    """The gate is a slice of a float32 table, as in a model."""
    shape, width = [sizes[name] for name in "BTSD"], sizes["D"]
    gate = PerLevel(random.normal(31, 6, width).float()[:, 2], random.normal(width).float())
    x, branch = random.normal(*shape), random.normal(*shape)
    return x, branch, random.levels(sizes, 31), gate, (random.normal(width), random.normal(width))


OP = Op(
    name="gate_residual_norm",
    function=gate_residual_norm,
    reference=gate_residual_norm_reference,
    launch=launch,
    outputs=outputs,
    prepare_launch=prepare_launch,
    make_inputs=make_inputs,
    test_sizes=(
        {"B": 2, "T": 3, "S": 5, "D": 192},
        {"B": 2, "T": 2, "S": 9, "D": 1536, "per_sample": 1},
        {"B": 1, "T": 1, "S": 3, "D": 5120},
        {"B": 1, "T": 1, "S": 1, "D": 26},
    ),
    model_sizes=tuple(
        {"B": 2, "T": frames, "S": tokens, "D": width}
        for frames, tokens, width in ((25, 2040, 1536), (20, 990, 3072), (25, 2040, 5120))
    ),
    tolerances=TOLERANCES,
    max_registers=184,  # as in `gate_residual_modulate`, and the weight and bias of the norm
)
