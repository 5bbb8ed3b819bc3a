"""What `LoadedModel` asks for as far as it is the transformer's: shared by the models whose transformer is an STDiT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from pavdm_cli.models.adapter import DenoiserConfig, StepShape, TextEmbedding
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.stdit.compiled import compiled
from pavdm_cli.models.stdit.denoiser import (
    modulation_of,
    with_backend,
    with_full_context,
    with_kv_cache,
    without_caches,
)
from pavdm_cli.models.stdit.flops import CallShape, forward_flops, prefill_flops, tokens_of
from pavdm_cli.models.stdit.layers import Block, Linear
from pavdm_cli.models.stdit.transformer import STDiT, Text, eager_block
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.noise import NoiseLevels

Self = TypeVar("Self", bound="STDiTModel")
RESIDENT = frozenset({"scale_shift_table"})  # of a block: a few rows, which the block before it reads too


@dataclass(frozen=True, slots=True)
class STDiTModel:
    """The part of a `LoadedModel` that concerns the transformer."""

    transformer: STDiT
    vae: nn.Module
    scaled: bool  # positions follow the size of the image
    null_tokens: int  # of the null embedding that stand for no prompt

    @property
    def blocks(self) -> Sequence[Block]:
        """As `LoadedModel.blocks`."""
        return self.transformer.blocks

    @property
    def resident(self) -> frozenset[str]:
        """As `LoadedModel.resident`."""
        return RESIDENT

    @property
    def shard_units(self) -> Sequence[list[nn.Module]]:
        """A block's text keys and values are made before the blocks run, so their layer is a unit of its own."""
        units: list[list[nn.Module]] = []
        for block in self.blocks:
            cross = block.cross_attn
            units += [[cross.kv_linear], [block.attn, cross.q_linear, cross.proj, block.mlp]]
        return [*units, [self.transformer.rope]]  # angles keep their digits

    @property
    def text_shape(self) -> tuple[int, int]:
        """As `LoadedModel.text_shape`."""
        return self.transformer.config.text_length, self.transformer.config.text_width

    @property
    def hidden(self) -> int:
        """As `LoadedModel.hidden`."""
        return self.transformer.config.hidden

    @property
    def head_width(self) -> int:
        """As `LoadedModel.head_width`."""
        return self.transformer.config.hidden // self.transformer.config.heads

    @property
    def dtype(self) -> torch.dtype:
        """As `LoadedModel.dtype`."""
        return self.transformer.x_embedder.proj.weight.dtype

    @property
    def matmul_dtype(self) -> torch.dtype:
        """Of the layers that take most of a step; others may stay in float32."""
        return next(layer.weight.dtype for layer in self.transformer.modules() if isinstance(layer, Linear))

    def tokens_per_latent(self, layout: LatentLayout) -> int:
        """As `LoadedModel.tokens_per_latent`."""
        return tokens_of(self.transformer.config, layout.shape[1:])

    def unconditional(self, prompt: TextEmbedding | None, negative: TextEmbedding | None) -> TextEmbedding:
        """The null embedding under the prompt's mask, or alone."""
        weight = self.transformer.x_embedder.proj.weight
        null = self.transformer.y_embedder.y_embedding.to(weight.device, weight.dtype)
        if prompt is not None:
            return TextEmbedding(null[: len(prompt.rows)], prompt.mask)
        null = null[: self.null_tokens]
        return TextEmbedding(null, torch.ones(len(null), dtype=torch.bool, device=null.device))

    @torch.no_grad()
    def denoiser(self, text: Sequence[TextEmbedding], levels: NoiseLevels, config: DenoiserConfig) -> Denoiser:
        """As `LoadedModel.denoiser`."""

        def encode() -> Text:
            encoded = self.transformer.encode_text(*self.stacked(text))
            return with_backend(encoded, config.attention, compiled() if config.compile else eager_block)

        exact = bool(config.options.get("fp32_timesteps"))
        modulate = partial(modulation_of, self.transformer, levels.timesteps, config.fps, exact)
        kept = encode() if config.cache_text else None
        table = modulate() if config.cache_modulation else None
        size = config.size if self.scaled else None

        def build() -> Denoiser:
            inputs = (self.transformer, kept or encode(), table or modulate(), config.context, size)
            return with_kv_cache(*inputs) if config.reuse_context else full(*inputs)

        full = partial(with_full_context, causal=config.causal_context)
        return build() if config.cache_text and config.cache_modulation else without_caches(build)

    def stacked(self, text: Sequence[TextEmbedding]) -> tuple[Tensor, Tensor | None]:
        """Rows of one batch, (B, L, width) and (B, L), padded to the longest, where the transformer is."""
        weight = self.transformer.x_embedder.proj.weight
        rows = nn.utils.rnn.pad_sequence([one.rows.to(weight.device, weight.dtype) for one in text], batch_first=True)
        if all(one.mask is None and len(one.rows) == rows.shape[1] for one in text):
            return rows, None
        masks = [torch.ones(len(one.rows), dtype=torch.bool) if one.mask is None else one.mask for one in text]
        return rows, nn.utils.rnn.pad_sequence([mask.to(weight.device) for mask in masks], batch_first=True)

    def velocity(
        self, noisy: Tensor, timesteps: Tensor, text: Sequence[TextEmbedding], config: DenoiserConfig
    ) -> Tensor:  # (B, T, C, h, w), (B, T)
        """As `LoadedModel.velocity`."""
        rows, count = timesteps.shape
        fps = torch.tensor(float(config.fps), device=noisy.device)
        table = self.transformer.modulation(timesteps.flatten(), fps)
        index = torch.arange(rows * count, dtype=torch.int32, device=noisy.device).view(rows, count)
        encoded, size = self.transformer.encode_text(*self.stacked(text)), config.size if self.scaled else None
        out: Tensor = self.transformer(noisy, index, table, encoded, clean=config.context, size=size)
        return out

    def trainable(self) -> None:
        """All but the rotary frequencies and the null embedding, as when Open-Sora was fine-tuned."""
        self.transformer.requires_grad_(True)
        self.transformer.rope.requires_grad_(False)
        self.transformer.y_embedder.requires_grad_(False)

    def upcast_transformer(self: Self, device: torch.device) -> Self:
        """With the transformer in float32 on a device."""
        with torch.device("meta"):
            copy = STDiT(self.transformer.config)
        weights = {name: _float32(value, device) for name, value in self.transformer.state_dict().items()}
        copy.load_state_dict(weights, assign=True)
        return replace(self, transformer=copy.eval().requires_grad_(False))

    def narrow(self: Self) -> tuple[Self, tuple[int, int]]:
        """As `LoadedModel.narrow`."""
        config = replace(self.transformer.config, hidden=8, heads=1, text_width=8, mlp_ratio=1.0)
        weight, widths = self.transformer.x_embedder.proj.weight, self.matmul_dtype
        with torch.random.fork_rng(devices=[]):
            network = STDiT(config).to(weight.device, weight.dtype).requires_grad_(False)
        narrow_matmuls(network, widths)
        _, height, width = config.patch
        return replace(self, transformer=network), (8 * height, 8 * width)

    def flops(self, step: StepShape, layout: LatentLayout) -> float:
        """As `LoadedModel.flops`."""
        shape = CallShape(step.batch, step.window, self.tokens_per_latent(layout), step.text, step.context)
        return (prefill_flops if step.prefill else forward_flops)(self.transformer.config, shape)


def narrow_matmuls(transformer: nn.Module, dtype: torch.dtype) -> None:
    """Put the weights of the linear layers, and those alone, into another precision."""
    for layer in transformer.modules():
        if isinstance(layer, Linear):
            layer.to(dtype)


def _float32(value: Tensor, device: torch.device) -> Tensor:
    return value.detach().to(device, torch.float32 if value.is_floating_point() else value.dtype, copy=True)
