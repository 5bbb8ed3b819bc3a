"""LayerNorm without affine, then the scale and shift of the frame's level.

y = LN(x) * (1 + scale[level]) + shift[level]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_kernels.jit import Call, jit, runs_kernel, split
from pavdm_kernels.op import TOLERANCES, Draw, Op, Sizes
from pavdm_kernels.rows import Picked, Rows, Vector, load_rows

if TYPE_CHECKING:
    import triton.language as tl


def modulate_reference(x: Tensor, level_idx: Tensor, shift: Vector, scale: Vector, eps: float = 1e-6) -> Tensor:
    """One `addcmul` after the norm, so that the product is never stored."""
    normed = F.layer_norm(x, x.shape[-1:], eps=eps)
    return torch.addcmul(shift.at(level_idx), normed, scale.above_one(level_idx))


def modulate(x: Tensor, level_idx: Tensor, shift: Vector, scale: Vector, eps: float = 1e-6) -> Tensor:
    """Normalises and modulates the tokens of every frame by that frame's level; shape kept.

    x (B, T, S, D); level_idx int32 (T,) or (B, T), rows of both tables.
    """
    if not runs_kernel(x) or isinstance(shift, Picked):
        return modulate_reference(x, level_idx, shift, scale, eps)
    out: Tensor = launch(x, level_idx, shift, scale, eps)
    return out


@jit
def place(tokens, ROWS: tl.constexpr):
    """The frame of a program, the first of its tokens in all frames, and how many it has."""
    blocks = tl.cdiv(tokens, ROWS)
    frame = tl.program_id(0) // blocks
    before = (tl.program_id(0) % blocks) * ROWS
    return frame, frame.to(tl.int64) * tokens + before, tl.minimum(ROWS, tokens - before)


@jit
def load_token(X, token, head, tail, WIDTH: tl.constexpr):
    """One token in two blocks, as it is stored; zeros where a block is wider."""
    x0 = tl.load(X + token * WIDTH + head, mask=head < WIDTH, other=0.0)
    return x0, tl.load(X + token * WIDTH + tail, mask=tail < WIDTH, other=0.0)


@jit
def store_token(Y, token, y0, y1, head, tail, WIDTH: tl.constexpr):
    """Rounds and stores what `load_token` would load."""
    tl.store(Y + token * WIDTH + head, y0.to(Y.dtype.element_ty), mask=head < WIDTH)
    tl.store(Y + token * WIDTH + tail, y1.to(Y.dtype.element_ty), mask=tail < WIDTH)


@jit
def layer_norm(x0, x1, head, tail, eps, WIDTH: tl.constexpr):
    """LN of a token in two blocks, in two passes over registers."""
    mean = (tl.sum(x0, 0) + tl.sum(x1, 0)) / WIDTH
    x0 = tl.where(head < WIDTH, x0 - mean, 0.0)
    x1 = tl.where(tail < WIDTH, x1 - mean, 0.0)
    variance = (tl.sum(x0 * x0, 0) + tl.sum(x1 * x1, 0)) / WIDTH
    inverse = tl.rsqrt(variance + eps)
    return x0 * inverse, x1 * inverse


@jit
def modulate_kernel(
    X,
    Y,
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
    """ROWS tokens of one frame a program: its vectors are read once, and the next token while one is worked on."""
    frame, first, count = place(tokens, ROWS)
    head, tail = tl.arange(0, HEAD), HEAD + tl.arange(0, TAIL)
    next0, next1 = load_token(X, first, head, tail, WIDTH)
    level = tl.load(LEVEL + frame % levels)
    scale0 = 1 + load_rows(SCALE, SCALE_ROW, level, scale_stride, head, WIDTH)
    scale1 = 1 + load_rows(SCALE, SCALE_ROW, level, scale_stride, tail, WIDTH)
    shift0 = load_rows(SHIFT, SHIFT_ROW, level, shift_stride, head, WIDTH)
    shift1 = load_rows(SHIFT, SHIFT_ROW, level, shift_stride, tail, WIDTH)
    for i in range(count):
        x0, x1 = next0.to(tl.float32), next1.to(tl.float32)
        next0, next1 = load_token(X, first + tl.minimum(i + 1, count - 1), head, tail, WIDTH)
        x0, x1 = layer_norm(x0, x1, head, tail, eps, WIDTH)
        store_token(Y, first + i, x0 * scale0 + shift0, x1 * scale1 + shift1, head, tail, WIDTH)


ROWS = 8  # tokens a program: the vectors then add an eighth of what it reads, from the cache


WORDS = 88  # registers a thread may fill with numbers; addresses and the sums take some forty more


class Blocks(NamedTuple):
    """How a token lies in the registers of a program."""

    head: int  # columns, as of `split`, but at least as many as all threads read at once
    tail: int
    warps: int


def blocks(x: Tensor, kept: int = 3, ahead: int = 1, most: int = WORDS) -> Blocks:
    """The fewest warps whose threads hold a token in `most` registers: lanes without a column are fewest then.

    Every column takes `kept` float32 numbers and `ahead` of the next token as stored. A block with fewer columns than
    threads read in loads of 16 bytes is filled up with columns that no thread loads: a narrower one has narrower loads.
    """
    head, tail = split(x.shape[-1])
    for warps in (1, 2, 4, 8):
        least = 32 * warps * 16 // x.element_size()
        found = Blocks(max(head, least), max(tail, least) if tail > 1 else 1, warps)
        if (found.head + found.tail) // (32 * warps) * (4 * kept + ahead * x.element_size()) <= 4 * most:
            break
    return found


def call(
    x: Tensor, level_idx: Tensor, shift: Sequence[Tensor], scale: Sequence[Tensor], eps: float = 1e-6
) -> tuple[Call, Tensor]:
    """The launch of `modulate_kernel`, and the output it fills."""
    y = output(x, level_idx, shift, scale)
    held = blocks(x)
    arguments = {"X": x.contiguous(), "Y": y, **modulation(x, level_idx, shift, scale, eps, held)}
    return Call(modulate_kernel, programs(x), arguments, held.warps), y


def modulation(
    x: Tensor, level_idx: Tensor, shift: Sequence[Tensor], scale: Sequence[Tensor], eps: float, held: Blocks
) -> dict[str, Any]:
    """The arguments of a kernel that say how to normalise and modulate."""
    return {
        "LEVEL": level_idx.contiguous(),
        "SHIFT": shift[0],
        "SHIFT_ROW": shift[1],
        "SCALE": scale[0],
        "SCALE_ROW": scale[1],
        "tokens": x.shape[2],
        "levels": level_idx.numel(),
        "shift_stride": shift[0].stride(0),
        "scale_stride": scale[0].stride(0),
        "eps": eps,
        "WIDTH": x.shape[-1],
        "HEAD": held.head,
        "TAIL": held.tail,
        "ROWS": ROWS,
    }


def programs(x: Tensor) -> tuple[int]:
    """As many as `place` divides the tokens among."""
    return (x.shape[0] * x.shape[1] * -(-x.shape[2] // ROWS),)


@torch.library.custom_op("pavdm::modulate", mutates_args=())
def launch(x: Tensor, level_idx: Tensor, shift: Sequence[Tensor], scale: Sequence[Tensor], eps: float = 1e-6) -> Tensor:
    """Always the kernel; arguments as `modulate`."""
    launched, y = call(x, level_idx, shift, scale, eps)
    launched.run()
    return y


@launch.register_fake
def output(x: Tensor, level_idx: Tensor, shift: Sequence[Tensor], scale: Sequence[Tensor], eps: float = 1e-6) -> Tensor:
    """Like x, in the widest dtype of all."""
    dtype = torch.promote_types(x.dtype, torch.promote_types(shift[0].dtype, scale[0].dtype))
    return torch.empty(x.shape, dtype=dtype, device=x.device)


def make(sizes: Sizes, draw: Draw) -> tuple[Tensor, Tensor, Rows, Rows]:
    """Inputs whose tables are slices of one, as a model's are."""
    batch, frames, tokens, width = (sizes[name] for name in "BTSD")
    table, rows = draw.normal(31, 6, width), draw.normal(2, width)
    shift, scale = (Rows(table[:, place], rows[place]) for place in range(2))
    return draw.normal(batch, frames, tokens, width), draw.levels(sizes, 31), shift, scale


OP = Op(
    name="modulate",
    function=modulate,
    reference=modulate_reference,
    launch=launch,
    call=call,
    make=make,
    cases=(
        {"B": 2, "T": 3, "S": 5, "D": 192},
        {"B": 2, "T": 2, "S": 9, "D": 1152, "per_sample": 1},
        {"B": 1, "T": 2, "S": 3, "D": 1872},
        {"B": 1, "T": 1, "S": 1, "D": 26},
    ),
    real=(
        {"B": 2, "T": 35, "S": 405, "D": 1152},
        {"B": 2, "T": 35, "S": 405, "D": 1872},
        {"B": 2, "T": 20, "S": 24, "D": 192},
    ),
    tolerances=TOLERANCES,
)
