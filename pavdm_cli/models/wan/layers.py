"""Layers of the transformer: attention, one block, the head. Parameter names are those of the original checkpoints.

Tokens are (B, G, S, D): groups of S tokens that share a noise level, usually frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pavdm_cli.attention import AttentionFn
from pavdm_kernels import (
    PerLevel,
    gate_residual,
    gate_residual_modulate,
    gate_residual_norm,
    linear,
    modulate,
    rms_norm_rope,
)

KeysValues = tuple[Tensor, Tensor]  # (B, L, N, K) each


def append_kv(kv_cache: KeysValues | None, new_kv: KeysValues) -> KeysValues:
    """Cached keys and values, followed by those of later tokens."""
    if kv_cache is None:
        return new_kv
    return torch.cat([kv_cache[0], new_kv[0]], dim=1), torch.cat([kv_cache[1], new_kv[1]], dim=1)


class BlockInputs(NamedTuple):
    """What all blocks of a call share."""

    level_idx: Tensor  # int32 (G,) or (B, G)
    modulation: Tensor  # (levels, 6, D) float32
    rope: Tensor  # (G * S, K / 2, 2)
    attend: AttentionFn


class Linear(nn.Linear):
    """A linear layer that calls the fused operation."""

    def forward(self, x: Tensor) -> Tensor:  # (..., D) -> (..., E)
        return linear(x, self.weight, self.bias)


class RMSNorm(nn.Module):
    """RMS norm over all channels, those of all heads together, and rotary embedding of the heads."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.heads = heads
        self.eps = eps

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:  # (B, L, D), (L, K / 2, 2) -> (B, L, N, K)
        return rms_norm_rope(x, self.weight, rope, self.heads, self.eps)


class Attention(nn.Module):
    """The projections of self-attention or cross-attention; the caller applies the attention itself."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = (RMSNorm(dim, heads, eps) for _ in range(2))

    def project_q(self, x: Tensor, rope: Tensor | None = None) -> Tensor:  # (B, L, D) -> (B, L, N, K)
        """Normalized queries, rotated by the angles of their tokens."""
        out: Tensor = self.norm_q(self.q(x), rope)
        return out

    def project_kv(self, x: Tensor, rope: Tensor | None = None) -> KeysValues:  # (B, L, D)
        """Normalized keys, rotated by the angles of their tokens, and values."""
        return self.norm_k(self.k(x), rope), self.v(x).unflatten(-1, (self.heads, -1))


class MLP(nn.Sequential):
    """Two linear layers around a tanh-GELU."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__(Linear(dim, inner), nn.GELU("tanh"), Linear(inner, dim))

    def forward(self, x: Tensor) -> Tensor:  # (..., D)
        first, _, last = self
        assert isinstance(first, Linear)
        out: Tensor = last(linear(x, first.weight, first.bias, gelu=True))
        return out


class Block(nn.Module):
    """Self-attention over all tokens, cross-attention to the prompt, and an MLP."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, eps: float) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))
        self.self_attn = Attention(dim, heads, eps)
        self.norm3 = nn.LayerNorm(dim, eps)
        self.cross_attn = Attention(dim, heads, eps)
        self.ffn = MLP(dim, ffn_dim)

    def forward(
        self, x: Tensor, inputs: BlockInputs, text_kv: KeysValues, kv_cache: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """The residual stream (B, G, S, D), and the keys and values of its tokens.

        kv_cache: keys and values of tokens before these, which attend to both.
        """
        level_idx, norm3 = inputs.level_idx, self.norm3
        shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = self._level_vectors(inputs.modulation)
        attention_out, new_kv = self._self_attention(modulate(x, level_idx, shift, scale), inputs, kv_cache)
        x, h = gate_residual_norm(x, attention_out, level_idx, gate, (norm3.weight, norm3.bias), norm3.eps)
        branch = self._cross_attention(h, text_kv, inputs.attend)
        x, h = gate_residual_modulate(x, branch, level_idx, None, shift_ffn, scale_ffn)
        return gate_residual(x, self.ffn(h), level_idx, gate_ffn), new_kv

    def _level_vectors(self, modulation: Tensor) -> list[PerLevel]:
        return [PerLevel(*pair) for pair in zip(modulation.unbind(1), self.modulation[0].unbind(0), strict=True)]

    def _self_attention(
        self, x: Tensor, inputs: BlockInputs, kv_cache: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:  # (B, G, S, D)
        tokens = x.flatten(1, 2)
        q, (k, v) = self.self_attn.project_q(tokens, inputs.rope), self.self_attn.project_kv(tokens, inputs.rope)
        out: Tensor = self.self_attn.o(inputs.attend(q, *append_kv(kv_cache, (k, v)), None))
        return out.view_as(x), (k, v)

    def _cross_attention(self, x: Tensor, text_kv: KeysValues, attend: AttentionFn) -> Tensor:
        out: Tensor = self.cross_attn.o(attend(self.cross_attn.project_q(x.flatten(1, 2)), *text_kv, None))
        return out.view_as(x)


BlockFn = Callable[
    [Block, Tensor, BlockInputs, KeysValues, KeysValues | None], tuple[Tensor, KeysValues]
]  # a block, then the arguments and the result of `Block.forward`


def eager_block(
    block: Block, x: Tensor, inputs: BlockInputs, text_kv: KeysValues, kv_cache: KeysValues | None
) -> tuple[Tensor, KeysValues]:
    """Call the block without compiling it."""
    out: tuple[Tensor, KeysValues] = block(x, inputs, text_kv, kv_cache)
    return out


class Head(nn.Module):
    """Projects tokens to patches, in float32."""

    def __init__(self, dim: int, out: int, eps: float) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 2, dim))
        self.head = Linear(dim, out)
        self.eps = eps

    def forward(self, x: Tensor, level_idx: Tensor, embedding: Tensor) -> Tensor:  # (B, G, S, D), (levels, D)
        shift, scale = (PerLevel(embedding, row) for row in self.modulation[0])
        out: Tensor = self.head(modulate(x.to(self.head.weight.dtype), level_idx, shift, scale, self.eps))
        return out
