"""Open-Sora's way of extending a video: the end of each clip is decoded and re-encoded for the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser
from pavdm_cli.sampling.loop import SamplerState


def reencode(model: ModelRunner, latents: Tensor) -> Tensor:
    """Whole units of latents (B, T, C, h, w), decoded and encoded again."""
    return model.encode(model.decode(latents)).to(latents) if latents.shape[1] else latents


def with_reencoding(
    denoiser: Denoiser, reencode_context: Callable[[Tensor], Tensor], start: SamplerState | None = None
) -> Denoiser:
    """Re-encode the context before every prefill, except one that has just been encoded from an input."""
    encoded_context = start.context if start and start.chunks.start <= 0 else None

    def prefill(context: Tensor, level: int) -> Any:
        return denoiser.prefill(context if context is encoded_context else reencode_context(context), level)

    return FunctionDenoiser(prefill, denoiser)
