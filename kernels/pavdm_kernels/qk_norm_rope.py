"""RMS norm of every query and key head, then rotary embedding over interleaved pairs.

u = weight * x / sqrt(mean(x^2) + eps)
(y[2i], y[2i+1]) = (u[2i], u[2i+1]) rotated by position * freqs[i]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_kernels.dispatch import use_kernel
from pavdm_kernels.launch import KernelLaunch, split_width
from pavdm_kernels.op import TOLERANCES, Op, RandomInputs, Sizes

BLOCK_HEADS, NUM_WARPS = 64, 4


def apply_rope(x: Tensor, rope: Tensor) -> Tensor:  # (B, T, S, N, K), (T, K / 2, 2)
    """Rotate the pair (2i, 2i + 1) of frame t by `rope[t, i]` (cos, sin): a complex product in float32 or wider."""
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).view(*x.shape[:-1], -1, 2)
    if torch.compiler.is_compiling():  # it generates no code for complex numbers, and fuses the real form
        (a, b), (cos, sin) = pairs.unbind(-1), rope[:, None, None].unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x.dtype)
    rotated = torch.view_as_complex(pairs) * torch.view_as_complex(rope)[:, None, None]  # rope as (T, 1, 1, K / 2)
    return torch.view_as_real(rotated).flatten(-2).to(x.dtype)


def qk_norm_rope_reference(
    q: Tensor, k: Tensor, weights: Sequence[Tensor], rope: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """RMS norm in the dtype of the heads, then `apply_rope`."""
    q, k = (F.rms_norm(x, x.shape[-1:], weight.to(x.dtype), eps) for x, weight in zip((q, k), weights, strict=True))
    return (q, k) if rope is None else (apply_rope(q, rope), apply_rope(k, rope))


def qk_norm_rope(
    q: Tensor, k: Tensor, weights: tuple[Tensor, Tensor], rope: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Normalized and, with `rope`, rotated queries and keys; shapes kept.

    q, k (B, T, S, N, K), any strides; weights (K,) each; rope (T, K / 2, 2), float32 or wider: cosine and sine of
    position * frequency, as a tensor, so that positions can change inside a captured CUDA graph.
    """
    if not use_kernel(q):
        return qk_norm_rope_reference(q, k, weights, rope, eps)
    out: tuple[Tensor, Tensor] = launch(q, k, weights, rope, eps)
    return out


def prepare_launch(
    q: Tensor, k: Tensor, weights: Sequence[Tensor], rope: Tensor | None, eps: float = 1e-6
) -> tuple[KernelLaunch, tuple[Tensor, Tensor]]:
    """The launch of the kernel, and the outputs that it fills."""
    from pavdm_kernels.triton_kernels.qk_norm_rope import qk_norm_rope_kernel

    batch, frames, tokens, heads, width = q.shape
    overflows = (BLOCK_HEADS // heads + 2) * q.stride(2) >= 2**31  # a program's tokens span more than 32-bit offsets
    if overflows or q.stride() != k.stride() or q.stride()[3:] != (width, 1):
        q, k = q.contiguous(), k.contiguous()
    block0, block1 = split_width(width, min_split=64)
    min_columns = 32 * NUM_WARPS * 16 // q.element_size() // BLOCK_HEADS  # that are loaded 16 bytes per thread
    q_out, k_out = outputs(q, k, weights, rope, eps)
    arguments: dict[str, Any] = {
        "q_ptr": q,
        "k_ptr": k,
        "q_weight_ptr": weights[0],
        "k_weight_ptr": weights[1],
        "rope_ptr": None if rope is None else rope.contiguous(),
        "q_out_ptr": q_out,
        "k_out_ptr": k_out,
        "num_frames": frames,
        "num_tokens": tokens,
        "stride_b": q.stride(0),
        "stride_t": q.stride(1),
        "stride_s": q.stride(2),
        "eps": eps,
        "NUM_HEADS": heads,
        "K": width,
        "BLOCK_K0": block0,
        "BLOCK_K1": max(block1, min_columns) if block1 > 1 else 2,
        "BLOCK_HEADS": BLOCK_HEADS,
    }
    grid = (batch * frames * -(-tokens * heads // BLOCK_HEADS), 2)
    return KernelLaunch(qk_norm_rope_kernel, grid, arguments, NUM_WARPS), (q_out, k_out)


@torch.library.custom_op("pavdm::qk_norm_rope", mutates_args=())
def launch(
    q: Tensor, k: Tensor, weights: Sequence[Tensor], rope: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Always the kernel; arguments as `qk_norm_rope`."""
    kernel, results = prepare_launch(q, k, weights, rope, eps)
    kernel.run()
    return results


@launch.register_fake
def outputs(
    q: Tensor, k: Tensor, weights: Sequence[Tensor], rope: Tensor | None, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Contiguous, in the dtype of the heads."""
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), torch.empty(k.shape, dtype=k.dtype, device=k.device)


def make_inputs(sizes: Sizes, random: RandomInputs) -> tuple[Any, ...]:
    """Queries and keys as slices of a joint projection to queries, keys and values."""
    batch, frames, tokens, heads, width = (sizes[name] for name in "BTSNK")
    q, k, _ = random.normal(batch, frames, tokens, 3, heads, width).unbind(3)
    angles = torch.arange(1, 1 + frames)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    rope = torch.stack([angles.cos(), angles.sin()], dim=-1).to(random.device)
    return q, k, (random.normal(width), random.normal(width)), rope if sizes["rotated"] else None


OP = Op(
    name="qk_norm_rope",
    function=qk_norm_rope,
    reference=qk_norm_rope_reference,
    launch=launch,
    outputs=outputs,
    prepare_launch=prepare_launch,
    make_inputs=make_inputs,
    test_sizes=(
        {"B": 2, "T": 3, "S": 5, "N": 6, "K": 32, "rotated": 1},
        {"B": 2, "T": 2, "S": 5, "N": 16, "K": 72, "rotated": 1},
        {"B": 1, "T": 2, "S": 3, "N": 26, "K": 72, "rotated": 0},
        {"B": 1, "T": 1, "S": 1, "N": 1, "K": 10, "rotated": 1},
    ),
    model_sizes=tuple(
        {"B": 2, "T": frames, "S": tokens, "N": heads, "K": width, "rotated": rotated}
        for rotated in (1, 0)
        for frames, tokens, heads, width in ((35, 405, 16, 72), (35, 405, 26, 72), (20, 24, 6, 32))
    ),
    tolerances=TOLERANCES,
    scalar_loads=0,
)
