"""Gated residual, then the next modulation, both results written.

x' = x + gate[level] * a      (gate = 1 where there is none)
y  = LN(x') * (1 + scale[level]) + shift[level]
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pavdm_kernels.jit import Call, jit, runs_kernel
from pavdm_kernels.modulate import (
    blocks,
    layer_norm,
    load_token,
    modulate_reference,
    modulation,
    place,
    programs,
    store_token,
)
from pavdm_kernels.op import TOLERANCES, Draw, Op, Sizes
from pavdm_kernels.rows import Picked, Rows, Vector, load_rows

if TYPE_CHECKING:
    import triton.language as tl


def gate_residual_modulate_reference(
    x: Tensor, a: Tensor, level_idx: Tensor, gate: Vector | None, shift: Vector, scale: Vector
) -> tuple[Tensor, Tensor]:
    """The residual in one `addcmul`, then `modulate_reference`."""
    x = x + a if gate is None else torch.addcmul(x, gate.at(level_idx), a)
    return x, modulate_reference(x, level_idx, shift, scale)


def gate_residual_modulate(
    x: Tensor, a: Tensor, level_idx: Tensor, gate: Vector | None, shift: Vector, scale: Vector
) -> tuple[Tensor, Tensor]:
    """Adds a branch to the stream and prepares the next branch's input: (x', y), shapes kept.

    x, a (B, T, S, D); level_idx int32 (T,) or (B, T), rows of all tables.
    """
    if not runs_kernel(x) or isinstance(shift, Picked):
        return gate_residual_modulate_reference(x, a, level_idx, gate, shift, scale)
    out: tuple[Tensor, Tensor] = launch(x, a, level_idx, gate or (), shift, scale)
    return out


@jit
def load_gate(GATE, GATE_ROW, level, stride, columns, WIDTH: tl.constexpr):
    """`load_rows`, or ones where there is no gate."""
    if GATE is None:
        return tl.full(columns.shape, 1.0, tl.float32)
    else:
        return load_rows(GATE, GATE_ROW, level, stride, columns, WIDTH)


@jit
def gate_residual_modulate_kernel(
    X,
    A,
    GATE,
    GATE_ROW,
    SUM,
    Y,
    gate_stride,
    LEVEL,
    SHIFT,
    SHIFT_ROW,
    SCALE,
    SCALE_ROW,
    tokens,
    levels,
    shift_stride,
    scale_stride,
    eps,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    TAIL: tl.constexpr,
    ROWS: tl.constexpr,
):
    """As `modulate_kernel`, of the sum; the sum is normalised before it is rounded."""
    frame, first, count = place(tokens, ROWS)
    head, tail = tl.arange(0, HEAD), HEAD + tl.arange(0, TAIL)
    next0, next1 = load_token(X, first, head, tail, WIDTH)
    more0, more1 = load_token(A, first, head, tail, WIDTH)
    level = tl.load(LEVEL + frame % levels)
    gate0 = load_gate(GATE, GATE_ROW, level, gate_stride, head, WIDTH)
    gate1 = load_gate(GATE, GATE_ROW, level, gate_stride, tail, WIDTH)
    scale0 = 1 + load_rows(SCALE, SCALE_ROW, level, scale_stride, head, WIDTH)
    scale1 = 1 + load_rows(SCALE, SCALE_ROW, level, scale_stride, tail, WIDTH)
    shift0 = load_rows(SHIFT, SHIFT_ROW, level, shift_stride, head, WIDTH)
    shift1 = load_rows(SHIFT, SHIFT_ROW, level, shift_stride, tail, WIDTH)
    for i in range(count):
        x0 = next0.to(tl.float32) + gate0 * more0.to(tl.float32)
        x1 = next1.to(tl.float32) + gate1 * more1.to(tl.float32)
        next0, next1 = load_token(X, first + tl.minimum(i + 1, count - 1), head, tail, WIDTH)
        more0, more1 = load_token(A, first + tl.minimum(i + 1, count - 1), head, tail, WIDTH)
        store_token(SUM, first + i, x0, x1, head, tail, WIDTH)
        x0, x1 = layer_norm(x0, x1, head, tail, eps, WIDTH)
        store_token(Y, first + i, x0 * scale0 + shift0, x1 * scale1 + shift1, head, tail, WIDTH)


WORDS = 120  # more than `modulate` has: of more warps, with fewer registers each, no more tokens are under way


def call(
    x: Tensor,
    a: Tensor,
    level_idx: Tensor,
    gate: Sequence[Tensor],
    shift: Sequence[Tensor],
    scale: Sequence[Tensor],
    eps: float = 1e-6,
) -> tuple[Call, tuple[Tensor, Tensor]]:
    """The launch of `gate_residual_modulate_kernel`, and the outputs it fills."""
    total, y = outputs(x, a, level_idx, gate, shift, scale)
    gates, gate_row = gate or (None, None)
    held = blocks(x, kept=4, ahead=2, most=WORDS)
    arguments = {
        "X": x.contiguous(),
        "A": a.contiguous(),
        "GATE": gates,
        "GATE_ROW": gate_row,
        "SUM": total,
        "Y": y,
        "gate_stride": 0 if gates is None else gates.stride(0),
        **modulation(x, level_idx, shift, scale, eps, held),
    }
    return Call(gate_residual_modulate_kernel, programs(x), arguments, held.warps), (total, y)


@torch.library.custom_op("pavdm::gate_residual_modulate", mutates_args=())
def launch(
    x: Tensor, a: Tensor, level_idx: Tensor, gate: Sequence[Tensor], shift: Sequence[Tensor], scale: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Always the kernel; arguments as `gate_residual_modulate`, with () for no gate."""
    launched, filled = call(x, a, level_idx, gate, shift, scale)
    launched.run()
    return filled


@launch.register_fake
def outputs(
    x: Tensor, a: Tensor, level_idx: Tensor, gate: Sequence[Tensor], shift: Sequence[Tensor], scale: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Both like x, in the widest dtype of what goes in."""
    total = reduce(torch.promote_types, (tensor.dtype for tensor in (x, a, *gate)))
    y = reduce(torch.promote_types, (total, shift[0].dtype, scale[0].dtype))
    return torch.empty(x.shape, dtype=total, device=x.device), torch.empty(x.shape, dtype=y, device=x.device)


def make(sizes: Sizes, draw: Draw) -> tuple[Any, ...]:
    """Inputs whose tables are slices of one, as a model's are."""
    shape, width = [sizes[name] for name in "BTSD"], sizes["D"]
    table, rows = draw.normal(31, 6, width), draw.normal(3, width)
    gate, shift, scale = (Rows(table[:, place], rows[place]) for place in range(3))
    x, a = draw.normal(*shape), draw.normal(*shape)
    return x, a, draw.levels(sizes, 31), gate if sizes["gated"] else None, shift, scale


def flat(x: Tensor, a: Tensor, level_idx: Tensor, gate: Rows | None, *rest: Rows) -> tuple[Any, ...]:
    """Torch's operators take a list for the gate: an empty one is none."""
    return x, a, level_idx, gate or (), *rest


OP = Op(
    name="gate_residual_modulate",
    function=gate_residual_modulate,
    reference=gate_residual_modulate_reference,
    launch=launch,
    call=call,
    make=make,
    cases=(
        {"B": 2, "T": 3, "S": 5, "D": 192, "gated": 1},
        {"B": 2, "T": 2, "S": 9, "D": 1152, "gated": 1, "per_sample": 1},
        {"B": 1, "T": 2, "S": 3, "D": 1872, "gated": 0},
        {"B": 1, "T": 1, "S": 1, "D": 26, "gated": 0},
    ),
    real=tuple(
        {"B": 2, "T": frames, "S": tokens, "D": width, "gated": gated}
        for gated in (1, 0)
        for frames, tokens, width in ((35, 405, 1152), (35, 405, 1872), (20, 24, 192))
    ),
    tolerances=TOLERANCES,
    registers=168,  # see WORDS
    flat=flat,
)
