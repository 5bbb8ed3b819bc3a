"""A model of the Wan family with its weights, with random ones, or without contents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pavdm_cli.hub.checkpoint import StoredTensors
from pavdm_cli.models.adapter import DenoiserConfig, StepShape, TextEmbedding
from pavdm_cli.models.distributed import full_tensor
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.meta_init import meta_init
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.models.streams import ClipEncodeStream
from pavdm_cli.models.wan.compiled_block import compile_block
from pavdm_cli.models.wan.config import PATCH, TEXT_LENGTH, WanConfig
from pavdm_cli.models.wan.denoiser import with_full_context, with_kv_cache
from pavdm_cli.models.wan.export import export
from pavdm_cli.models.wan.flops import step_flops
from pavdm_cli.models.wan.layers import Block, eager_block
from pavdm_cli.models.wan.rope import rope_table
from pavdm_cli.models.wan.transformer import Conditioning, Modulation, WanTransformer
from pavdm_cli.models.wan.vae import WanVAE
from pavdm_cli.models.wan.vae_streams import DecodeStream, decode_stream, encode_stream
from pavdm_cli.sampling.denoiser import Denoiser, TextKV
from pavdm_cli.sampling.noise import NoiseLevels


@dataclass(frozen=True, slots=True)
class LoadedWan:
    """Implements `LoadedModel`."""

    transformer: WanTransformer
    vae: nn.Module
    source: Path  # the folder of its weights
    resident: frozenset[str] = frozenset()
    stored_transformer: StoredTensors | None = None  # see `LoadedModel.stored_transformer`

    @property
    def config(self) -> WanConfig:
        """Sizes of the transformer."""
        return self.transformer.config

    @property
    def blocks(self) -> Sequence[Block]:
        """See `LoadedModel.blocks`."""
        return self.transformer.layers

    @property
    def shard_units(self) -> Sequence[list[nn.Module]]:
        """Keys and values of the prompt are computed before the blocks run: their layers are a unit of their own.

        So are the embeddings, which are computed once.
        """
        network = self.transformer
        units: list[list[nn.Module]] = [[network.text_embedding], [network.time_embedding], [network.time_projection]]
        for block in self.blocks:
            cross = block.cross_attn
            units += [[cross.k, cross.v, cross.norm_k], [block]]
        return units

    @property
    def forward_methods(self) -> Sequence[tuple[nn.Module, str]]:
        """See `LoadedModel.forward_methods`."""
        return [(self.transformer, name) for name in ("encode_text", "embed_timesteps", "prefill")]

    @property
    def text_shape(self) -> tuple[int, int]:
        """See `LoadedModel.text_shape`."""
        return TEXT_LENGTH, self.config.text_dim

    @property
    def hidden_size(self) -> int:
        """See `LoadedModel.hidden_size`."""
        return self.config.dim

    @property
    def head_dim(self) -> int:
        """See `LoadedModel.head_dim`."""
        return self.config.head_dim

    @property
    def dtype(self) -> torch.dtype:
        """See `LoadedModel.dtype`."""
        return self.transformer.patch_embedding.weight.dtype

    @property
    def matmul_dtype(self) -> torch.dtype:
        """See `LoadedModel.matmul_dtype`."""
        return self.dtype

    def tokens_per_latent(self, layout: LatentLayout) -> int:
        """See `LoadedModel.tokens_per_latent`."""
        return (layout.shape[1] // PATCH[1]) * (layout.shape[2] // PATCH[2])

    def unconditional(self, prompt: TextEmbedding | None, negative: TextEmbedding | None) -> TextEmbedding:
        """The negative prompt, or nothing but padding."""
        return negative or TextEmbedding(torch.zeros(1, self.config.text_dim))

    def encode_stream(self, spec: ModelSpec) -> ClipEncodeStream:
        """As `LoadedModel.encode_stream`."""
        return encode_stream(self._vae)

    def decode_stream(self, spec: ModelSpec, context: Tensor | None = None) -> DecodeStream:
        """As `LoadedModel.decode_stream`."""
        return decode_stream(self._vae, context)

    @property
    def _vae(self) -> WanVAE:
        assert isinstance(self.vae, WanVAE)
        return self.vae

    @torch.no_grad()
    def text_kv(self, text: Sequence[TextEmbedding], config: DenoiserConfig) -> TextKV:
        """See `LoadedModel.text_kv`; without its cache the embeddings, which are projected in every call."""
        rows = self.pad_batch(text)
        return tuple(self.transformer.encode_text(rows)) if _caches(config) else (rows,)

    @torch.no_grad()
    def bind(self, levels: NoiseLevels, config: DenoiserConfig) -> Callable[[TextKV], Denoiser]:
        """See `LoadedModel.bind`."""
        device = self.transformer.patch_embedding.weight.device

        @cache  # never evicted: captured steps read these tensors
        def rope(head_dim: int, start: int, grid: tuple[int, int, int]) -> Tensor:
            return rope_table(head_dim, start, grid).to(device)

        def modulate() -> Modulation:
            return self.transformer.embed_timesteps(levels.timesteps, torch.tensor(config.fps))

        modulation = modulate() if _caches(config) else None
        # Memory is estimated on the meta device, under a dispatch mode that torch.compile does not trace.
        run_block = compile_block() if config.compile and device.type != "meta" else eager_block

        def denoiser(text: TextKV) -> Denoiser:
            def conditioning() -> Conditioning:
                text_kv = text if modulation else self.transformer.encode_text(*text)
                return Conditioning(modulation or modulate(), text_kv, config.attention.any_length, rope, run_block)

            inputs = (self.transformer, conditioning, config.position_offset)
            if config.reuse_context:
                return with_kv_cache(*inputs)
            return with_full_context(*inputs, causal=config.causal_context)

        return denoiser

    def pad_batch(self, text: Sequence[TextEmbedding]) -> Tensor:  # -> (B, 512, text_dim)
        """The embeddings of every prompt, padded with zeros."""
        weight = self.transformer.patch_embedding.weight
        embeds = torch.zeros(len(text), TEXT_LENGTH, self.config.text_dim, device=weight.device, dtype=weight.dtype)
        for prompt_embeds, embedding in zip(embeds, text, strict=True):
            token_embeds = embedding.embeds if embedding.mask is None else embedding.embeds[embedding.mask]
            prompt_embeds[: len(token_embeds)] = token_embeds.to(prompt_embeds)
        return embeds

    def velocity(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Sequence[TextEmbedding],
        config: DenoiserConfig,
        num_context_latents: int = 0,
    ) -> Tensor:  # (B, T, C, h, w), (B, T)
        """See `LoadedModel.velocity`."""
        rows, count = timesteps.shape
        modulation = self.transformer.embed_timesteps(
            timesteps.flatten(), torch.tensor(config.fps, device=noisy.device)
        )
        index = torch.arange(rows * count, dtype=torch.int32, device=noisy.device).view(rows, count)
        text_kv = self.transformer.encode_text(self.pad_batch(text))
        conditioning = Conditioning(modulation, text_kv, config.attention.any_length)
        if not num_context_latents:
            velocity: Tensor = self.transformer(noisy, index, conditioning)
            return -velocity.to(noisy)
        clean, window = noisy[:, :num_context_latents], noisy[:, num_context_latents:]
        clean_index, window_index = index[:, :num_context_latents], index[:, num_context_latents:]
        kv_cache = self.transformer.prefill(clean, clean_index, conditioning)
        out = self.transformer(window, window_index, conditioning, start=num_context_latents, kv_cache=kv_cache)
        return -torch.cat([torch.zeros_like(clean), out.to(noisy)], dim=1)

    def unfreeze(self) -> None:
        """See `LoadedModel.unfreeze`: the whole transformer."""
        self.transformer.requires_grad_(True)

    def upcast(self, part: Literal["transformer", "vae"], device: torch.device) -> LoadedWan:
        """See `LoadedModel.upcast`."""
        if part == "vae":
            return replace(self, vae=deepcopy(self._vae).to(device, torch.float32))
        with meta_init():
            copy = WanTransformer(self.config)
        weights = self.transformer.state_dict().items()
        wide = {name: full_tensor(weight).to(device, torch.float32, copy=True) for name, weight in weights}
        copy.load_state_dict(wide, assign=True)
        return replace(self, transformer=copy.eval().requires_grad_(False))

    def shrink(self) -> tuple[LoadedWan, tuple[int, int]]:
        """See `LoadedModel.shrink`."""
        weight = self.transformer.patch_embedding.weight
        small = replace(self.config, dim=12, heads=1, ffn_dim=12, text_dim=8, freq_dim=8)
        with torch.random.fork_rng(devices=[]):
            network = WanTransformer(small).to(weight.device, weight.dtype).requires_grad_(False)
        side = 2 * self._vae.config.scale
        return replace(self, transformer=network), (side, side)

    def flops(self, step: StepShape, layout: LatentLayout) -> float:
        """See `LoadedModel.flops`."""
        return step_flops(self.config, step, self.tokens_per_latent(layout))

    def export(self, weights: Mapping[str, Tensor], folder: Path, metadata: Mapping[str, Any]) -> Path:
        """See `LoadedModel.export`."""
        return export(dict(weights), self.source, folder, dict(metadata))


def _caches(config: DenoiserConfig) -> bool:
    """Whether what is the same in every call is computed once."""
    return config.cache_text and config.cache_modulation
