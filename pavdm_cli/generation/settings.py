"""How to sample, with every value decided: what was given, else the model's own."""

from __future__ import annotations

from dataclasses import dataclass

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.checks import check_sampling, context_of, counts_of, guidance_of, warmup_of
from pavdm_cli.generation.request import PRECISIONS, Sampling
from pavdm_cli.models.execution import CONTEXT_CACHE
from pavdm_cli.models.load import own_precision, pick_device


@dataclass(frozen=True, slots=True)
class Settings:
    """How to sample, with every value decided."""

    method: str
    steps: int
    window: int  # noisy latents
    chunk: int  # latents
    context: int  # clean chunks in front of the window
    guidance: float
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
        guidance=guidance,
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
    asked, own = sampling.precision, own_precision(sampling.spec, pick_device(sampling.device))
    choices = PRECISIONS if sampling.spec.family == "pocket" else (own,)
    if asked not in ("auto", *choices):
        raise UsageError(
            f"--precision of {sampling.spec.name} must be {' or '.join(choices)} here, got {asked!r}", "leave it out"
        )
    return own if asked == "auto" else asked
