"""Clip after clip as Open-Sora extends a video: the end of a clip is decoded, and encoded anew for the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pavdm_cli.generation.checks import in_whole_units, unit_reason
from pavdm_cli.generation.request import Sampling
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser
from pavdm_cli.sampling.loop import SamplerState
from pavdm_cli.sampling.schedule import Schedule


def reencodes(sampling: Sampling, schedule: Schedule) -> bool:
    """Whether the latents before a clip are encoded anew from its predecessor's last frames."""
    chained = sampling.method == "rn" and schedule.context > 0
    return chained and _wanted(sampling) and in_whole_units(sampling, schedule)


def chaining_notes(sampling: Sampling, schedule: Schedule) -> list[str]:
    """A note where latents stay as they are although the model would encode frames again."""
    if sampling.method != "rn" or not schedule.context or in_whole_units(sampling, schedule):
        return []
    note = f"latents stay as they are from clip to clip; {unit_reason(sampling)} to encode frames again"
    return [note] * _wanted(sampling)


def about(sampling: Sampling, schedule: Schedule) -> dict[str, Any]:
    """What is stored in the video."""
    if sampling.method != "rn":
        return {}
    return {"reencode": reencodes(sampling, schedule), "edit_ratio": sampling.edit_ratio}


def reencode(model: ModelRunner, latents: Tensor) -> Tensor:
    """Whole units of latents (B, T, C, h, w), decoded and encoded again."""
    return model.encode(model.decode(latents)).to(latents) if latents.shape[1] else latents


def with_reencoding(
    denoiser: Denoiser, again: Callable[[Tensor], Tensor], start: SamplerState | None = None
) -> Denoiser:
    """The context is what `again` makes of it; a given one, of a clip that was encoded just now, stays as it is."""
    given = start.context if start and start.chunks.start <= 0 else None

    def prefill(context: Tensor, level: int) -> Any:
        return denoiser.prefill(context if context is given else again(context), level)

    return FunctionDenoiser(prefill, denoiser)


def _wanted(sampling: Sampling) -> bool:
    return sampling.spec.reencodes if sampling.reencode is None else sampling.reencode
