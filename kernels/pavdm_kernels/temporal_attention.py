"""Attention of every token position over its own frames.

o[b, t, s] = sum_j softmax_j(q[b, t, s] . k[b, j, s] / sqrt(K)) v[b, j, s],   j over the cached frames, then the others
"""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from pavdm_kernels.dispatch import use_kernel
from pavdm_kernels.dot_product import dot_product
from pavdm_kernels.launch import KernelLaunch, split_width
from pavdm_kernels.op import Op, RandomInputs, Sizes


def temporal_attention_reference(q: Tensor, k: Tensor, v: Tensor, kv_cache: Tensor | None = None) -> Tensor:
    """Token positions become part of the batch, which copies."""
    if kv_cache is not None:
        k, v = torch.cat([kv_cache[0], k], dim=1), torch.cat([kv_cache[1], v], dim=1)
    batch = q.shape[0]
    q, k, v = (rearrange(x, "b t s n k -> (b s) n t k") for x in (q, k, v))
    return rearrange(dot_product(q, k, v), "(b s) n t k -> b t s (n k)", b=batch)


def temporal_attention(q: Tensor, k: Tensor, v: Tensor, kv_cache: Tensor | None = None) -> Tensor:
    """Attention over time without a mask; returns (B, T, S, N * K).

    q (B, T, S, N, K); k, v (B, U, S, N, K), any strides; kv_cache (2, B, C, S, N, K): of earlier frames.
    """
    if not use_kernel(q):
        return temporal_attention_reference(q, k, v, kv_cache)
    out: Tensor = launch(q, k, v, kv_cache)
    return out


def prepare_launch(q: Tensor, k: Tensor, v: Tensor, kv_cache: Tensor | None) -> tuple[KernelLaunch, Tensor]:
    """The launch of the kernel, and the output that it fills."""
    from pavdm_kernels.triton_kernels.temporal_attention import temporal_attention_kernel

    out = outputs(q, k, v, kv_cache)
    q, k, v = (with_contiguous_heads(x.to(q.dtype)) for x in (q, k, v))
    kv_cache = None if kv_cache is None else kv_cache.to(q.dtype).contiguous()
    batch, queries, tokens, heads, width = q.shape
    num_cached = 0 if kv_cache is None else kv_cache.shape[2]
    blocks = block_sizes(q, k.shape[1], num_cached)
    arguments: dict[str, Any] = {
        **{"q_ptr": q, "k_ptr": k, "v_ptr": v, "kv_cache_ptr": kv_cache, "out_ptr": out},
        **{"num_queries": queries, "num_keys": k.shape[1], "num_cached": num_cached},
        **{"num_tokens": tokens, "num_heads": heads, "scale": width**-0.5 * math.log2(math.e)},
        **{
            f"stride_{name}{axis}": x.stride(dim)
            for name, x in (("q", q), ("k", k), ("v", v))
            for dim, axis in enumerate("bts")
        },
        "stride_cache_kv": 0 if kv_cache is None else kv_cache.stride(0),
        **blocks,
    }
    grid = (batch * tokens * heads, -(-queries // blocks["BLOCK_M"]))
    return KernelLaunch(temporal_attention_kernel, grid, arguments, num_warps(q.dtype, blocks["BLOCK_M"])), out


def with_contiguous_heads(x: Tensor) -> Tensor:
    """x itself if its last two dimensions are contiguous, as after a projection or a norm; else a copy."""
    return x if x.stride()[3:] == (x.shape[-1], 1) else x.contiguous()


def block_sizes(q: Tensor, keys: int, cached: int) -> dict[str, int]:
    """The kernel's constants; float32 uses no matrix unit and takes more registers, so its blocks are smaller."""
    width, max_frames = q.shape[-1], 16 if q.dtype == torch.float32 else 64
    block0, block1 = split_width(width, min_split=64)
    block0, block1 = max(16, block0), max(16, block1) if width > block0 else 0
    block_m = block_frames(q.shape[1], max_frames)
    # With fewer frames the threads would share a block in loads of less than 16 bytes each.
    min_frames = 32 * num_warps(q.dtype, block_m) * 16 // q.element_size() // (block1 or block0)
    block_n, block_cached = (max(min_frames, block_frames(count, max_frames)) for count in (keys, cached))
    columns = {"K": width, "BLOCK_K0": block0, "BLOCK_K1": block1, "PADDED_K1": max(16, block1)}
    return {**columns, "BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_CACHED": block_cached}


def block_frames(frames: int, max_frames: int) -> int:
    """Frames per block: a power of two, at least the 16 rows of a matrix instruction."""
    return min(max_frames, max(16, 1 << (frames - 1).bit_length()))


def num_warps(dtype: torch.dtype, block_m: int) -> int:
    """One for every 16 rows, which one matrix instruction takes; float32 has none."""
    return 2 if dtype == torch.float32 else block_m // 16


@torch.library.custom_op("pavdm::temporal_attention", mutates_args=())
def launch(q: Tensor, k: Tensor, v: Tensor, kv_cache: Tensor | None) -> Tensor:
    """Always the kernel; arguments as `temporal_attention`."""
    kernel, out = prepare_launch(q, k, v, kv_cache)
    kernel.run()
    return out


@launch.register_fake
def outputs(q: Tensor, k: Tensor, v: Tensor, kv_cache: Tensor | None) -> Tensor:
    """Contiguous, in the dtype of the queries."""
    return torch.empty(*q.shape[:3], q.shape[3] * q.shape[4], dtype=q.dtype, device=q.device)


def make_inputs(sizes: Sizes, random: RandomInputs) -> tuple[Any, ...]:
    """Values as a slice of a joint projection; queries and keys as they are after their norm."""
    batch, frames, tokens, heads, width, cached = (sizes[name] for name in "BTSNKC")
    q, k = (random.normal(batch, frames, tokens, heads, width) for _ in range(2))
    v = random.normal(batch, frames, tokens, 3, heads, width)[:, :, :, 2]
    return q, k, v, random.normal(2, batch, cached, tokens, heads, width) if cached else None


OP = Op(
    name="temporal_attention",
    function=temporal_attention,
    reference=temporal_attention_reference,
    launch=launch,
    outputs=outputs,
    prepare_launch=prepare_launch,
    make_inputs=make_inputs,
    test_sizes=(
        {"B": 2, "T": 5, "S": 2, "N": 3, "K": 32, "C": 2},
        {"B": 1, "T": 35, "S": 2, "N": 2, "K": 72, "C": 0},
        {"B": 1, "T": 30, "S": 1, "N": 3, "K": 72, "C": 5},
        {"B": 1, "T": 70, "S": 1, "N": 2, "K": 10, "C": 67},
        {"B": 1, "T": 1, "S": 1, "N": 1, "K": 64, "C": 0},
    ),
    model_sizes=tuple(
        {"B": 2, "T": frames, "S": tokens, "N": heads, "K": width, "C": cached}
        for tokens, heads, width, lengths in (
            (405, 16, 72, ((35, 0), (30, 5), (5, 0))),
            (405, 26, 72, ((35, 0), (30, 5))),
            (24, 6, 32, ((20, 0), (20, 4))),
        )
        for frames, cached in lengths
    ),
    tolerances={torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2},
    max_registers=255,
    scalar_loads=0,
    matmul=True,
)
