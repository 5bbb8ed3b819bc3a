"""The transformer part of `LoadedModel`, shared by all STDiT models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from pavdm_cli.hub.checkpoint import StoredTensors
from pavdm_cli.models.adapter import DenoiserConfig, StepShape, TextEmbedding
from pavdm_cli.models.distributed import full_tensor
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.meta_init import meta_init
from pavdm_cli.models.stdit.compiled_block import compile_block
from pavdm_cli.models.stdit.denoiser import (
    compute_modulation,
    make_backend_binder,
    with_full_context,
    with_kv_cache,
    without_caches,
)
from pavdm_cli.models.stdit.flops import step_flops, tokens_per_latent
from pavdm_cli.models.stdit.layers import Block, Linear
from pavdm_cli.models.stdit.transformer import STDiT, eager_block
from pavdm_cli.sampling.denoiser import Denoiser, TextKV
from pavdm_cli.sampling.noise import NoiseLevels

ModelT = TypeVar("ModelT", bound="STDiTModel")
RESIDENT = frozenset({"scale_shift_table"})  # stays on the device: a few rows that the previous block also reads


@dataclass(frozen=True, slots=True)
class STDiTModel:
    """Implements `LoadedModel` except for the VAE."""

    transformer: STDiT
    vae: nn.Module
    scales_positions: bool  # position embeddings depend on the size in pixels
    num_null_tokens: int  # length of the null embedding without a prompt

    @property
    def stored_transformer(self) -> StoredTensors | None:
        """See `LoadedModel.stored_transformer`."""
        return None

    @property
    def blocks(self) -> Sequence[Block]:
        """See `LoadedModel.blocks`."""
        return self.transformer.blocks

    @property
    def resident(self) -> frozenset[str]:
        """See `LoadedModel.resident`."""
        return RESIDENT

    @property
    def shard_units(self) -> Sequence[list[nn.Module]]:
        """FSDP units. A block's text keys and values are computed before the blocks run: that layer is its own."""
        units: list[list[nn.Module]] = []
        for block in self.blocks:
            cross = block.cross_attn
            units += [[cross.kv_linear], [block.attn, cross.q_linear, cross.proj, block.mlp]]
        return [*units, [self.transformer.rope]]  # its own unit, since it stays in float32

    @property
    def forward_methods(self) -> Sequence[tuple[nn.Module, str]]:
        """See `LoadedModel.forward_methods`."""
        names = ("encode_text", "embed_timesteps", "precompute_vectors", "prefill")
        return [*((self.transformer, name) for name in names), (self.blocks[-1].attn, "project_kv")]

    @property
    def text_shape(self) -> tuple[int, int]:
        """See `LoadedModel.text_shape`."""
        return self.transformer.config.text_length, self.transformer.config.text_width

    @property
    def hidden_size(self) -> int:
        """See `LoadedModel.hidden_size`."""
        return self.transformer.config.hidden

    @property
    def head_dim(self) -> int:
        """See `LoadedModel.head_dim`."""
        return self.transformer.config.head_dim

    @property
    def dtype(self) -> torch.dtype:
        """See `LoadedModel.dtype`."""
        return self.transformer.x_embedder.proj.weight.dtype

    @property
    def matmul_dtype(self) -> torch.dtype:
        """Dtype of the linear layers; other layers may stay in float32."""
        return next(layer.weight.dtype for layer in self.transformer.modules() if isinstance(layer, Linear))

    def tokens_per_latent(self, layout: LatentLayout) -> int:
        """See `LoadedModel.tokens_per_latent`."""
        return tokens_per_latent(self.transformer.config, layout.shape[1:])

    def unconditional(self, prompt: TextEmbedding | None, negative: TextEmbedding | None) -> TextEmbedding:
        """The null embedding with the prompt's mask, or without a prompt its first `num_null_tokens` rows."""
        weight = self.transformer.x_embedder.proj.weight
        null = self.transformer.y_embedder.y_embedding.to(weight.device, weight.dtype)
        if prompt is not None:
            return TextEmbedding(null[: len(prompt.embeds)], prompt.mask)
        null = null[: self.num_null_tokens]
        return TextEmbedding(null, torch.ones(len(null), dtype=torch.bool, device=null.device))

    @torch.no_grad()
    def text_kv(self, text: Sequence[TextEmbedding], config: DenoiserConfig) -> TextKV:
        """See `LoadedModel.text_kv`. Without `cache_text`: the embeddings, which are then projected in every call."""
        embeds_and_mask = self.pad_batch(text)
        return self.transformer.encode_text(*embeds_and_mask) if config.cache_text else embeds_and_mask

    def model_fps(self, fps: float) -> float:
        """The frame rate that the transformer is conditioned on, for videos of `fps`."""
        return float(fps)

    @torch.no_grad()
    def bind(self, levels: NoiseLevels, config: DenoiserConfig) -> Callable[[TextKV], Denoiser]:
        """See `LoadedModel.bind`."""
        exact = bool(config.options.get("fp32_timesteps"))
        modulate = partial(compute_modulation, self.transformer, levels.timesteps, self.model_fps(config.fps), exact)
        run_block = compile_block() if config.compile else eager_block
        make_binder = partial(make_backend_binder, config.attention, run_block)
        bind_backend = make_binder() if config.cache_text else None
        modulation = modulate() if config.cache_modulation else None
        size = config.size if self.scales_positions else None
        full = partial(with_full_context, causal=config.causal_context)

        def build(text: TextKV) -> Denoiser:
            conditioning = bind_backend(text) if bind_backend else make_binder()(self.transformer.encode_text(*text))
            inputs = (self.transformer, conditioning, modulation or modulate(), config.position_offset, size)
            return with_kv_cache(*inputs) if config.reuse_context else full(*inputs)

        caches_all = config.cache_text and config.cache_modulation
        return build if caches_all else lambda text: without_caches(partial(build, text))

    def pad_batch(self, text: Sequence[TextEmbedding]) -> tuple[Tensor, Tensor | None]:
        """Embeddings (B, L, width) padded to the longest text, and their mask (B, L), on the transformer's device."""
        weight = self.transformer.x_embedder.proj.weight
        embeds = [embedding.embeds.to(weight.device, weight.dtype) for embedding in text]
        padded_embeds = nn.utils.rnn.pad_sequence(embeds, batch_first=True)
        if all(embedding.mask is None and len(embedding.embeds) == padded_embeds.shape[1] for embedding in text):
            return padded_embeds, None
        masks = [
            torch.ones(len(embedding.embeds), dtype=torch.bool) if embedding.mask is None else embedding.mask
            for embedding in text
        ]
        return padded_embeds, nn.utils.rnn.pad_sequence([mask.to(weight.device) for mask in masks], batch_first=True)

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
        fps = torch.tensor(self.model_fps(config.fps), device=noisy.device)
        modulation = self.transformer.embed_timesteps(timesteps.flatten(), fps)
        index = torch.arange(rows * count, dtype=torch.int32, device=noisy.device).view(rows, count)
        conditioning = self.transformer.encode_text(*self.pad_batch(text))
        size = config.size if self.scales_positions else None
        inputs = (noisy, index, modulation, conditioning)
        out: Tensor = self.transformer(*inputs, num_context_latents=num_context_latents, size=size)
        return out

    def unfreeze(self) -> None:
        """See `LoadedModel.unfreeze`: all but rotary frequencies and null embedding, like Open-Sora's fine-tuning."""
        self.transformer.requires_grad_(True)
        self.transformer.rope.requires_grad_(False)
        self.transformer.y_embedder.requires_grad_(False)

    def upcast_transformer(self: ModelT, device: torch.device) -> ModelT:
        """A copy with the transformer in float32 on `device`."""
        with meta_init():
            copy = STDiT(self.transformer.config)
        weights = {name: _float32(value, device) for name, value in self.transformer.state_dict().items()}
        copy.load_state_dict(weights, assign=True)
        return replace(self, transformer=copy.eval().requires_grad_(False))

    def shrink(self: ModelT) -> tuple[ModelT, tuple[int, int]]:
        """See `LoadedModel.shrink`."""
        config = replace(self.transformer.config, hidden=8, heads=1, text_width=8, mlp_ratio=1.0)
        weight = self.transformer.x_embedder.proj.weight
        with torch.random.fork_rng(devices=[]):
            network = STDiT(config).to(weight.device, weight.dtype).requires_grad_(False)
        cast_linears(network, self.matmul_dtype)
        _, height, width = config.patch
        return replace(self, transformer=network), (8 * height, 8 * width)

    def flops(self, step: StepShape, layout: LatentLayout) -> float:
        """See `LoadedModel.flops`."""
        return step_flops(self.transformer.config, step, self.tokens_per_latent(layout))


def cast_linears(transformer: nn.Module, dtype: torch.dtype) -> None:
    """Cast the linear layers, and only those, to another precision."""
    for layer in transformer.modules():
        if isinstance(layer, Linear):
            layer.to(dtype)


def _float32(value: Tensor, device: torch.device) -> Tensor:
    return full_tensor(value).to(device, torch.float32 if value.is_floating_point() else value.dtype, copy=True)
