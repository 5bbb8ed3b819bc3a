"""STDiT: a video diffusion transformer with alternating spatial and temporal attention, and a noise level per latent.

Open-Sora v1.2's network (STDiT3) with a timestep per latent; the bundled model is a small one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from pavdm_cli.attention import AttentionFn, attend
from pavdm_cli.models.stdit.layers import (
    AttentionAxis,
    Block,
    BlockInputs,
    FinalLayer,
    PatchEmbedder,
    Rope,
    TextEmbedder,
    TimestepEmbedder,
    position_embedding,
)
from pavdm_cli.models.stdit.tensor_cache import TensorCache, no_cache
from pavdm_kernels import ModulationVector, PerLevel, gather, kernels_enabled, modulate, temporal_attention

ZERO_INIT = ("t_block.1.weight", "cross_attn.proj.weight", "final_layer.linear.weight")  # zero at the start of training


@dataclass(frozen=True, slots=True)
class STDiTConfig:
    """Sizes of the network; Open-Sora's XL/2 has hidden 1152, depth 28, heads 16, 4 -> 8 channels, text 300 x 4096."""

    hidden: int
    depth: int  # pairs of one spatial and one temporal block
    heads: int
    in_channels: int
    out_channels: int  # in_channels, or twice that (the second half, the learned variance, is ignored)
    text_width: int
    text_length: int
    patch: tuple[int, int, int] = (1, 2, 2)
    mlp_ratio: float = 4.0
    input_sq_size: int = 512  # pixels: side of the square image at which position embeddings have scale 1

    def __post_init__(self) -> None:
        assert self.hidden % (4 * self.heads) == 0
        assert self.patch[0] == 1

    @property
    def head_dim(self) -> int:
        """Channels of an attention head."""
        return self.hidden // self.heads


class Modulation(NamedTuple):
    """AdaLN modulation of every level, computed once per video."""

    block: Tensor  # (N, 6, D)
    final: Tensor  # (N, D)
    # (N, V, D): all vectors with biases added, so that a CPU step can gather them at once.
    vectors: Tensor | None = None


class AttentionFns(NamedTuple):
    """Backends of spatial self-attention and of cross-attention."""

    space: AttentionFn = attend
    text: AttentionFn = attend


BlockFn = Callable[..., tuple[Tensor, Tensor]]  # a block, then the arguments and the result of `Block.forward`


def eager_block(block: Block, *arguments: Any) -> tuple[Tensor, Tensor]:
    """Call the block without compiling it."""
    out: tuple[Tensor, Tensor] = block(*arguments)
    return out


class Conditioning(NamedTuple):
    """What all calls for a prompt share: its keys and values for every block, attention backends, how blocks run."""

    text_kv: tuple[Tensor, ...]  # (B, L, 2, N, K) each: spatial block 0, temporal block 0, spatial block 1, ...
    mask: Tensor | None  # bool (B, 1, 1, L), False for padding; None: no padding
    attention: AttentionFns = AttentionFns()
    position_cache: TensorCache = no_cache  # of position embeddings, on one device and in one precision
    run_block: BlockFn = eager_block


class ContextKV(NamedTuple):
    """KV cache of the clean latents; without a cache (`kv` None), only the position offset."""

    kv: Tensor | None  # (depth, 2, B, E, S, N, K), normalized and rotated
    position: int  # of the first noisy latent: E, or fewer if positions repeat


class STDiT(nn.Module):
    """The network; parameter names are those of the published Open-Sora weights."""

    def __init__(self, config: STDiTConfig) -> None:
        super().__init__()
        self.config = config
        hidden, patch = config.hidden, config.patch
        self.rope = Rope(config.head_dim)
        self.x_embedder = PatchEmbedder(config.in_channels, hidden, patch)
        self.t_embedder = TimestepEmbedder(hidden)
        self.fps_embedder = TimestepEmbedder(hidden)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))
        self.y_embedder = TextEmbedder(config.text_width, config.text_length, hidden)
        sizes = (hidden, config.heads, config.mlp_ratio)
        self.spatial_blocks = nn.ModuleList(Block(*sizes) for _ in range(config.depth))
        self.temporal_blocks = nn.ModuleList(Block(*sizes) for _ in range(config.depth))
        self.final_layer = FinalLayer(hidden, patch[1] * patch[2] * config.out_channels)

    def embed_timesteps(self, t: Tensor, fps: Tensor) -> Modulation:  # (N,), (N,) or ()
        """Embed and project timesteps in [0, 1000]: row n is for `t[n]` at `fps` frames per second."""
        final = self.t_embedder(t) + self.fps_embedder(fps.reshape(-1))
        return Modulation(self.t_block(final).unflatten(-1, (6, -1)), final)

    def encode_text(self, y: Tensor, mask: Tensor | None = None) -> Conditioning:  # (B, L, text width), (B, L)
        """Cross-attention keys and values; tokens that are padding in every row of the mask are dropped."""
        if mask is not None:
            is_used = mask.bool().any(0)
            y, mask = y[:, is_used], mask.bool()[:, is_used]
            mask = None if mask.all() else mask[:, None, None]
        y = self.y_embedder(y)
        return Conditioning(tuple(block.cross_attn.project_kv(y) for block in self.blocks), mask)

    def initialize_weights(self, generator: torch.Generator | None = None) -> None:
        """Fresh weights for training: every block starts as the identity, and the output is zero (DiT's adaLN-zero)."""
        for name, parameter in self.named_parameters():
            if name.endswith((".bias", "scale_shift_table", *ZERO_INIT)):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter.flatten(1), generator=generator)
        nn.init.normal_(self.y_embedder.y_embedding, std=self.config.text_width**-0.5, generator=generator)

    @property
    def blocks(self) -> list[Block]:
        """All blocks in the order they run."""
        pairs = zip(self.spatial_blocks, self.temporal_blocks, strict=True)
        return [block for pair in pairs for block in pair if isinstance(block, Block)]

    def forward(
        self,
        z: Tensor,
        level_idx: Tensor,
        modulation: Modulation,
        conditioning: Conditioning,
        *,
        context_kv: ContextKV | None = None,
        num_context_latents: int = 0,
        size: tuple[float, float] | None = None,
    ) -> Tensor:
        """The velocity (clean - noise) of every latent, (B, T, in_channels, H, W).

        z (B, T, C, H, W); level_idx int32 (T,) or (B, T), rows of the modulation; context_kv: cache of clean latents
        before z, or only the position of the first noisy latent (default: right after the clean ones of z);
        num_context_latents: clean latents at the start of z itself, which attend over time only to themselves;
        size: height, width in pixels.
        """
        start, past_kv = (num_context_latents, None) if context_kv is None else (context_kv.position, context_kv.kv)
        count = z.shape[1] - num_context_latents
        kv_caches = [None] * self.config.depth if past_kv is None else past_kv.unbind(0)
        rope = conditioning.position_cache(
            ("rope", start, count, num_context_latents), lambda: self.rope(start, count, num_context_latents)
        )
        causal_attention = partial(context_causal_attention, num_context_latents=num_context_latents)
        temporal = [
            AttentionAxis(causal_attention if num_context_latents else partial(temporal_attention, kv_cache=kv), rope)
            for kv in kv_caches
        ]
        axes = block_axes(temporal, conditioning.attention.space)
        h = self.run_blocks(self.embed(z, size, conditioning.position_cache), level_idx, modulation, conditioning, axes)
        return self.unpatchify(self.final_layer(h), z.shape[-2:])[:, :, : self.config.in_channels]

    def prefill(
        self,
        context: Tensor,
        level_idx: Tensor,
        modulation: Modulation,
        conditioning: Conditioning,
        size: tuple[float, float] | None = None,
        *,
        position: int | None = None,
    ) -> ContextKV:
        """The KV cache of clean latents; stops after the last block's keys and values. Arguments as for `forward`.

        position: of the first noisy latent; positions repeat if there are more clean latents than that.
        Blocks are not compiled: one call per shift does not justify another graph.
        """
        conditioning = conditioning._replace(run_block=eager_block)
        kvs: list[Tensor] = []

        def attend_and_store(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            kvs.append(torch.stack([k, v]))
            return temporal_attention(q, k, v)

        count = context.shape[1]
        start = count if position is None else min(position, count)
        rope = conditioning.position_cache(("rope", start, 0, count), lambda: self.rope(start, 0, count))
        axes = block_axes([AttentionAxis(attend_and_store, rope)] * self.config.depth, conditioning.attention.space)
        h = self.run_blocks(
            self.embed(context, size, conditioning.position_cache), level_idx, modulation, conditioning, axes[:-1]
        )
        kvs.append(self.blocks[-1].attn.project_kv(h, rope))
        return ContextKV(torch.stack(kvs), start)

    def embed(
        self, z: Tensor, size: tuple[float, float] | None, position_cache: TensorCache = no_cache
    ) -> Tensor:  # -> (B, T, S, D)
        """Tokens with position embeddings; the right and bottom edges are zero-padded to whole patches."""
        _, height, width = self.config.patch
        z = F.pad(z, (0, -z.shape[-1] % width, 0, -z.shape[-2] % height))
        scale = 1.0 if size is None else math.sqrt(size[0] * size[1]) / self.config.input_sq_size
        tokens: Tensor = self.x_embedder(z)
        grid = (z.shape[-2] // height, z.shape[-1] // width)
        return tokens + position_cache(("positions", grid, scale), lambda: position_embedding(grid, scale, tokens))

    def run_blocks(
        self,
        x: Tensor,
        level_idx: Tensor,
        modulation: Modulation,
        conditioning: Conditioning,
        axes: Sequence[AttentionAxis],
    ) -> Tensor:
        """Run one block per axis; returns the stream modulated for the next block or the final layer."""
        inputs = BlockInputs(level_idx, conditioning.mask, conditioning.attention.text)
        vectors = self.vectors(level_idx, modulation)
        h = modulate(x, level_idx, vectors[0], vectors[1])
        for n, (block, kv, axis) in enumerate(zip(self.blocks, conditioning.text_kv, axes, strict=False)):
            x, h = conditioning.run_block(block, (x, h), inputs, kv, axis, vectors[6 * n + 2 : 6 * n + 8])
        return h

    def vectors(self, level_idx: Tensor, modulation: Modulation) -> Sequence[ModulationVector]:
        """The modulation vectors: six per block in execution order, then the final layer's shift and scale."""
        if modulation.vectors is not None and kernels_enabled():
            return gather(modulation.vectors, level_idx)
        return self.level_vectors(modulation)

    def level_vectors(self, modulation: Modulation) -> list[PerLevel]:
        """Like `vectors`, but not yet gathered by level."""
        blocks = [vector for block in self.blocks for vector in block.level_vectors(modulation.block)]
        return [*blocks, *self.final_layer.level_vectors(modulation.final)]

    def precompute_vectors(self, modulation: Modulation) -> Modulation:
        """Precompute all vectors with biases for every level, so that a CPU step gathers them at once."""
        vectors = torch.stack([vector.rows + vector.bias for vector in self.level_vectors(modulation)], dim=1)
        return modulation._replace(vectors=vectors)

    def unpatchify(self, patches: Tensor, size: Sequence[int]) -> Tensor:  # (B, T, S, p q c) -> (B, T, c, H, W)
        """Put patches back in place and crop the padding."""
        _, height, width = self.config.patch
        rows = -(-size[0] // height)
        z = rearrange(patches, "b t (h w) (p q c) -> b t c (h p) (w q)", h=rows, p=height, q=width)
        return z[..., : size[0], : size[1]]


def block_axes(temporal: Sequence[AttentionAxis], attend: AttentionFn) -> list[AttentionAxis]:
    """One axis per block, alternating spatial and temporal."""
    spatial = AttentionAxis(partial(spatial_attention, attend=attend), None)
    return [axis for time in temporal for axis in (spatial, time)]


def spatial_attention(
    q: Tensor, k: Tensor, v: Tensor, *, attend: AttentionFn
) -> Tensor:  # (B, T, S, N, K) -> (B, T, S, N * K)
    """Attention within each latent."""
    return attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), None).view(*q.shape[:3], -1)


def context_causal_attention(q: Tensor, k: Tensor, v: Tensor, *, num_context_latents: int) -> Tensor:
    """Temporal attention in which the first `num_context_latents` attend only to one another, without a mask tensor.

    Shapes as for `spatial_attention`.
    """
    first = temporal_attention(q[:, :num_context_latents], k[:, :num_context_latents], v[:, :num_context_latents])
    return torch.cat([first, temporal_attention(q[:, num_context_latents:], k, v)], dim=1)
