"""Denoisers over a Wan transformer for one batch of prompts: velocity is clean - noise, as everywhere outside it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pavdm_cli.models.wan.layers import KeysValues
from pavdm_cli.models.wan.transformer import Conditions, WanTransformer
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser

Cached = tuple[KeysValues, ...]  # of the context, for each block
Build = Callable[[], Conditions]  # what stays the same from call to call, computed once or at every call


def with_kv_cache(transformer: WanTransformer, build: Build, position: int) -> Denoiser:
    """Keys and values of the context, which sees only itself, are computed once per shift.

    position: in time, of the window's first latent.
    """

    @torch.no_grad()
    def prefill(context: Tensor, level: int) -> Cached:
        return _prefill(transformer, build(), context, _rows(level, context), position)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: Cached | None) -> Tensor:
        return _velocity(transformer, build(), window, levels, position, cache)

    return FunctionDenoiser(prefill, velocity)


def with_full_context(transformer: WanTransformer, build: Build, position: int, *, causal: bool = False) -> Denoiser:
    """The context is in front of the window at every step, and every latent attends to every other.

    With `causal` the context attends only to itself: as `with_kv_cache`, without the cache.
    """

    def prefill(context: Tensor, level: int) -> tuple[Tensor, Tensor]:
        return context, _rows(level, context)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: tuple[Tensor, Tensor] | None) -> Tensor:
        if cache is None:
            return _velocity(transformer, build(), window, levels, position)
        (context, rows), conditions = cache, build()
        if causal:
            keys_values = _prefill(transformer, conditions, context, rows, position)
            return _velocity(transformer, conditions, window, levels, position, keys_values)
        both, count = torch.cat([context, window], dim=1), context.shape[1]
        levels = torch.cat([rows.expand(*levels.shape[:-1], -1), levels], dim=-1)
        return _velocity(transformer, conditions, both, levels, position - count)[:, count:]

    return FunctionDenoiser(prefill, velocity)


def _rows(level: int, latents: Tensor) -> Tensor:
    """The same level for all latents."""
    return torch.full((latents.shape[1],), level, dtype=torch.int32, device=latents.device)


def _prefill(
    transformer: WanTransformer, conditions: Conditions, context: Tensor, rows: Tensor, position: int
) -> Cached:
    """Keys and values of a context (B, E, C, H, W) right before the window's position."""
    return tuple(transformer.prefill(context, rows, conditions, start=position - context.shape[1]))


def _velocity(
    transformer: WanTransformer,
    conditions: Conditions,
    latents: Tensor,
    levels: Tensor,
    start: int,
    cached: Cached | None = None,
) -> Tensor:
    """clean - noise of latents from a position in time on."""
    out: Tensor = transformer(latents, levels, conditions, start=start, cached=cached)
    return -out.to(latents)
