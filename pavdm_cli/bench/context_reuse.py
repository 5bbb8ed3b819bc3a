"""Error of reusing the context's keys and values instead of recomputing them, for models where it is approximate."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch import Tensor

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.pipeline import sample_latents
from pavdm_cli.models.runner import ModelRunner

SHIFTS = 4


def deviations(config: GenerationConfig, model: ModelRunner, shifts: int = SHIFTS) -> list[float]:
    """Relative error of the latents of each chunk after the first, which has no context.

    Errors accumulate, since each chunk depends on those before it.
    """

    def chunks(reuse: bool) -> Iterator[Tensor]:
        variant = config.with_execution(context_cache="reuse" if reuse else "recompute")
        return islice(sample_latents(variant, model), 1, shifts + 1)

    pairs = zip(chunks(True), chunks(False), strict=True)
    return [float((approximate - exact).norm() / exact.norm()) for approximate, exact in pairs]


def is_approximate(config: GenerationConfig) -> bool:
    """Whether reuse is an approximation, whose error a row should state."""
    return config.execution.reuse_context and not config.spec.causal
