"""Denoisers for an STDiT bound to a prompt: with a KV cache of the context, or recomputing it at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.attention import Attention
from pavdm_cli.models.stdit.tensor_cache import tensor_cache
from pavdm_cli.models.stdit.transformer import (
    AttentionFns,
    BlockFn,
    Conditioning,
    ContextKV,
    Modulation,
    STDiT,
    eager_block,
)
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser
from pavdm_kernels import on_gpu

Size = tuple[float, float] | None  # height and width in pixels, if position embeddings depend on them


@torch.no_grad()
def compute_modulation(stdit: STDiT, timesteps: Tensor, fps: float, exact: bool = False) -> Modulation:
    """The AdaLN modulation of every level; timesteps (N,) from 0 to 1000.

    Unless `exact`, timesteps are rounded to the weights' precision (738.1 becomes 740 in bfloat16), as in Open-Sora's
    training.
    """
    weight = stdit.final_layer.linear.weight
    times = timesteps.to(weight.device, torch.promote_types(timesteps.dtype, weight.dtype))
    modulation = stdit.embed_timesteps(times if exact else times.to(weight), weight.new_tensor(fps))
    return modulation if on_gpu(weight) else stdit.precompute_vectors(modulation)


def make_backend_binder(
    attention: Attention, run_block: BlockFn = eager_block
) -> Callable[[Conditioning], Conditioning]:
    """Returns a function that attaches an attention backend and a block runner to the keys and values of a text.

    Position embeddings depend only on sizes, so all texts share one cache.
    """
    position_cache = tensor_cache()

    def bind_backend(conditioning: Conditioning) -> Conditioning:
        text_attention = attention.for_keys(conditioning.text_kv[0].shape[1], conditioning.mask is not None)
        functions = AttentionFns(attention.any_length, text_attention)
        return conditioning._replace(attention=functions, position_cache=position_cache, run_block=run_block)

    return bind_backend


def with_kv_cache(
    stdit: STDiT, conditioning: Conditioning, modulation: Modulation, position: int, size: Size = None
) -> Denoiser:
    """A denoiser that caches the context's keys and values until the next shift.

    This is exact if clean latents attend only to each other.

    position: RoPE position of the window's first latent, even without a context; longer contexts repeat positions.
    """

    @torch.no_grad()
    def prefill(context: Tensor, level: int) -> ContextKV:
        levels = _uniform_levels(level, context)
        return stdit.prefill(context.to(_weight(stdit)), levels, modulation, conditioning, size, position=position)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: ContextKV | None) -> Tensor:
        latents, context_kv = window.to(_weight(stdit)), cache or ContextKV(None, position)
        out: Tensor = stdit(latents, levels, modulation, conditioning, context_kv=context_kv, size=size)
        return out.to(window)

    return FunctionDenoiser(prefill, velocity)


def with_full_context(
    stdit: STDiT,
    conditioning: Conditioning,
    modulation: Modulation,
    position: int,
    size: Size = None,
    *,
    causal: bool = False,
) -> Denoiser:
    """A denoiser that recomputes the context at every step; all latents attend to each other.

    With `causal` the context attends only to itself, with the same result as `with_kv_cache`.
    """

    def prefill(context: Tensor, level: int) -> tuple[Tensor, Tensor]:
        return context, _uniform_levels(level, context)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: tuple[Tensor, Tensor] | None) -> Tensor:
        if cache is None:
            latents = window.to(_weight(stdit))
            window_velocity: Tensor = stdit(
                latents, levels, modulation, conditioning, context_kv=ContextKV(None, position), size=size
            )
            return window_velocity.to(window)
        context, context_levels = cache
        latents = torch.cat([context, window], dim=1).to(_weight(stdit))
        num_context_latents = context.shape[1] if causal else 0
        context_kv = ContextKV(None, min(position, num_context_latents)) if causal else None
        levels = torch.cat([context_levels.expand(*levels.shape[:-1], -1), levels], dim=-1)
        inputs = (latents, levels, modulation, conditioning)
        full_velocity: Tensor = stdit(
            *inputs, context_kv=context_kv, num_context_latents=num_context_latents, size=size
        )
        return full_velocity[:, context.shape[1] :].to(window)

    return FunctionDenoiser(prefill, velocity)


def without_caches(build: Callable[[], Denoiser]) -> Denoiser:
    """Rebuild the denoiser (text keys and values, modulation) at every call: a baseline for benchmarks."""

    @torch.no_grad()
    def prefill(context: Tensor, level: int) -> Any:
        return build().prefill(context, level)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, cache: Any) -> Tensor:
        return build()(window, levels, cache)

    return FunctionDenoiser(prefill, velocity)


def _weight(stdit: STDiT) -> Tensor:
    """The weight whose device and dtype the input must have."""
    return stdit.x_embedder.proj.weight


def _uniform_levels(level: int, latents: Tensor) -> Tensor:  # (T,)
    return torch.full(latents.shape[1:2], level, dtype=torch.int32, device=latents.device)
