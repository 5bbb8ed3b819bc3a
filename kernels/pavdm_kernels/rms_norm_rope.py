"""RMS norm of queries or keys over all channels, those of all heads together, then rotary embedding of every token.

u = weight * x / sqrt(mean(x^2) + eps)
(y[2i], y[2i+1]) = (u[2i], u[2i+1]) rotated by the token's angle i, the same in every head
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_kernels.dispatch import use_kernel
from pavdm_kernels.launch import KernelLaunch
from pavdm_kernels.modulate import BLOCK_TOKENS, token_blocks
from pavdm_kernels.op import TOLERANCES, Op, RandomInputs, Sizes
from pavdm_kernels.qk_norm_rope import apply_rope


def rms_norm_rope_reference(
    x: Tensor, weight: Tensor, rope: Tensor | None, num_heads: int, eps: float = 1e-6
) -> Tensor:
    """RMS norm in the dtype of x, then `apply_rope` to the heads."""
    heads = F.rms_norm(x, x.shape[-1:], weight, eps).view(*x.shape[:-1], num_heads, -1)
    return heads if rope is None else apply_rope(heads.unsqueeze(2), rope).squeeze(2)


def rms_norm_rope(x: Tensor, weight: Tensor, rope: Tensor | None, num_heads: int, eps: float = 1e-6) -> Tensor:
    """Normalized and, with `rope`, rotated heads, (B, L, N, K).

    x (B, L, N * K); weight (N * K,); rope (L, K / 2, 2), float32 or wider: cosine and sine of every token's angles.
    """
    if not use_kernel(x):
        return rms_norm_rope_reference(x, weight, rope, num_heads, eps)
    out: Tensor = launch(x, weight, rope, num_heads, eps)
    return out


def prepare_launch(
    x: Tensor, weight: Tensor, rope: Tensor | None, num_heads: int, eps: float = 1e-6
) -> tuple[KernelLaunch, Tensor]:
    """The launch of the kernel, and the output that it fills."""
    from pavdm_kernels.triton_kernels.rms_norm_rope import rms_norm_rope_kernel

    out, blocks = outputs(x, weight, rope, num_heads, eps), token_blocks(x)
    batch, num_tokens, width = x.shape
    arguments: dict[str, Any] = {
        "x_ptr": x.contiguous(),
        "weight_ptr": weight,
        "rope_ptr": None if rope is None else rope.contiguous(),
        "out_ptr": out,
        "num_tokens": num_tokens,
        "eps": eps,
        "D": width,
        "K": width // num_heads,
        "BLOCK_D0": blocks.d0,
        "BLOCK_D1": max(blocks.d1, 2),  # a pair
        "BLOCK_TOKENS": BLOCK_TOKENS,
    }
    grid = (batch * -(-num_tokens // BLOCK_TOKENS),)
    return KernelLaunch(rms_norm_rope_kernel, grid, arguments, blocks.num_warps), out


@torch.library.custom_op("pavdm::rms_norm_rope", mutates_args=())
def launch(x: Tensor, weight: Tensor, rope: Tensor | None, num_heads: int, eps: float = 1e-6) -> Tensor:
    """Always the kernel; arguments as `rms_norm_rope`."""
    kernel, out = prepare_launch(x, weight, rope, num_heads, eps)
    kernel.run()
    return out


@launch.register_fake
def outputs(x: Tensor, weight: Tensor, rope: Tensor | None, num_heads: int, eps: float = 1e-6) -> Tensor:
    """Contiguous heads in the dtype of x."""
    return torch.empty((*x.shape[:-1], num_heads, x.shape[-1] // num_heads), dtype=x.dtype, device=x.device)


def make_inputs(sizes: Sizes, random: RandomInputs) -> tuple[Any, ...]:
    """One projection of all tokens; every token has angles of its own."""
    batch, tokens, heads, width = (sizes[name] for name in "BLNK")
    angles = torch.arange(1, 1 + tokens)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    rope = torch.stack([angles.cos(), angles.sin()], dim=-1).to(random.device)
    return (
        random.normal(batch, tokens, heads * width),
        random.normal(heads * width),
        rope if sizes["rotated"] else None,
        heads,
    )


OP = Op(
    name="rms_norm_rope",
    function=rms_norm_rope,
    reference=rms_norm_rope_reference,
    launch=launch,
    outputs=outputs,
    prepare_launch=prepare_launch,
    make_inputs=make_inputs,
    test_sizes=(
        {"B": 2, "L": 21, "N": 3, "K": 24, "rotated": 1},
        {"B": 2, "L": 9, "N": 12, "K": 128, "rotated": 1},
        {"B": 1, "L": 3, "N": 40, "K": 128, "rotated": 0},
        {"B": 1, "L": 1, "N": 1, "K": 10, "rotated": 1},
    ),
    model_sizes=tuple(
        {"B": 2, "L": tokens, "N": heads, "K": 128, "rotated": rotated}
        for rotated in (1, 0)
        for tokens, heads in ((51_000, 12), (19_800, 24), (51_000, 40))
    ),
    tolerances=TOLERANCES,
    scalar_loads=0,
)
