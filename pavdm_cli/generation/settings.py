"""How to sample, with every value decided: what was given, else the model's own."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.checks import check_sampling, context_of, counts_of, guidance_of, warmup_of
from pavdm_cli.generation.request import Sampling
from pavdm_cli.models.devices import pick_device
from pavdm_cli.models.execution import CONTEXT_CACHE


@dataclass(frozen=True, slots=True)
class Settings:
    """How to sample, with every value decided."""

    method: str
    steps: int
    window: int  # noisy latents
    chunk: int  # latents
    context: int  # clean chunks in front of the window
    ramp_up: str
    stride: int  # of the method `windows`
    guidance: float
    solver: str
    context_cache: str  # reuse or recompute: the keys and values of the clean latents before the window
    precision: str = "fp32"  # of products: fp32 or bf16
    warmup: int = 0  # chunks generated before the video and dropped


def settle(sampling: Sampling, *, from_noise: bool = True) -> Settings:
    """The model's own values where none were given; a warm-up only for a video from noise. Raises: UsageError."""
    check_sampling(sampling)
    counts, guidance = counts_of(sampling), guidance_of(sampling)
    kept, precision = settle_context_cache(sampling), settle_precision(sampling)
    return Settings(
        sampling.method,
        **counts,
        context=context_of(sampling),
        ramp_up=sampling.ramp_up,
        stride=sampling.stride,
        guidance=guidance,
        solver=sampling.solver or sampling.spec.solver,
        context_cache=kept,
        precision=precision,
        warmup=warmup_of(sampling) if from_noise else 0,
    )


def settle_context_cache(sampling: Sampling) -> str:
    """What is done with the overlap's keys and values."""
    asked, renoised = sampling.engine.reuse_context, sampling.method == "rw"
    return CONTEXT_CACHE[not renoised and (sampling.spec.causal if asked is None else asked)]


def settle_precision(sampling: Sampling) -> str:
    """The precision of products. Raises: UsageError."""
    asked, choices = sampling.precision, sampling.spec.precisions_on(pick_device(sampling.device).type)
    if asked not in ("auto", *choices):
        raise UsageError(
            f"--precision of {sampling.spec.name} must be {' or '.join(choices)} here, got {asked!r}", "leave it out"
        )
    return choices[0] if asked == "auto" else asked


def text_device_of(sampling: Sampling) -> torch.device:
    """Where the prompt is encoded: the model's own device unless it has an option for that. Raises: DeviceError."""
    name = sampling.options.get("text_device")
    return pick_device(name, "--text-device") if name else pick_device(sampling.device)
