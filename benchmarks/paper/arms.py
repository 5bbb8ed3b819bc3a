"""The arms of the study: which weights, and how they are sampled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch

from pavdm_cli.generation import pipeline
from pavdm_cli.generation.pipeline import Job, Pixels
from pavdm_cli.generation.request import Output, Request, Sampling
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.loop import from_renoised
from pavdm_cli.sampling.noise import seeded_noise

REAL = "real"  # the arm of rendered videos, where the world can be rendered
WHOLE = Fraction(1)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to make the videos of the study."""

    name: str
    weights: str  # base, pa, rw or shipped
    about: str
    options: dict[str, Any] = field(default_factory=dict)  # of Sampling
    steps: Fraction = WHOLE  # of the model's own
    window: Fraction = WHOLE
    from_clip: bool = False  # continues a clip of one window, re-noised, instead of growing from noise


PA, RN, RW, FIFO = ({"method": method} for method in ("pa", "rn", "rw", "fifo"))
ARMS: tuple[Arm, ...] = (
    Arm("pa-base", "base", "PA, training-free", PA),
    Arm("rn-base", "base", "RN, training-free", RN),
    Arm("fifo", "base", "FIFO-Diffusion: a queue of twice as many levels, in calls of one window", FIFO, Fraction(2)),
    Arm("chained", "base", "one-clip windows, each from the last one's re-encoded frames", RN | {"reencode": True}),
    Arm("pa", "pa", "PA, fine-tuned", PA),
    Arm("rw", "rw", "RW, fine-tuned", RW),
    Arm("no-context", "pa", "ablation 1: no clean chunk before the window", PA | {"context": 0}),
    Arm("chunk-1", "pa", "ablation 2: chunks of one latent, no clean chunk", PA | {"context": 0, "chunk": 1}),
    Arm("fixed-length", "pa", "no variable length: continues a clip of one window", PA, from_clip=True),
    Arm("half-steps", "pa", "half the sampling steps", PA, Fraction(1, 2)),
    Arm("double-steps", "pa", "twice the sampling steps", PA, Fraction(2)),
    Arm("half-window", "pa", "half the window", PA, window=Fraction(1, 2)),
    Arm("shipped", "shipped", "PA, the weights that come with the package", PA),
)  # fmt: skip
BY_NAME = {arm.name: arm for arm in ARMS}


def sampling_of(arm: Arm, model: str, seed: int, threads: int) -> Sampling:
    """The arm's way to sample a model. Nothing is generated and dropped first, but by the weights that are shipped."""
    sampling = Sampling(model=model, seed=seed, threads=threads, **arm.options)
    spec = sampling.spec
    own = {"steps": int(spec.steps * arm.steps), "window": int(spec.window * arm.window)}
    changed = {name: value for name, value in own.items() if value != getattr(spec, name)}
    return replace(sampling, warmup=None if arm.weights == "shipped" else 0, **changed)


def plan(prompt: str, seconds: float, sampling: Sampling, distilled_guidance: float | None = None) -> Job:
    """The job of one video; distilled_guidance: the scale that the weights give in one pass, if not the model's own."""
    job = pipeline.plan(Request(prompt, seconds=seconds, sampling=sampling, output=Output(scale=1)))
    if distilled_guidance is None:
        return job
    return replace(job, spec=replace(job.spec, distilled_guidance=distilled_guidance))


def frames_of(arm: Arm, job: Job, model: ModelRunner) -> Iterator[Pixels]:
    """The video's frames, (n, H, W, 3) at a time."""
    return frames_from_clip(job, model) if arm.from_clip else pipeline.frames(job, model)


@torch.no_grad()
def frames_from_clip(job: Job, model: ModelRunner) -> Iterator[Pixels]:
    """A clip of one window at one noise level, then its continuation from the re-noised window (algorithm 1)."""
    window = job.schedule.window
    count = min(job.frames, job.layout.count(window))
    single = replace(job.sampling, method="rn", chunk=None, context=0, reencode=False, warmup=0)
    clip_job = plan(job.prompt, count / job.spec.fps, single, job.spec.distilled_guidance)
    clip = torch.cat(list(pipeline.latents(clip_job, model)), dim=1)[:, :window]
    yield to_bytes(model.decode(clip)[0])[:count]
    if count == job.frames:
        return
    rest = replace(job, frames=job.frames - count, given=count)
    noise = seeded_noise(job.sampling.seed, model.noise_shape())
    sigmas = pipeline.levels_of(job).sigmas.to(model.device)
    yield from pipeline.frames(rest, model, from_renoised(rest.schedule, clip, noise, sigmas))
