"""RMS norm of every query and key head, then rotary embedding over interleaved pairs.

u = gain * x / sqrt(mean(x^2) + eps)
(y[2i], y[2i+1]) = rotation by position * freqs[i] of (u[2i], u[2i+1])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_kernels.jit import Call, jit, runs_kernel, split
from pavdm_kernels.op import TOLERANCES, Draw, Op, Sizes

if TYPE_CHECKING:
    import triton.language as tl


def rotate(x: Tensor, turns: Tensor) -> Tensor:  # (B, T, S, N, K), (T, K / 2, 2)
    """Turns the pair (2i, 2i + 1) of frame t by `turns[t, i]`: one complex product, at least float32."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).view(*x.shape[:-1], -1, 2)
    if torch.compiler.is_compiling():  # which knows no code for complex numbers, and fuses what they are made of
        return turned_pairs(wide, turns[:, None, None]).flatten(-2).to(x.dtype)
    pairs = torch.view_as_complex(wide)
    turned = pairs * torch.view_as_complex(turns)[:, None, None]  # (T, 1, 1, K / 2)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def turned_pairs(pairs: Tensor, turns: Tensor) -> Tensor:  # (..., 2) each
    """The complex product in real numbers."""
    (a, b), (cos, sin) = pairs.unbind(-1), turns.unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)


def qk_norm_rope_reference(
    q: Tensor, k: Tensor, gains: Sequence[Tensor], turns: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Norm in the dtype of the heads, then `rotate`."""
    q, k = (F.rms_norm(x, x.shape[-1:], gain.to(x.dtype), eps) for x, gain in zip((q, k), gains, strict=True))
    return (q, k) if turns is None else (rotate(q, turns), rotate(k, turns))


def qk_norm_rope(
    q: Tensor, k: Tensor, gains: tuple[Tensor, Tensor], turns: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Normalised and, where `turns` is given, rotated queries and keys; shapes kept.

    q, k (B, T, S, N, K), any strides; gains (K,) each; turns (T, K / 2, 2), float32 or wider: cosine and sine of
    position * frequency, on the device, so that positions can change without a new launch plan.
    """
    if not runs_kernel(q):
        return qk_norm_rope_reference(q, k, gains, turns, eps)
    out: tuple[Tensor, Tensor] = launch(q, k, gains, turns, eps)
    return out


@jit
def load_turns(TURNS, frame, columns, HEADS_WIDTH: tl.constexpr):
    """Cosines and sines of the pairs among some columns; nothing where heads are not rotated."""
    if TURNS is None:
        return 1.0, 0.0
    else:
        both = tl.load(TURNS + frame * HEADS_WIDTH + columns, mask=columns < HEADS_WIDTH, other=0.0)
        return tl.split(tl.reshape(both, [1, columns.shape[1] // 2, 2]))


@jit
def rotate_pairs(u, cos, sin, TURNS):
    """`rotate` of some whole pairs."""
    if TURNS is None:
        return u
    else:
        even, odd = tl.split(tl.reshape(u, [u.shape[0], u.shape[1] // 2, 2]))
        return tl.interleave(even * cos - odd * sin, even * sin + odd * cos)


@jit
def norm_rope(X, Y, GAIN, starts, rows, wanted, head, tail, cos0, sin0, cos1, sin1, TURNS, eps, WIDTH: tl.constexpr):
    """Queries or keys: heads that begin at `starts` of X, one after another in Y."""
    shown = wanted & (tail < WIDTH)
    x0 = tl.load(X + starts + head, mask=wanted & (head < WIDTH), other=0.0).to(tl.float32)
    x1 = tl.load(X + starts + tail, mask=shown, other=0.0).to(tl.float32)
    squares = tl.sum(x0 * x0, 1) + tl.sum(x1 * x1, 1)
    inverse = tl.rsqrt(squares / WIDTH + eps)[:, None]
    x0 = x0 * inverse * tl.load(GAIN + head, mask=head < WIDTH, other=0.0).to(tl.float32)
    x1 = x1 * inverse * tl.load(GAIN + tail, mask=tail < WIDTH, other=0.0).to(tl.float32)
    y0, y1 = rotate_pairs(x0, cos0, sin0, TURNS), rotate_pairs(x1, cos1, sin1, TURNS)
    tl.store(Y + rows * WIDTH + head, y0.to(Y.dtype.element_ty), mask=wanted & (head < WIDTH))
    tl.store(Y + rows * WIDTH + tail, y1.to(Y.dtype.element_ty), mask=shown)


@jit
def qk_norm_rope_kernel(
    Q,
    K,
    Q_GAIN,
    K_GAIN,
    TURNS,
    Q_OUT,
    K_OUT,
    frames,
    tokens,
    batch_stride,
    frame_stride,
    token_stride,
    eps,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    TAIL: tl.constexpr,
    ROWS: tl.constexpr,
):
    """ROWS heads of the tokens of one frame a program, of the queries or of the keys: fewer registers than of both."""
    blocks = tl.cdiv(tokens * HEADS, ROWS)
    frame = tl.program_id(0) // blocks
    before, rows = (tl.program_id(0) % blocks) * ROWS, tl.arange(0, ROWS)[:, None]
    row = before + rows
    wanted = row < tokens * HEADS
    token = before // HEADS  # the first one; from there on offsets have 32 bits
    origin = (frame // frames).to(tl.int64) * batch_stride + (frame % frames).to(tl.int64) * frame_stride
    origin += token.to(tl.int64) * token_stride
    starts = (row // HEADS - token) * token_stride + (row % HEADS) * WIDTH
    first = (frame.to(tl.int64) * tokens * HEADS + before) * WIDTH
    Q_OUT, K_OUT = Q_OUT + first, K_OUT + first
    head, tail = tl.arange(0, HEAD)[None, :], HEAD + tl.arange(0, TAIL)[None, :]
    cos0, sin0 = load_turns(TURNS, frame % frames, head, WIDTH)
    cos1, sin1 = load_turns(TURNS, frame % frames, tail, WIDTH)
    if tl.program_id(1) == 0:
        norm_rope(
            Q + origin, Q_OUT, Q_GAIN, starts, rows, wanted, head, tail, cos0, sin0, cos1, sin1, TURNS, eps, WIDTH
        )
    else:
        norm_rope(
            K + origin, K_OUT, K_GAIN, starts, rows, wanted, head, tail, cos0, sin0, cos1, sin1, TURNS, eps, WIDTH
        )


ROWS, WARPS = 64, 4  # heads a program, and its warps


def call(
    q: Tensor, k: Tensor, gains: Sequence[Tensor], turns: Tensor | None, eps: float = 1e-6
) -> tuple[Call, tuple[Tensor, Tensor]]:
    """The launch of `qk_norm_rope_kernel`, and the outputs it fills."""
    batch, frames, tokens, heads, width = q.shape
    far = (ROWS // heads + 2) * q.stride(2) >= 2**31  # the tokens of a program reach beyond offsets of 32 bits
    if far or q.stride() != k.stride() or q.stride()[3:] != (width, 1):
        q, k = q.contiguous(), k.contiguous()
    head, tail = split(width, narrow=64)
    wide = 32 * WARPS * 16 // q.element_size() // ROWS  # columns of a block that is read in loads of 16 bytes
    filled = outputs(q, k, gains, turns, eps)
    arguments: dict[str, Any] = {
        "Q": q,
        "K": k,
        "Q_GAIN": gains[0],
        "K_GAIN": gains[1],
        "TURNS": None if turns is None else turns.contiguous(),
        "Q_OUT": filled[0],
        "K_OUT": filled[1],
        "frames": frames,
        "tokens": tokens,
        "batch_stride": q.stride(0),
        "frame_stride": q.stride(1),
        "token_stride": q.stride(2),
        "eps": eps,
        "HEADS": heads,
        "WIDTH": width,
        "HEAD": head,
        "TAIL": max(tail, wide) if tail > 1 else 2,
        "ROWS": ROWS,
    }
    return Call(qk_norm_rope_kernel, (batch * frames * -(-tokens * heads // ROWS), 2), arguments, WARPS), filled


@torch.library.custom_op("pavdm::qk_norm_rope", mutates_args=())
def launch(
    q: Tensor, k: Tensor, gains: Sequence[Tensor], turns: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Always the kernel; arguments as `qk_norm_rope`."""
    launched, filled = call(q, k, gains, turns, eps)
    launched.run()
    return filled


@launch.register_fake
def outputs(
    q: Tensor, k: Tensor, gains: Sequence[Tensor], turns: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Contiguous, in the dtype of the heads."""
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), torch.empty(k.shape, dtype=k.dtype, device=k.device)


def make(sizes: Sizes, draw: Draw) -> tuple[Any, ...]:
    """Queries and keys as a projection leaves them: side by side with the values."""
    batch, frames, tokens, heads, width = (sizes[name] for name in "BTSNK")
    q, k, _ = draw.normal(batch, frames, tokens, 3, heads, width).unbind(3)
    angles = torch.arange(1, 1 + frames)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    turns = torch.stack([angles.cos(), angles.sin()], dim=-1).to(draw.device)
    return q, k, (draw.normal(width), draw.normal(width)), turns if sizes["rotated"] else None


OP = Op(
    name="qk_norm_rope",
    function=qk_norm_rope,
    reference=qk_norm_rope_reference,
    launch=launch,
    call=call,
    make=make,
    cases=(
        {"B": 2, "T": 3, "S": 5, "N": 6, "K": 32, "rotated": 1},
        {"B": 2, "T": 2, "S": 5, "N": 16, "K": 72, "rotated": 1},
        {"B": 1, "T": 2, "S": 3, "N": 26, "K": 72, "rotated": 0},
        {"B": 1, "T": 1, "S": 1, "N": 1, "K": 10, "rotated": 1},
    ),
    real=tuple(
        {"B": 2, "T": frames, "S": tokens, "N": heads, "K": width, "rotated": rotated}
        for rotated in (1, 0)
        for frames, tokens, heads, width in ((35, 405, 16, 72), (35, 405, 26, 72), (20, 24, 6, 32))
    ),
    tolerances=TOLERANCES,
    scalars=0,
)
