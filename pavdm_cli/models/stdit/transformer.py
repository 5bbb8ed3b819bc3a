"""STDiT: a video diffusion transformer that alternates attention over space and over time, a noise level a frame.

The Open-Sora v1.2 network (STDiT3) with per-frame timesteps; small, it is the embedded model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from pavdm_cli.attention import AttentionFn, attend
from pavdm_cli.models.stdit.layers import (
    Axis,
    Block,
    FinalLayer,
    Frames,
    NumberEmbedder,
    PatchEmbedder,
    Rope,
    TextEmbedder,
    position_embedding,
    rotary_frequencies,
)
from pavdm_kernels import ModulationVector, PerLevel, gather, kernels_enabled, modulate, temporal_attention

CLOSED = ("t_block.1.weight", "cross_attn.proj.weight", "final_layer.linear.weight")  # zero at the start of training


@dataclass(frozen=True, slots=True)
class STDiTConfig:
    """Sizes of the network; Open-Sora's XL/2 has hidden 1152, depth 28, heads 16, 4 -> 8 channels, text 300 x 4096."""

    hidden: int
    depth: int  # pairs of one spatial and one temporal block
    heads: int
    in_channels: int
    out_channels: int  # in_channels, or twice as many: the second half is not the velocity
    text_width: int
    text_length: int
    patch: tuple[int, int, int] = (1, 2, 2)
    mlp_ratio: float = 4.0
    input_sq_size: int = 512  # pixels: the side of the square picture whose position embedding has scale 1

    def __post_init__(self) -> None:
        assert self.hidden % (4 * self.heads) == 0
        assert self.patch[0] == 1


class Modulation(NamedTuple):
    """The modulation vectors of every level of a video."""

    block: Tensor  # (N, 6, D)
    final: Tensor  # (N, D)
    every: Tensor | None = None  # (N, V, D): each of the network's vectors, sums of both, where one look-up is best


class Attends(NamedTuple):
    """The back ends that run attention over one frame's tokens, and over the words."""

    space: AttentionFn = attend
    text: AttentionFn = attend


TensorCache = Callable[[Hashable, Callable[[], Tensor]], Tensor]  # a name, and what makes the tensor of that name


def no_cache(name: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """Keeps nothing."""
    return make()


def tensor_cache() -> TensorCache:
    """Makes what depends on nothing but sizes once, so that a step need not: positions in the picture and in time."""
    kept: dict[Hashable, Tensor] = {}

    def keep(name: Hashable, make: Callable[[], Tensor]) -> Tensor:
        if name not in kept:
            kept[name] = make()
        return kept[name]

    return keep


BlockFn = Callable[..., tuple[Tensor, Tensor]]  # a block, then the arguments and the result of `Block.forward`


def eager_block(block: Block, *given: Any) -> tuple[Tensor, Tensor]:
    """A block by its own Python."""
    out: tuple[Tensor, Tensor] = block(*given)
    return out


class Text(NamedTuple):
    """A prompt as the blocks read it."""

    kv: tuple[Tensor, ...]  # (B, L, 2, N, K) each: spatial block 0, temporal block 0, spatial block 1, ...
    mask: Tensor | None  # bool (B, 1, 1, L), True = a word; None where all are
    attends: Attends = Attends()
    keep: TensorCache = no_cache  # for a model bound to this prompt, on one device and in one precision
    run: BlockFn = eager_block


class ContextKV(NamedTuple):
    """Keys and values of clean frames; with `kv` None it only says how many positions lie before the noisy frames."""

    kv: Tensor | None  # (depth, 2, B, C, S, N, K), normed and rotated
    latents: int  # C, or fewer where the positions of a long context repeat


class STDiT(nn.Module):
    """The network; parameter names are those of the published Open-Sora weights."""

    def __init__(self, config: STDiTConfig) -> None:
        super().__init__()
        self.config = config
        hidden, patch = config.hidden, config.patch
        self.rope = Rope(hidden // config.heads)
        self.x_embedder = PatchEmbedder(config.in_channels, hidden, patch)
        self.t_embedder = NumberEmbedder(hidden)
        self.fps_embedder = NumberEmbedder(hidden)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))
        self.y_embedder = TextEmbedder(config.text_width, config.text_length, hidden)
        sizes = (hidden, config.heads, config.mlp_ratio)
        self.spatial_blocks = nn.ModuleList(Block(*sizes) for _ in range(config.depth))
        self.temporal_blocks = nn.ModuleList(Block(*sizes) for _ in range(config.depth))
        self.final_layer = FinalLayer(hidden, patch[1] * patch[2] * config.out_channels)

    def modulation(self, t: Tensor, fps: Tensor) -> Modulation:  # (N,), (N,) or ()
        """Embeds and projects timesteps in [0, 1000], once a video: row n is for `t[n]` at `fps` frames a second."""
        final = self.t_embedder(t) + self.fps_embedder(fps.reshape(-1))
        return Modulation(self.t_block(final).unflatten(-1, (6, -1)), final)

    def encode_text(self, y: Tensor, mask: Tensor | None = None) -> Text:  # (B, L, text width), (B, L)
        """Cross-attention keys and values, once a prompt; tokens that no row of the mask shows are dropped."""
        if mask is not None:
            shown = mask.bool().any(0)
            y, mask = y[:, shown], mask.bool()[:, shown]
            mask = None if mask.all() else mask[:, None, None]
        y = self.y_embedder(y)
        return Text(tuple(block.cross_attn.encode(y) for block in self.blocks), mask)

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Fresh weights for training: every block starts as the identity and the output as zero (DiT's adaLN-zero)."""
        for name, parameter in self.named_parameters():
            if name.endswith((".bias", "scale_shift_table", *CLOSED)):
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
        table: Modulation,
        text: Text,
        *,
        cached: ContextKV | None = None,
        clean: int = 0,
        size: tuple[float, float] | None = None,
    ) -> Tensor:
        """The velocity (clean - noise) of every frame, (B, T, in_channels, H, W).

        z (B, T, C, H, W); level_idx int32 (T,) or (B, T), rows of `table`; `cached` stands for clean frames before z;
        the first `clean` frames of z are clean and see, over time, only themselves; size: height, width in pixels.
        Noisy frames begin at the position that `cached` names, else right after the clean ones.
        """
        start, past = (clean, None) if cached is None else (cached.latents, cached.kv)
        count = z.shape[1] - clean
        kvs = [None] * self.config.depth if past is None else past.unbind(0)
        rope = text.keep(("rope", start, count, clean), lambda: self.rope(start, count, clean))
        times = [partial(after_clean, clean=clean) if clean else partial(over_time, memory=kv) for kv in kvs]
        over = [Axis(time, rope) for time in times]
        h = self.run_blocks(self.embed(z, size, text.keep), level_idx, table, text, alternate(over, text.attends.space))
        return self.unpatchify(self.final_layer(h), z.shape[-2:])[:, :, : self.config.in_channels]

    def prefill(
        self,
        context: Tensor,
        level_idx: Tensor,
        table: Modulation,
        text: Text,
        size: tuple[float, float] | None = None,
        *,
        position: int | None = None,
    ) -> ContextKV:
        """What later calls read of the clean frames; stops at the last keys and values. Arguments as `forward`.

        position: of the first noisy frame; with more clean frames than that, their positions repeat. Blocks run as
        they are written: what is done once a shift is not worth a graph of its own.
        """
        text = text._replace(run=eager_block)
        kept: list[Tensor] = []

        def keep(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            kept.append(torch.stack([k, v]))
            return temporal_attention(q, k, v)

        count = context.shape[1]
        start = count if position is None else min(position, count)
        rope = text.keep(("rope", start, 0, count), lambda: self.rope(start, 0, count))
        axes = alternate([Axis(keep, rope)] * self.config.depth, text.attends.space)
        h = self.run_blocks(self.embed(context, size, text.keep), level_idx, table, text, axes[:-1])
        kept.append(torch.stack(self.blocks[-1].attn.heads_of(h, rope)[1:]))
        return ContextKV(torch.stack(kept), start)

    def embed(
        self, z: Tensor, size: tuple[float, float] | None, keep: TensorCache = no_cache
    ) -> Tensor:  # -> (B, T, S, D)
        """Tokens that know their place in the picture; zeros fill up the right and the bottom patches."""
        _, height, width = self.config.patch
        z = F.pad(z, (0, -z.shape[-1] % width, 0, -z.shape[-2] % height))
        scale = 1.0 if size is None else math.sqrt(size[0] * size[1]) / self.config.input_sq_size
        tokens: Tensor = self.x_embedder(z)
        grid = (z.shape[-2] // height, z.shape[-1] // width)
        return tokens + keep(("places", grid, scale), lambda: position_embedding(grid, scale, tokens))

    def run_blocks(self, x: Tensor, level_idx: Tensor, table: Modulation, text: Text, axes: Sequence[Axis]) -> Tensor:
        """Runs one block an axis; returns the stream modulated for whatever comes after the last that ran."""
        frames, vectors = Frames(level_idx, text.mask, text.attends.text), self.vectors(level_idx, table)
        h = modulate(x, level_idx, vectors[0], vectors[1])
        for n, (block, kv, axis) in enumerate(zip(self.blocks, text.kv, axes, strict=False)):
            x, h = text.run(block, (x, h), frames, kv, axis, vectors[6 * n + 2 : 6 * n + 8])
        return h

    def vectors(self, level_idx: Tensor, table: Modulation) -> Sequence[ModulationVector]:
        """Six of each block in the order they run, then the shift and scale of the final layer."""
        return gather(table.every, level_idx) if table.every is not None and kernels_enabled() else self.rows(table)

    def rows(self, table: Modulation) -> list[PerLevel]:
        """As `vectors`, before levels are looked up."""
        return [row for block in self.blocks for row in block.rows(table.block)] + [*self.final_layer.rows(table.final)]

    def summed(self, table: Modulation) -> Modulation:
        """With every vector of every level, so that a step on a CPU looks them all up at once."""
        return table._replace(every=torch.stack([row.rows + row.bias for row in self.rows(table)], dim=1))

    def unpatchify(self, patches: Tensor, size: Sequence[int]) -> Tensor:  # (B, T, S, p q c) -> (B, T, c, H, W)
        """Puts patches back in their places and crops what was padded."""
        _, height, width = self.config.patch
        rows = -(-size[0] // height)
        z = rearrange(patches, "b t (h w) (p q c) -> b t c (h p) (w q)", h=rows, p=height, q=width)
        return z[..., : size[0], : size[1]]


def frequencies(config: STDiTConfig) -> Tensor:
    """The rotary frequencies of a network of this size, which no training changes."""
    return rotary_frequencies(config.hidden // config.heads)


def alternate(over: Sequence[Axis], run: AttentionFn) -> list[Axis]:
    """The axis of every block: space before each of the given ones."""
    return [axis for time in over for axis in (Axis(partial(over_space, run=run), None), time)]


def over_space(q: Tensor, k: Tensor, v: Tensor, *, run: AttentionFn) -> Tensor:  # (B, T, S, N, K) -> (B, T, S, N * K)
    """Attention of every frame over its own tokens."""
    return run(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), None).view(*q.shape[:3], -1)


def over_time(q: Tensor, k: Tensor, v: Tensor, *, memory: Tensor | None) -> Tensor:  # as `over_space`
    """Attention of every pixel over its frames, and over those remembered before them."""
    return temporal_attention(q, k, v, memory)


def after_clean(q: Tensor, k: Tensor, v: Tensor, *, clean: int) -> Tensor:
    """The same where the first `clean` frames see only one another, with no mask tensor."""
    first = temporal_attention(q[:, :clean], k[:, :clean], v[:, :clean])
    return torch.cat([first, temporal_attention(q[:, clean:], k, v)], dim=1)
