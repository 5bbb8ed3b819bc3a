"""Gated residual sum, then the modulation of the next branch's input; returns both.

x' = x + gate[level] * branch      (gate = 1 if there is none)
y  = LN(x') * (1 + scale[level]) + shift[level]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pavdm_kernels.dispatch import use_kernel
from pavdm_kernels.gate_residual import gate_residual_reference
from pavdm_kernels.launch import KernelLaunch
from pavdm_kernels.modulate import modulate_reference, modulation_arguments, token_blocks, token_grid
from pavdm_kernels.modulation import Gathered, ModulationVector, PerLevel
from pavdm_kernels.op import TOLERANCES, Op, RandomInputs, Sizes

DATA_REGISTERS = (
    120  # more than in `modulate`: more warps with fewer registers each would not keep more tokens in flight
)


def gate_residual_modulate_reference(
    x: Tensor,
    branch: Tensor,
    level_idx: Tensor,
    gate: ModulationVector | None,
    shift: ModulationVector,
    scale: ModulationVector,
) -> tuple[Tensor, Tensor]:
    """The residual sum in the dtype of x, then `modulate_reference`."""
    x = x + branch if gate is None else gate_residual_reference(x, branch, level_idx, gate)
    return x, modulate_reference(x, level_idx, shift, scale)


def gate_residual_modulate(
    x: Tensor,
    branch: Tensor,
    level_idx: Tensor,
    gate: ModulationVector | None,
    shift: ModulationVector,
    scale: ModulationVector,
) -> tuple[Tensor, Tensor]:
    """Add a branch to the residual stream and prepare the next branch's input: (x', y), shapes and dtype of x.

    x, branch (B, T, S, D); level_idx int32 (T,) or (B, T).
    """
    if not use_kernel(x) or isinstance(shift, Gathered):
        return gate_residual_modulate_reference(x, branch, level_idx, gate, shift, scale)
    out: tuple[Tensor, Tensor] = launch(x, branch, level_idx, gate or (), shift, scale)
    return out


def prepare_launch(
    x: Tensor,
    branch: Tensor,
    level_idx: Tensor,
    gate: Sequence[Tensor],
    shift: Sequence[Tensor],
    scale: Sequence[Tensor],
) -> tuple[KernelLaunch, tuple[Tensor, Tensor]]:
    """The launch of the kernel, and the outputs that it fills."""
    from pavdm_kernels.triton_kernels.gate_residual_modulate import gate_residual_modulate_kernel

    total, y = outputs(x, branch, level_idx, gate, shift, scale)
    gate_rows, gate_bias = gate or (None, None)
    blocks = token_blocks(x, live=4, num_prefetched=2, registers=DATA_REGISTERS)
    arguments = {
        "x_ptr": x.contiguous(),
        "branch_ptr": branch.contiguous(),
        "gate_ptr": gate_rows,
        "gate_bias_ptr": gate_bias,
        "sum_ptr": total,
        "out_ptr": y,
        "stride_gate": 0 if gate_rows is None else gate_rows.stride(0),
        **modulation_arguments(x, level_idx, shift, scale, 1e-6, blocks),
    }
    return KernelLaunch(gate_residual_modulate_kernel, token_grid(x), arguments, blocks.num_warps), (total, y)


@torch.library.custom_op("pavdm::gate_residual_modulate", mutates_args=())
def launch(
    x: Tensor,
    branch: Tensor,
    level_idx: Tensor,
    gate: Sequence[Tensor],
    shift: Sequence[Tensor],
    scale: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Always the kernel; arguments as `gate_residual_modulate`, with () for no gate."""
    kernel, results = prepare_launch(x, branch, level_idx, gate, shift, scale)
    kernel.run()
    return results


@launch.register_fake
def outputs(
    x: Tensor,
    branch: Tensor,
    level_idx: Tensor,
    gate: Sequence[Tensor],
    shift: Sequence[Tensor],
    scale: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Both contiguous, in the dtype of x."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty(x.shape, dtype=x.dtype, device=x.device)


def make_inputs(sizes: Sizes, random: RandomInputs) -> tuple[Any, ...]:
    """The vectors are slices of one tensor, as in a model."""
    shape, width = [sizes[name] for name in "BTSD"], sizes["D"]
    rows, biases = random.normal(31, 6, width), random.normal(3, width)
    gate, shift, scale = (PerLevel(rows[:, i], biases[i]) for i in range(3))
    x, branch = random.normal(*shape), random.normal(*shape)
    return x, branch, random.levels(sizes, 31), gate if sizes["gated"] else None, shift, scale


def launch_arguments(
    x: Tensor, branch: Tensor, level_idx: Tensor, gate: PerLevel | None, *modulation: PerLevel
) -> tuple[Any, ...]:
    """The gate as torch's operators take it: a sequence of tensors, empty for none."""
    return x, branch, level_idx, gate or (), *modulation


OP = Op(
    name="gate_residual_modulate",
    function=gate_residual_modulate,
    reference=gate_residual_modulate_reference,
    launch=launch,
    outputs=outputs,
    prepare_launch=prepare_launch,
    make_inputs=make_inputs,
    test_sizes=(
        {"B": 2, "T": 3, "S": 5, "D": 192, "gated": 1},
        {"B": 2, "T": 2, "S": 9, "D": 1152, "gated": 1, "per_sample": 1},
        {"B": 1, "T": 2, "S": 3, "D": 1872, "gated": 0},
        {"B": 1, "T": 1, "S": 3, "D": 5120, "gated": 0},
        {"B": 1, "T": 1, "S": 1, "D": 26, "gated": 0},
    ),
    model_sizes=tuple(
        {"B": 2, "T": frames, "S": tokens, "D": width, "gated": gated}
        for gated in (1, 0)
        for frames, tokens, width in ((35, 405, 1152), (35, 405, 1872), (20, 24, 192))
    )
    + tuple(
        {"B": 2, "T": frames, "S": tokens, "D": width, "gated": 0}
        for frames, tokens, width in ((25, 2040, 1536), (20, 990, 3072), (25, 2040, 5120))
    ),
    tolerances=TOLERANCES,
    max_registers=168,  # see DATA_REGISTERS
    launch_arguments=launch_arguments,
)
