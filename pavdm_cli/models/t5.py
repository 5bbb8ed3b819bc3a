"""The encoder of T5 v1.1, under the names its weights are published by; sizes come from its config.json."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class T5Config:
    """Sizes of the encoder; as they stand, those of XXL."""

    vocab_size: int = 32128
    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_heads: int = 64
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6


class Norm(nn.Module):
    """Root mean square norm, in float32, with a gain."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (x * scale).to(self.weight.dtype)


class SelfAttention(nn.Module):
    """Attention without scaling; how far apart two tokens are enters as a bias."""

    def __init__(self, config: T5Config, first: bool) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.heads = config.num_heads
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if first:  # the other blocks use its biases too
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # (B, L, D), (1, N, L, L)
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, bias, scale=1.0)
        out: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two projections, one of them through tanh-GELU, multiplied and projected back."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))
        return out


class Normed(nn.Module):
    """A part on the normed stream, under the part's published name."""

    def __init__(self, name: str, part: nn.Module, config: T5Config) -> None:
        super().__init__()
        self.part = name
        self.add_module(name, part)
        self.layer_norm = Norm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        out: Tensor = x + self.get_submodule(self.part)(self.layer_norm(x), *given)
        return out


class Block(nn.Module):
    """Attention, then the feed-forward part."""

    def __init__(self, config: T5Config, first: bool) -> None:
        super().__init__()
        attention = Normed("SelfAttention", SelfAttention(config, first), config)
        self.layer = nn.ModuleList([attention, Normed("DenseReluDense", FeedForward(config), config)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        attention, after = self.layer
        out: Tensor = after(attention(x, bias))
        return out


class Stack(nn.Module):
    """All blocks and the norm after them."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(config, first=i == 0) for i in range(config.num_layers))
        self.final_layer_norm = Norm(config.d_model, config.layer_norm_epsilon)


class T5Encoder(nn.Module):
    """Token ids to vectors."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config)

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:  # (B, L) -> (B, L, d_model)
        """Every token sees every other: no padding."""
        x, bias = self.shared(ids), self.bias(ids.shape[1])
        for block in self.encoder.block:
            x = block(x, bias)
        out: Tensor = self.encoder.final_layer_norm(x)
        return out

    def bias(self, length: int) -> Tensor:  # -> (1, N, L, L)
        """What every head adds for how far a key lies from a query."""
        table = self.get_parameter("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
        places = torch.arange(length, device=table.device)
        rows = bucket(places[None] - places[:, None], self.config)
        return F.embedding(rows, table).permute(2, 0, 1)[None]


def bucket(distance: Tensor, config: T5Config) -> Tensor:
    """The row of a distance, key less query: near ones have their own, far ones share, logarithmically."""
    half = config.relative_attention_num_buckets // 2
    exact, size = half // 2, distance.abs()
    span = math.log(config.relative_attention_max_distance / exact)
    far = exact + ((size.clamp(min=1).float() / exact).log() / span * (half - exact)).long()
    return half * (distance > 0) + torch.where(size < exact, size, far.clamp(max=half - 1))
