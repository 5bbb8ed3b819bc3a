"""The Wan diffusion transformer: attention over the tokens of all latents, a noise level per clip, frame or token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from pavdm_cli.attention import AttentionFn, attend
from pavdm_cli.models.wan.config import PATCH, WanConfig
from pavdm_cli.models.wan.layers import Block, BlockFn, BlockInputs, Head, KeysValues, Linear, append_kv, eager_block
from pavdm_cli.models.wan.rope import rope_table
from pavdm_kernels import linear, timestep_embedding

# Modules that compute the modulation, and the head: less than 3 % of all parameters.
FLOAT32 = ("time_embedding.", "time_projection.", "fps_embedding.", "fps_projection.", "head.")


def is_float32(name: str) -> bool:
    """Whether a parameter stays in float32 if most are in lower precision."""
    return name.startswith(FLOAT32) or name.endswith(".modulation")


class Modulation(NamedTuple):
    """AdaLN modulation of every level, float32."""

    block: Tensor  # (levels, 6, D)
    head: Tensor  # (levels, D)


class Conditioning(NamedTuple):
    """The inputs of a call that are the same for all steps of a prompt."""

    modulation: Modulation
    text_kv: Sequence[KeysValues]  # for each block
    attend: AttentionFn = attend
    rope: Callable[[int, int, tuple[int, int, int]], Tensor] = rope_table
    run_block: BlockFn = eager_block


class WanTransformer(nn.Module):
    """The network; parameter names are those of the original checkpoints. It predicts noise - clean."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        dim, eps = config.dim, config.eps
        self.patch_embedding = nn.Conv3d(config.in_channels, dim, PATCH, stride=PATCH)
        self.text_embedding = nn.Sequential(Linear(config.text_dim, dim), nn.GELU("tanh"), Linear(dim, dim))
        self.time_embedding = nn.Sequential(Linear(config.freq_dim, dim), nn.SiLU(), Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), Linear(dim, 6 * dim))
        if config.fps_embedding:
            self.fps_embedding = nn.Embedding(2, dim)
            self.fps_projection = nn.Sequential(Linear(dim, dim), nn.SiLU(), Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(dim, config.heads, config.ffn_dim, eps) for _ in range(config.layers))
        self.head = Head(dim, PATCH[1] * PATCH[2] * config.out_channels, eps)

    def embed_timesteps(self, timesteps: Tensor, fps: Tensor) -> Modulation:  # (N,), () or (N,) -> N levels
        """Embed and project timesteps from 0 to 1000; row n is for `timesteps[n]` at `fps` frames per second."""
        weight = self.head.modulation
        wide = torch.float32 if weight.device.type == "mps" else torch.float64
        sinusoids = timestep_embedding(timesteps.to(weight.device, wide), self.config.freq_dim).to(weight.dtype)
        embedding = self.time_embedding(sinusoids)
        block = self.time_projection(embedding)
        if self.config.fps_embedding:
            index = (fps.to(weight.device) != 16).long().expand(len(timesteps))
            block = block + self.fps_projection(self.fps_embedding(index))
        return Modulation(block.unflatten(-1, (6, -1)), embedding)

    def encode_text(self, rows: Tensor) -> list[KeysValues]:  # (B, L, text_dim), for each block
        """Keys and values of the prompt; all rows are attended to, including the padding."""
        embeddings = self.text_embedding(rows.to(self.patch_embedding.weight))
        return [block.cross_attn.project_kv(embeddings) for block in self.layers]

    @property
    def layers(self) -> list[Block]:
        """The blocks in the order they run."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(
        self,
        z: Tensor,
        level_idx: Tensor,
        conditioning: Conditioning,
        *,
        start: int = 0,
        kv_cache: Sequence[KeysValues] | None = None,
    ) -> Tensor:
        """noise - clean of every latent, (B, T, out_channels, H, W).

        z (B, T, C, H, W); level_idx int32 (G,) or (B, G), rows of the modulation, where G is 1, T, or the number of
        tokens; start: position in time of the first latent; kv_cache: keys and values of latents before it, per block.
        """
        x, _ = self.run_blocks(z, level_idx, conditioning, start, kv_cache)
        patches = self.head(x, level_idx, conditioning.modulation.head).flatten(1, 2)
        return _unpatchify(patches, _grid(z))

    def prefill(
        self,
        context: Tensor,
        level_idx: Tensor,
        conditioning: Conditioning,
        *,
        start: int = 0,
        kv_cache: Sequence[KeysValues] | None = None,
    ) -> list[KeysValues]:
        """Keys and values of every block, after those in `kv_cache`. Arguments as `forward`."""
        _, new_kvs = self.run_blocks(context, level_idx, conditioning, start, kv_cache)
        past = [None] * len(new_kvs) if kv_cache is None else kv_cache
        return [append_kv(old, new) for old, new in zip(past, new_kvs, strict=True)]

    def run_blocks(
        self,
        z: Tensor,
        level_idx: Tensor,
        conditioning: Conditioning,
        start: int,
        kv_cache: Sequence[KeysValues] | None,
    ) -> tuple[Tensor, list[KeysValues]]:
        """The residual stream after the last block, (B, G, S, D), and the keys and values of every block."""
        tokens = self.embed(z)
        x = tokens.view(len(tokens), level_idx.shape[-1], -1, tokens.shape[-1])
        rope = conditioning.rope(self.config.head_dim, start, _grid(z))
        rope = rope if rope.device == x.device else rope.to(x.device)
        inputs, keys_values = BlockInputs(level_idx, conditioning.modulation.block, rope, conditioning.attend), []
        for n, (block, kv) in enumerate(zip(self.layers, conditioning.text_kv, strict=True)):
            x, new_kv = conditioning.run_block(block, x, inputs, kv, None if kv_cache is None else kv_cache[n])
            keys_values.append(new_kv)
        return x, keys_values

    def embed(self, z: Tensor) -> Tensor:  # (B, T, C, H, W) -> (B, T * h * w, D)
        """Projected patches of every latent; an odd last row or column is dropped."""
        _, height, width = PATCH
        z = z[..., : z.shape[-2] // height * height, : z.shape[-1] // width * width]
        patches = rearrange(z, "b t c (h p) (w q) -> b (t h w) (c p q)", p=height, q=width)
        weight = self.patch_embedding.weight
        return linear(patches.to(weight), weight.flatten(1), self.patch_embedding.bias)


def _grid(z: Tensor) -> tuple[int, int, int]:
    """Latents, token rows and token columns."""
    return z.shape[1], z.shape[-2] // PATCH[1], z.shape[-1] // PATCH[2]


def _unpatchify(patches: Tensor, grid: tuple[int, int, int]) -> Tensor:  # (B, L, p q c) -> (B, T, c, H, W)
    latents, rows, _ = grid
    _, height, width = PATCH
    return rearrange(patches, "b (t h w) (p q c) -> b t c (h p) (w q)", t=latents, h=rows, p=height, q=width)
