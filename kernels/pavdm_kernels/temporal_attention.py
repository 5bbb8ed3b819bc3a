"""Attention of every pixel over its own frames.

o[b, t, s] = sum_j softmax_j(q[b, t, s] . k[b, j, s] / sqrt(K)) v[b, j, s],   j over memory, then the given frames
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor

from pavdm_kernels.dot_product import dot_product
from pavdm_kernels.jit import Call, jit, runs_kernel, split
from pavdm_kernels.op import Draw, Op, Sizes

if TYPE_CHECKING:
    import triton.language as tl


def temporal_attention_reference(q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None = None) -> Tensor:
    """Pixels become the batch, which copies; the heads come back side by side."""
    if memory is not None:
        k, v = torch.cat([memory[0], k], dim=1), torch.cat([memory[1], v], dim=1)
    batch = q.shape[0]
    q, k, v = (rearrange(x, "b t s n k -> (b s) n t k") for x in (q, k, v))
    return rearrange(dot_product(q, k, v), "(b s) n t k -> b t s (n k)", b=batch)


def temporal_attention(q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None = None) -> Tensor:
    """Attends over time with no mask; returns (B, T, S, N * K).

    q (B, T, S, N, K); k, v (B, U, S, N, K), any strides; memory (2, B, C, S, N, K): keys and values of earlier frames.
    """
    if not runs_kernel(q):
        return temporal_attention_reference(q, k, v, memory)
    out: Tensor = launch(q, k, v, memory)
    return out


@jit
def load_frames(X, first, count, stride, columns, WIDTH: tl.constexpr, FRAMES: tl.constexpr):
    """One head of one pixel in FRAMES frames, zeros beyond the last: (FRAMES, columns)."""
    frame = (first + tl.arange(0, FRAMES))[:, None]
    return tl.load(X + frame.to(tl.int64) * stride + columns, mask=(frame < count) & (columns < WIDTH), other=0.0)


@jit
def attend(
    K,
    V,
    count,
    k_stride,
    v_stride,
    q0,
    q1,
    best,
    total,
    out0,
    out1,
    scale,
    head,
    tail,
    WIDTH: tl.constexpr,
    TAIL: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Softmax over `count` more keys, KEYS at a time: largest score so far, sum of powers of two, weighted values."""
    for first in range(0, count, KEYS):
        k0 = load_frames(K, first, count, k_stride, head, WIDTH, KEYS)
        scores = tl.dot(q0, tl.trans(k0), input_precision="ieee")
        if TAIL:
            k1 = load_frames(K, first, count, k_stride, tail, WIDTH, KEYS)
            scores += tl.dot(q1, tl.trans(k1), input_precision="ieee")
        known = (first + tl.arange(0, KEYS))[None, :] < count
        scores = tl.where(known, scores, float("-inf"))
        largest = tl.maximum(best, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * scale - largest[:, None])
        before = tl.exp2(best - largest)
        total = total * before + tl.sum(weights, 1)
        v0 = load_frames(V, first, count, v_stride, head, WIDTH, KEYS)
        out0 = out0 * before[:, None] + tl.dot(weights.to(v0.dtype), v0, input_precision="ieee")
        if TAIL:
            v1 = load_frames(V, first, count, v_stride, tail, WIDTH, KEYS)
            out1 = out1 * before[:, None] + tl.dot(weights.to(v1.dtype), v1, input_precision="ieee")
        best = largest
    return best, total, out0, out1


@jit
def temporal_attention_kernel(
    Q,
    K,
    V,
    MEMORY,
    OUT,
    queries,
    keys,
    remembered,
    tokens,
    heads,
    scale,
    q_batch,
    q_frame,
    q_token,
    k_batch,
    k_frame,
    k_token,
    v_batch,
    v_frame,
    v_token,
    memory_values,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,
    TAIL: tl.constexpr,
    PADDED: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    REMEMBERED: tl.constexpr,
):
    """One head of one pixel a program, QUERIES of its frames; keys and values stay where they are."""
    at = tl.program_id(0).to(tl.int64)
    n, s, b = at % heads, at // heads % tokens, at // (heads * tokens)
    first = tl.program_id(1) * QUERIES
    head, tail = tl.arange(0, HEAD)[None, :], HEAD + tl.arange(0, PADDED)[None, :]
    Q += b * q_batch + s * q_token + n * WIDTH
    K += b * k_batch + s * k_token + n * WIDTH
    V += b * v_batch + s * v_token + n * WIDTH
    q0 = load_frames(Q, first, queries, q_frame, head, WIDTH, QUERIES)
    q1 = load_frames(Q, first, queries, q_frame, tail, WIDTH, QUERIES)
    best, total = tl.full([QUERIES], float("-inf"), tl.float32), tl.zeros([QUERIES], tl.float32)
    out0, out1 = tl.zeros([QUERIES, HEAD], tl.float32), tl.zeros([QUERIES, PADDED], tl.float32)
    width = tokens * heads * WIDTH  # of a frame whose tokens lie side by side
    if MEMORY is not None:
        MEMORY += b * remembered * width + (s * heads + n) * WIDTH
        best, total, out0, out1 = attend(
            MEMORY, MEMORY + memory_values, remembered, width, width,
            q0, q1, best, total, out0, out1, scale, head, tail, WIDTH, TAIL, REMEMBERED,
        )  # fmt: skip
    best, total, out0, out1 = attend(
        K, V, keys, k_frame, v_frame,
        q0, q1, best, total, out0, out1, scale, head, tail, WIDTH, TAIL, KEYS,
    )  # fmt: skip
    frame = (first + tl.arange(0, QUERIES))[:, None]
    OUT += b * queries * width + frame.to(tl.int64) * width + (s * heads + n) * WIDTH
    tl.store(OUT + head, (out0 / total[:, None]).to(OUT.dtype.element_ty), mask=(frame < queries) & (head < WIDTH))
    if TAIL:
        tl.store(OUT + tail, (out1 / total[:, None]).to(OUT.dtype.element_ty), mask=(frame < queries) & (tail < WIDTH))


def block(frames: int, most: int) -> int:
    """How many frames are worked on at once; a matrix product on a GPU has at least 16 rows."""
    return min(most, max(16, 1 << (frames - 1).bit_length()))


def in_place(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A view whose heads lie side by side, as a projection or a norm leaves them; else a copy."""
    x = x.to(dtype)
    return x if x.stride()[3:] == (x.shape[-1], 1) else x.contiguous()


def call(q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None) -> tuple[Call, Tensor]:
    """The launch of `temporal_attention_kernel`, and the output it fills."""
    out = output(q, k, v, memory)
    q, k, v = (in_place(x, q.dtype) for x in (q, k, v))
    memory = None if memory is None else memory.to(q.dtype).contiguous()
    batch, queries, tokens, heads, width = q.shape
    remembered = 0 if memory is None else memory.shape[2]
    arguments: dict[str, Any] = {
        **{"Q": q, "K": k, "V": v, "MEMORY": memory, "OUT": out},
        **{"queries": queries, "keys": k.shape[1], "remembered": remembered, "tokens": tokens, "heads": heads},
        "scale": width**-0.5 * math.log2(math.e),
        **{
            f"{name}_{axis}": x.stride(place)
            for name, x in (("q", q), ("k", k), ("v", v))
            for place, axis in enumerate(("batch", "frame", "token"))
        },
        "memory_values": 0 if memory is None else memory.stride(0),
        **blocks(q, k.shape[1], remembered),
    }
    rows = arguments["QUERIES"]
    grid = (batch * tokens * heads, -(-queries // rows))
    return Call(temporal_attention_kernel, grid, arguments, warps(q.dtype, rows)), out


def blocks(q: Tensor, keys: int, remembered: int) -> dict[str, int]:
    """The sizes the kernel is built for; float32 has no matrix unit and takes more registers."""
    width, wide = q.shape[-1], q.dtype == torch.float32
    head, tail = split(width, narrow=64)
    head, tail = max(16, head), max(16, tail) if width > head else 0
    most = 16 if wide else 64
    rows = block(q.shape[1], most)
    # Fewer frames than this, and the threads would share a block in loads of less than 16 bytes.
    least = 32 * warps(q.dtype, rows) * 16 // q.element_size() // (tail or head)
    seen = {"KEYS": max(least, block(keys, most)), "REMEMBERED": max(least, block(remembered, most))}
    return {"WIDTH": width, "HEAD": head, "TAIL": tail, "PADDED": max(16, tail), "QUERIES": rows, **seen}


def warps(dtype: torch.dtype, rows: int) -> int:
    """One for what a matrix unit multiplies at once; float32 has none."""
    return 2 if dtype == torch.float32 else rows // 16


@torch.library.custom_op("pavdm::temporal_attention", mutates_args=())
def launch(q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None) -> Tensor:
    """Always the kernel; arguments as `temporal_attention`."""
    launched, out = call(q, k, v, memory)
    launched.run()
    return out


@launch.register_fake
def output(q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None) -> Tensor:
    """Heads side by side, in the dtype of the queries."""
    return torch.empty(*q.shape[:3], q.shape[3] * q.shape[4], dtype=q.dtype, device=q.device)


def make(sizes: Sizes, draw: Draw) -> tuple[Any, ...]:
    """Values as a projection leaves them, packed with what it also gives; queries and keys after their norm."""
    batch, frames, tokens, heads, width, past = (sizes[name] for name in "BTSNKC")
    q, k = (draw.normal(batch, frames, tokens, heads, width) for _ in range(2))
    v = draw.normal(batch, frames, tokens, 3, heads, width)[:, :, :, 2]
    return q, k, v, draw.normal(2, batch, past, tokens, heads, width) if past else None


OP = Op(
    name="temporal_attention",
    function=temporal_attention,
    reference=temporal_attention_reference,
    launch=launch,
    call=call,
    make=make,
    cases=(
        {"B": 2, "T": 5, "S": 2, "N": 3, "K": 32, "C": 2},
        {"B": 1, "T": 35, "S": 2, "N": 2, "K": 72, "C": 0},
        {"B": 1, "T": 30, "S": 1, "N": 3, "K": 72, "C": 5},
        {"B": 1, "T": 70, "S": 1, "N": 2, "K": 10, "C": 67},
        {"B": 1, "T": 1, "S": 1, "N": 1, "K": 64, "C": 0},
    ),
    real=tuple(
        {"B": 2, "T": frames, "S": tokens, "N": heads, "K": width, "C": past}
        for tokens, heads, width, lengths in (
            (405, 16, 72, ((35, 0), (30, 5), (5, 0))),
            (405, 26, 72, ((35, 0), (30, 5))),
            (24, 6, 32, ((20, 0), (20, 4))),
        )
        for frames, past in lengths
    ),
    tolerances={torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2},
    registers=255,
    scalars=0,
    products=True,
)
