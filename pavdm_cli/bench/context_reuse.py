"""How far reuse of the overlap's keys and values leads from computing them anew, where it is an approximation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch import Tensor

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.pipeline import latents
from pavdm_cli.models.runner import ModelRunner

SHIFTS = 4


def deviations(config: GenerationConfig, model: ModelRunner, shifts: int = SHIFTS) -> list[float]:
    """The norm of the difference of a chunk's latents over their norm, for the chunks after the first.

    The first is made before there is an overlap; each later one builds on those before it.
    """

    def chunks(reuse: bool) -> Iterator[Tensor]:
        changed = config.with_execution(context_cache="reuse" if reuse else "recompute")
        return islice(latents(changed, model), 1, shifts + 1)

    pairs = zip(chunks(True), chunks(False), strict=True)
    return [float((reused - exact).norm() / exact.norm()) for reused, exact in pairs]


def in_question(config: GenerationConfig) -> bool:
    """Whether reuse is an approximation, so that a row should tell how good it is."""
    return config.execution.reuse_context and not config.spec.causal
