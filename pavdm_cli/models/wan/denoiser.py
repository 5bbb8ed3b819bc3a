"""Denoisers over a Wan transformer for a batch of prompts. Velocity is clean - noise, unlike the transformer's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pavdm_cli.models.wan.layers import KeysValues
from pavdm_cli.models.wan.transformer import Conditioning, WanTransformer
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser

ContextKV = tuple[KeysValues, ...]  # for each block
Build = Callable[[], Conditioning]  # returns a stored one, or computes it at every call


def with_kv_cache(transformer: WanTransformer, build: Build, position: int) -> Denoiser:
    """Computes the keys and values of the context, which attends only to itself, once per shift.

    position: in time, of the window's first latent.
    """

    @torch.no_grad()
    def prefill(context: Tensor, level: int) -> ContextKV:
        return _prefill(transformer, build(), context, _uniform_levels(level, context), position)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: ContextKV | None) -> Tensor:
        return _velocity(transformer, build(), window, levels, position, cache)

    return FunctionDenoiser(prefill, velocity)


def with_full_context(transformer: WanTransformer, build: Build, position: int, *, causal: bool = False) -> Denoiser:
    """A denoiser that recomputes the context at every step; all latents attend to each other.

    With `causal` the context attends only to itself, with the same result as `with_kv_cache`.
    """

    def prefill(context: Tensor, level: int) -> tuple[Tensor, Tensor]:
        return context, _uniform_levels(level, context)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: tuple[Tensor, Tensor] | None) -> Tensor:
        if cache is None:
            return _velocity(transformer, build(), window, levels, position)
        (context, context_levels), conditioning = cache, build()
        if causal:
            keys_values = _prefill(transformer, conditioning, context, context_levels, position)
            return _velocity(transformer, conditioning, window, levels, position, keys_values)
        both, count = torch.cat([context, window], dim=1), context.shape[1]
        levels = torch.cat([context_levels.expand(*levels.shape[:-1], -1), levels], dim=-1)
        return _velocity(transformer, conditioning, both, levels, position - count)[:, count:]

    return FunctionDenoiser(prefill, velocity)


def _uniform_levels(level: int, latents: Tensor) -> Tensor:  # (T,)
    return torch.full((latents.shape[1],), level, dtype=torch.int32, device=latents.device)


def _prefill(
    transformer: WanTransformer, conditioning: Conditioning, context: Tensor, levels: Tensor, position: int
) -> ContextKV:
    """Keys and values of a context (B, E, C, H, W) right before the window's position."""
    return tuple(transformer.prefill(context, levels, conditioning, start=position - context.shape[1]))


def _velocity(
    transformer: WanTransformer,
    conditioning: Conditioning,
    latents: Tensor,
    levels: Tensor,
    start: int,
    kv_cache: ContextKV | None = None,
) -> Tensor:
    """clean - noise of latents from position `start` in time on."""
    out: Tensor = transformer(latents, levels, conditioning, start=start, kv_cache=kv_cache)
    return -out.to(latents)
