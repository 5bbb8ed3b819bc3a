"""LayerNorm without affine, then the scale and shift of the frame's noise level.

y = LN(x) * (1 + scale[level]) + shift[level]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_kernels.dispatch import use_kernel
from pavdm_kernels.launch import KernelLaunch, split_width
from pavdm_kernels.modulation import Gathered, ModulationVector, PerLevel
from pavdm_kernels.op import TOLERANCES, Op, RandomInputs, Sizes

BLOCK_TOKENS = 8  # tokens per program: loading the modulation vectors then adds an eighth to its reads, from the cache
DATA_REGISTERS = 88  # per thread, for values; addresses and sums take about forty more


def modulate_reference(
    x: Tensor, level_idx: Tensor, shift: ModulationVector, scale: ModulationVector, eps: float = 1e-6
) -> Tensor:
    """One `addcmul` after the norm, so that the product is never stored; rounded to the dtype of x."""
    normed = F.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift.gather(level_idx), normed, scale.gather_one_plus(level_idx)).to(x.dtype)


def modulate(
    x: Tensor, level_idx: Tensor, shift: ModulationVector, scale: ModulationVector, eps: float = 1e-6
) -> Tensor:
    """Normalize and modulate the tokens of every frame; shape and dtype of x.

    x (B, T, S, D); level_idx int32 (T,) or (B, T).
    """
    if not use_kernel(x) or isinstance(shift, Gathered):
        return modulate_reference(x, level_idx, shift, scale, eps)
    out: Tensor = launch(x, level_idx, shift, scale, eps)
    return out


class TokenBlocks(NamedTuple):
    """How a program holds a token: the columns of its two blocks, and its warps."""

    d0: int  # as of `split_width`, but at least as many as all threads load at once
    d1: int
    num_warps: int


def token_blocks(x: Tensor, live: int = 3, num_prefetched: int = 1, registers: int = DATA_REGISTERS) -> TokenBlocks:
    """The fewest warps whose threads hold a token in `registers` each: so the fewest lanes are without a column.

    Every column takes `live` float32 values and `num_prefetched` values of the next token as stored. A block with fewer
    columns than the threads load 16 bytes wide is padded with masked columns: the loads would be narrower otherwise.
    """
    d0, d1 = split_width(x.shape[-1])
    for num_warps in (1, 2, 4, 8):
        min_columns = 32 * num_warps * 16 // x.element_size()
        blocks = TokenBlocks(max(d0, min_columns), max(d1, min_columns) if d1 > 1 else 1, num_warps)
        bytes_per_column = 4 * live + num_prefetched * x.element_size()
        if (blocks.d0 + blocks.d1) // (32 * num_warps) * bytes_per_column <= 4 * registers:
            break
    return blocks


def prepare_launch(
    x: Tensor, level_idx: Tensor, shift: Sequence[Tensor], scale: Sequence[Tensor], eps: float = 1e-6
) -> tuple[KernelLaunch, Tensor]:
    """The launch of the kernel, and the output that it fills."""
    from pavdm_kernels.triton_kernels.modulate import modulate_kernel

    out, blocks = outputs(x, level_idx, shift, scale), token_blocks(x)
    modulation = modulation_arguments(x, level_idx, shift, scale, eps, blocks)
    arguments = {"x_ptr": x.contiguous(), "out_ptr": out, **modulation}
    return KernelLaunch(modulate_kernel, token_grid(x), arguments, blocks.num_warps), out


def modulation_arguments(
    x: Tensor, level_idx: Tensor, shift: Sequence[Tensor], scale: Sequence[Tensor], eps: float, blocks: TokenBlocks
) -> dict[str, Any]:
    """The kernel arguments for the norm and the modulation."""
    return {
        "level_ptr": level_idx.contiguous(),
        "shift_ptr": shift[0],
        "shift_bias_ptr": shift[1],
        "scale_ptr": scale[0],
        "scale_bias_ptr": scale[1],
        "num_tokens": x.shape[2],
        "num_levels": level_idx.numel(),
        "stride_shift": shift[0].stride(0),
        "stride_scale": scale[0].stride(0),
        "eps": eps,
        "D": x.shape[-1],
        "BLOCK_D0": blocks.d0,
        "BLOCK_D1": blocks.d1,
        "BLOCK_TOKENS": BLOCK_TOKENS,
    }


def token_grid(x: Tensor) -> tuple[int]:
    """One program for every BLOCK_TOKENS tokens of a frame."""
    return (x.shape[0] * x.shape[1] * -(-x.shape[2] // BLOCK_TOKENS),)


@torch.library.custom_op("pavdm::modulate", mutates_args=())
def launch(x: Tensor, level_idx: Tensor, shift: Sequence[Tensor], scale: Sequence[Tensor], eps: float = 1e-6) -> Tensor:
    """Always the kernel; arguments as `modulate`."""
    kernel, out = prepare_launch(x, level_idx, shift, scale, eps)
    kernel.run()
    return out


@launch.register_fake
def outputs(
    x: Tensor, level_idx: Tensor, shift: Sequence[Tensor], scale: Sequence[Tensor], eps: float = 1e-6
) -> Tensor:
    """Contiguous, in the dtype of x."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def make_inputs(sizes: Sizes, random: RandomInputs) -> tuple[Tensor, Tensor, PerLevel, PerLevel]:
    """The vectors are slices of one tensor, as in a model."""
    batch, frames, tokens, width = (sizes[name] for name in "BTSD")
    rows, biases = random.normal(31, 6, width), random.normal(2, width)
    shift, scale = (PerLevel(rows[:, i], biases[i]) for i in range(2))
    return random.normal(batch, frames, tokens, width), random.levels(sizes, 31), shift, scale


OP = Op(
    name="modulate",
    function=modulate,
    reference=modulate_reference,
    launch=launch,
    outputs=outputs,
    prepare_launch=prepare_launch,
    make_inputs=make_inputs,
    test_sizes=(
        {"B": 2, "T": 3, "S": 5, "D": 192},
        {"B": 2, "T": 2, "S": 9, "D": 1152, "per_sample": 1},
        {"B": 1, "T": 2, "S": 3, "D": 1872},
        {"B": 1, "T": 1, "S": 3, "D": 5120},
        {"B": 1, "T": 1, "S": 1, "D": 26},
    ),
    model_sizes=(
        {"B": 2, "T": 35, "S": 405, "D": 1152},
        {"B": 2, "T": 35, "S": 405, "D": 1872},
        {"B": 2, "T": 20, "S": 24, "D": 192},
        {"B": 2, "T": 25, "S": 2040, "D": 1536},
        {"B": 2, "T": 20, "S": 990, "D": 3072},
        {"B": 2, "T": 25, "S": 2040, "D": 5120},
    ),
    tolerances=TOLERANCES,
)
