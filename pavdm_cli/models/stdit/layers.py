"""Layers of the transformer: embedders, attention, one block, the final layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from pavdm_cli.attention import AttentionFn
from pavdm_kernels import (
    ModulationVector,
    PerLevel,
    cast_to_narrower,
    gate_residual_modulate,
    linear,
    qk_norm_rope,
    timestep_embedding,
)

SelfAttentionFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v (B, T, S, N, K) -> (B, T, S, N * K)


class AttentionAxis(NamedTuple):
    """Spatial (tokens of a latent, no RoPE) or temporal (one token position over all latents, with RoPE)."""

    attend: SelfAttentionFn
    rope: Tensor | None  # (T, K / 2, 2)


class BlockInputs(NamedTuple):
    """Inputs shared by all blocks of a step."""

    level_idx: Tensor  # int32 (T,) or (B, T)
    text_mask: Tensor | None  # bool (B, 1, 1, L), True = attend
    text_attention: AttentionFn  # backend of the cross-attention


class Linear(nn.Linear):
    """A linear layer that calls the fused operation."""

    def forward(self, x: Tensor) -> Tensor:  # (..., D) -> (..., E)
        return linear(x, self.weight, self.bias)


class TimestepEmbedder(nn.Module):
    """Sinusoidal embedding of a timestep or a frame rate, then two linear layers."""

    def __init__(self, hidden: int, width: int = 256) -> None:
        super().__init__()
        self.width = width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, value: Tensor) -> Tensor:  # (N,) -> (N, D)
        first = self.mlp[0]
        assert isinstance(first, nn.Linear)
        out: Tensor = self.mlp(timestep_embedding(value, self.width).to(first.weight.dtype))
        return out


class Mlp(nn.Module):
    """Two linear layers around a tanh-GELU."""

    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, inner)
        self.fc2 = Linear(inner, out)

    def forward(self, x: Tensor) -> Tensor:
        x_cast = cast_to_narrower(x, self.fc1.weight)  # one cast for the whole MLP
        out: Tensor = self.fc2(linear(x_cast, self.fc1.weight, self.fc1.bias, gelu=True))
        return out if x_cast is x else out.to(x.dtype)


class TextEmbedder(nn.Module):
    """Projects text tokens; `y_embedding` is the null text."""

    y_embedding: Tensor

    def __init__(self, text_width: int, text_length: int, hidden: int) -> None:
        super().__init__()
        self.y_proj = Mlp(text_width, hidden, hidden)
        self.register_buffer("y_embedding", torch.zeros(text_length, text_width))

    def forward(self, y: Tensor) -> Tensor:  # (B, L, text width) -> (B, L, D)
        out: Tensor = self.y_proj(y)
        return out


class PatchEmbedder(nn.Module):
    """Projects patches of one latent: a matmul with the parameters of a convolution."""

    def __init__(self, in_channels: int, hidden: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(in_channels, hidden, patch, stride=patch)

    def forward(self, z: Tensor) -> Tensor:  # (B, T, C, H, W), padded -> (B, T, S, D)
        _, height, width = self.patch
        patches = rearrange(z, "b t c (h p) (w q) -> b t (h w) (c p q)", p=height, q=width)
        return linear(patches, self.proj.weight.flatten(1), self.proj.bias)


def position_embedding(grid: tuple[int, int], scale: float, like: Tensor) -> Tensor:  # -> (S, D)
    """Sines and cosines of the column, then of the row, in coordinates of a square with as many tokens."""
    rows, columns = grid
    side, width = round(math.sqrt(rows * columns)), like.shape[-1]
    steps = torch.arange(width // 4, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    frequencies = 10000.0 ** (-4 * steps / width)

    def axis(count: int) -> Tensor:  # -> (count, D / 2)
        angles = torch.arange(count, device=like.device)[:, None] * (side / count / scale) * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    column, row = axis(columns).repeat(rows, 1), axis(rows).repeat_interleave(columns, 0)
    return torch.cat([column, row], dim=-1).to(like.dtype)


def rotary_frequencies(head_dim: int) -> Tensor:  # -> (K / 2,)
    """Radians per latent of every pair of a head; computed on the CPU even if the network is on the meta device.

    Arithmetic on the meta device would import torch's compiler, which takes seconds.
    """
    return 10000.0 ** (-torch.arange(0, head_dim, 2, device="cpu") / head_dim)


class Rope(nn.Module):
    """Rotary embedding of consecutive latents; its frequencies are frozen and part of the state dict."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(rotary_frequencies(head_dim), requires_grad=False)

    def forward(self, start: int, latents: int, context: int = 0) -> Tensor:  # -> (context + T, K / 2, 2)
        """Cosine and sine of the angles of consecutive latents from position `start` on, at least float32.

        Context latents end right before them. If there are more than `start`, positions from 0 repeat,
        so that none exceeds those of training.
        """
        positions = torch.arange(-context, latents, device=self.freqs.device, dtype=self.freqs.dtype) + start
        if context > start:
            positions = torch.where(positions < start, positions.remainder(start), positions)
        angles = positions[:, None] * self.freqs
        angles = angles.to(torch.promote_types(angles.dtype, torch.float32))
        return torch.view_as_real(torch.polar(torch.ones_like(angles), angles))


class RMSNormWeight(nn.Module):
    """Weight of a per-head RMS norm, applied by `qk_norm_rope`."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))


class SelfAttention(nn.Module):
    """Self-attention over an axis; the caller chooses axis and backend."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(hidden, 3 * hidden)
        self.q_norm = RMSNormWeight(hidden // heads)
        self.k_norm = RMSNormWeight(hidden // heads)
        self.proj = Linear(hidden, hidden)

    def project_qkv(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys with QK norm and RoPE, and values: (B, T, S, N, K) each."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return *qk_norm_rope(q, k, (self.q_norm.weight, self.k_norm.weight), rope), v

    def project_kv(self, x: Tensor, rope: Tensor | None) -> Tensor:  # -> (2, B, T, S, N, K)
        """The keys and values of `project_qkv` alone."""
        return torch.stack(self.project_qkv(x, rope)[1:])

    def forward(self, x: Tensor, axis: AttentionAxis) -> Tensor:  # (B, T, S, D)
        out: Tensor = self.proj(axis.attend(*self.project_qkv(x, axis.rope)))
        return out


class CrossAttention(nn.Module):
    """Cross-attention to the text, whose keys and values are computed once per prompt."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = Linear(hidden, hidden)
        self.kv_linear = Linear(hidden, 2 * hidden)
        self.proj = Linear(hidden, hidden)

    def project_kv(self, y: Tensor) -> Tensor:  # (B, L, D) -> (B, L, 2, N, K)
        """Keys and values of the projected text."""
        kv: Tensor = self.kv_linear(y)
        return kv.view(*kv.shape[:-1], 2, self.heads, -1)

    def forward(self, x: Tensor, kv: Tensor, mask: Tensor | None, attend: AttentionFn) -> Tensor:  # (B, T, S, D)
        k, v = kv.unbind(2)
        q = self.q_linear(x.flatten(1, 2)).unflatten(-1, (self.heads, -1))
        out: Tensor = self.proj(attend(q, k, v, mask))
        return out.view_as(x)


class Block(nn.Module):
    """Self-attention, cross-attention and MLP.

    Takes an already modulated input and modulates its output for the next block.
    """

    def __init__(self, hidden: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.zeros(6, hidden))
        self.attn = SelfAttention(hidden, heads)
        self.cross_attn = CrossAttention(hidden, heads)
        self.mlp = Mlp(hidden, int(hidden * mlp_ratio), hidden)

    def level_vectors(self, modulation: Tensor) -> list[PerLevel]:  # (N, 6, D)
        """Shift, scale and gate of the attention, then of the MLP."""
        return [PerLevel(*pair) for pair in zip(modulation.unbind(1), self.scale_shift_table.unbind(0), strict=True)]

    def forward(
        self,
        stream: tuple[Tensor, Tensor],
        inputs: BlockInputs,
        text_kv: Tensor,
        axis: AttentionAxis,
        vectors: Sequence[ModulationVector],
    ) -> tuple[Tensor, Tensor]:
        """From the residual stream and its modulated copy, (B, T, S, D), to both after the block.

        vectors: gate, shift, scale and gate of the block, then shift and scale of the next block or final layer.
        """
        x, h = stream
        gate, shift, scale, gate_mlp, *next_vectors = vectors
        x = torch.addcmul(x, gate.gather(inputs.level_idx), self.attn(h, axis))
        branch = self.cross_attn(x, text_kv, inputs.text_mask, inputs.text_attention)
        x, h = gate_residual_modulate(x, branch, inputs.level_idx, None, shift, scale)
        return gate_residual_modulate(x, self.mlp(h), inputs.level_idx, gate_mlp, *next_vectors)


class FinalLayer(nn.Module):
    """Projects modulated tokens to patches."""

    def __init__(self, hidden: int, out: int) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.zeros(2, hidden))
        self.linear = Linear(hidden, out)

    def level_vectors(self, modulation: Tensor) -> tuple[PerLevel, PerLevel]:  # (N, D)
        """Shift and scale, both from the same vector per level."""
        return PerLevel(modulation, self.scale_shift_table[0]), PerLevel(modulation, self.scale_shift_table[1])

    def forward(self, h: Tensor) -> Tensor:  # (B, T, S, D) -> (B, T, S, patch values)
        out: Tensor = self.linear(h)
        return out
