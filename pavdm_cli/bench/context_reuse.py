"""How far reuse of the overlap's keys and values leads from computing them anew, where it is an approximation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from torch import Tensor

from pavdm_cli.generation.pipeline import Job, latents
from pavdm_cli.models.execution import CONTEXT_CACHE
from pavdm_cli.models.runner import ModelRunner

SHIFTS = 4


def deviations(job: Job, model: ModelRunner, shifts: int = SHIFTS) -> list[float]:
    """The norm of the difference of a chunk's latents over their norm, for the chunks after the first.

    The first is made before there is an overlap; each later one builds on those before it.
    """

    def chunks(reuse: bool) -> Iterator[Tensor]:
        engine = replace(job.sampling.engine, reuse_context=reuse)
        asked = replace(job, sampling=replace(job.sampling, engine=engine))
        return islice(latents(asked, model), 1, shifts + 1)

    pairs = zip(chunks(True), chunks(False), strict=True)
    return [float((reused - exact).norm() / exact.norm()) for reused, exact in pairs]


def in_question(job: Job) -> bool:
    """Whether a row should tell: reuse was asked for. No model that was not trained for it does so unasked."""
    return job.settings.context_cache == CONTEXT_CACHE[True] and bool(job.sampling.engine.reuse_context)
