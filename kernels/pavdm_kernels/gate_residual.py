"""Gated residual sum.

x' = x + gate[level] * branch
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pavdm_kernels.dispatch import use_kernel
from pavdm_kernels.launch import KernelLaunch
from pavdm_kernels.modulate import BLOCK_TOKENS, TokenBlocks, token_blocks, token_grid
from pavdm_kernels.modulation import ModulationVector, PerLevel
from pavdm_kernels.op import TOLERANCES, Op, RandomInputs, Sizes


def gate_residual_reference(x: Tensor, branch: Tensor, level_idx: Tensor, gate: ModulationVector) -> Tensor:
    """One `addcmul` in the widest dtype of its inputs, rounded to the dtype of x."""
    return torch.addcmul(x, gate.gather(level_idx), branch).to(x.dtype)


def gate_residual(x: Tensor, branch: Tensor, level_idx: Tensor, gate: PerLevel) -> Tensor:
    """Add a branch to the residual stream; shape and dtype of x.

    x, branch (B, T, S, D); level_idx int32 (T,) or (B, T).
    """
    if not use_kernel(x):
        return gate_residual_reference(x, branch, level_idx, gate)
    out: Tensor = launch(x, branch, level_idx, gate)
    return out


def gate_arguments(
    x: Tensor, branch: Tensor, level_idx: Tensor, gate: Sequence[Tensor], blocks: TokenBlocks
) -> dict[str, Any]:
    """The kernel arguments for the residual sum and the sizes."""
    return {
        "x_ptr": x.contiguous(),
        "branch_ptr": branch.contiguous(),
        "level_ptr": level_idx.contiguous(),
        "gate_ptr": gate[0],
        "gate_bias_ptr": gate[1],
        "num_tokens": x.shape[2],
        "num_levels": level_idx.numel(),
        "stride_gate": gate[0].stride(0),
        "D": x.shape[-1],
        "BLOCK_D0": blocks.d0,
        "BLOCK_D1": blocks.d1,
        "BLOCK_TOKENS": BLOCK_TOKENS,
    }


def prepare_launch(x: Tensor, branch: Tensor, level_idx: Tensor, gate: Sequence[Tensor]) -> tuple[KernelLaunch, Tensor]:
    """The launch of the kernel, and the output that it fills."""
    from pavdm_kernels.triton_kernels.gate_residual import gate_residual_kernel

    out, blocks = outputs(x, branch, level_idx, gate), token_blocks(x, live=2, num_prefetched=2)
    arguments = {"out_ptr": out, **gate_arguments(x, branch, level_idx, gate, blocks)}
    return KernelLaunch(gate_residual_kernel, token_grid(x), arguments, blocks.num_warps), out


@torch.library.custom_op("pavdm::gate_residual", mutates_args=())
def launch(x: Tensor, branch: Tensor, level_idx: Tensor, gate: Sequence[Tensor]) -> Tensor:
    """Always the kernel; arguments as `gate_residual`."""
    kernel, out = prepare_launch(x, branch, level_idx, gate)
    kernel.run()
    return out


@launch.register_fake
def outputs(x: Tensor, branch: Tensor, level_idx: Tensor, gate: Sequence[Tensor]) -> Tensor:
    """Contiguous, in the dtype of x."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def make_inputs(sizes: Sizes, random: RandomInputs) -> tuple[Any, ...]:
    """The gate is a slice of a float32 table, as in a model."""
    shape, width = [sizes[name] for name in "BTSD"], sizes["D"]
    gate = PerLevel(random.normal(31, 6, width).float()[:, 5], random.normal(width).float())
    return random.normal(*shape), random.normal(*shape), random.levels(sizes, 31), gate


OP = Op(
    name="gate_residual",
    function=gate_residual,
    reference=gate_residual_reference,
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
)
