"""Denoisers over an STDiT for one prompt: with a KV cache of the clean context, or recomputing it every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.attention import Attention
from pavdm_cli.models.stdit.transformer import (
    Attends,
    BlockFn,
    ContextKV,
    Modulation,
    STDiT,
    Text,
    eager_block,
    tensor_cache,
)
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser
from pavdm_kernels import on_gpu

Size = tuple[float, float] | None  # pixels, height and width, where positions follow them


@torch.no_grad()
def modulation_of(stdit: STDiT, timesteps: Tensor, fps: float, exact: bool = False) -> Modulation:
    """The modulation vectors of every level, computed once per video; timesteps (N,) from 0 to 1000.

    They are rounded as the weights are (in bfloat16, 740 for 738.1), as Open-Sora was trained, unless `exact`.
    """
    weight = stdit.final_layer.linear.weight
    times = timesteps.to(weight.device, torch.promote_types(timesteps.dtype, weight.dtype))
    table = stdit.modulation(times if exact else times.to(weight), weight.new_tensor(fps))
    return table if on_gpu(weight) else stdit.summed(table)


def with_backend(text: Text, attention: Attention, run: BlockFn = eager_block) -> Text:
    """The same text, attended to through a backend; `run` is how blocks are run.

    Position embeddings depend on sizes alone and are made once.
    """
    over_text = attention.for_keys(text.kv[0].shape[1], text.mask is not None)
    return text._replace(attends=Attends(attention.any_length, over_text), keep=tensor_cache(), run=run)


def with_kv_cache(stdit: STDiT, text: Text, table: Modulation, position: int, size: Size = None) -> Denoiser:
    """For a model whose clean latents attend only to clean ones: keys and values are cached until the next shift.

    position: of the window's first latent, whether there is a context or not; a longer context repeats positions.
    """

    @torch.no_grad()
    def prefill(context: Tensor, level: int) -> ContextKV:
        rows = _same(level, context)
        return stdit.prefill(context.to(_weight(stdit)), rows, table, text, size, position=position)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: ContextKV | None) -> Tensor:
        latents, cached = window.to(_weight(stdit)), cache or ContextKV(None, position)
        out: Tensor = stdit(latents, levels, table, text, cached=cached, size=size)
        return out.to(window)

    return FunctionDenoiser(prefill, velocity)


def with_full_context(
    stdit: STDiT, text: Text, table: Modulation, position: int, size: Size = None, *, causal: bool = False
) -> Denoiser:
    """For any model: the context is in front of the window at every step, and every latent attends to every other.

    With `causal` the context attends only to itself: as `with_kv_cache`, without the cache.
    """

    def prefill(context: Tensor, level: int) -> tuple[Tensor, Tensor]:
        return context, _same(level, context)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: tuple[Tensor, Tensor] | None) -> Tensor:
        if cache is None:
            latents = window.to(_weight(stdit))
            alone: Tensor = stdit(latents, levels, table, text, cached=ContextKV(None, position), size=size)
            return alone.to(window)
        context, rows = cache
        latents, clean = torch.cat([context, window], dim=1).to(_weight(stdit)), context.shape[1] if causal else 0
        before = ContextKV(None, min(position, clean)) if causal else None
        both: Tensor = stdit(latents, torch.cat([rows, levels]), table, text, cached=before, clean=clean, size=size)
        return both[:, context.shape[1] :].to(window)

    return FunctionDenoiser(prefill, velocity)


def without_caches(build: Callable[[], Denoiser]) -> Denoiser:
    """Build the denoiser, and its text keys, values and modulation, again at every call (a baseline)."""

    @torch.no_grad()
    def prefill(context: Tensor, level: int) -> Any:
        return build().prefill(context, level)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: Any) -> Tensor:
        return build()(window, levels, cache)

    return FunctionDenoiser(prefill, velocity)


def _weight(stdit: STDiT) -> Tensor:
    """A weight, for the device and precision of what the network is shown."""
    return stdit.x_embedder.proj.weight


def _same(level: int, frames: Tensor) -> Tensor:
    return torch.full(frames.shape[1:2], level, dtype=torch.int32, device=frames.device)
