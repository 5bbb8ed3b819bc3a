"""A picture that a video begins with: frame 0 is the picture, and the model goes on from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.pipeline import Job, Pixels, frames, levels_of, start_from
from pavdm_cli.generation.recovery import Recovery, check_encoded
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.cuda_graphs import GraphPolicy
from pavdm_cli.sampling.loop import SamplerState, from_first
from pavdm_cli.sampling.noise import seeded_noise
from pavdm_cli.video import StillImage, scale_to_cover


def frames_given(job: Job) -> int:
    """Frames that are encoded before the first step: where a single frame is a latent, the image alone."""
    return 1 if job.layout.first == 1 else job.layout.count(job.schedule.context)


def notes(job: Job, still: StillImage) -> list[str]:
    """What a user should know: what reading the picture changed, and what the model will make of it.

    Raises: UsageError where the model would never be shown it.
    """
    if not job.holds_image and not job.schedule.context:
        raise UsageError("--image is shown as the clean chunk that --context 0 leaves out", "leave --context out")
    spec = job.spec
    foreign = f"{spec.name} knows only {spec.world}: it goes on from the picture in that style"
    return [*still.notes, *([foreign] if spec.world else [])]


def about(still: StillImage) -> dict[str, Any]:
    """What is stored of the picture in the video."""
    return {"image": str(still.path), "image_digest": still.digest}


def frames_from(
    job: Job, model: ModelRunner, still: StillImage, graphs: GraphPolicy | None = None, recovery: Recovery | None = None
) -> Iterator[Pixels]:
    """As many frames as `pipeline.frames` gives; the first is the picture itself, scaled and cropped to the size."""
    picture = scale_to_cover(still.frame, job.spec.size)[None]
    start = start_of(job, model, picture)
    if not job.holds_image:
        yield picture
        yield from frames(replace(job, frames=job.frames - 1), model, start, graphs, recovery)
        return
    made = frames(job, model, start, graphs, recovery)
    yield np.concatenate([picture, next(made)[1:]])
    yield from made


@torch.no_grad()
def start_of(job: Job, model: ModelRunner, picture: Pixels) -> SamplerState:  # (1, H, W, 3)
    """Where sampling begins: the picture's latent in the first chunk, or a still clip of it as the overlap.

    The latter where a codec knows no single pictures, or the method noises what is clean.
    """
    clip = from_bytes(picture)
    if not job.holds_image:
        return start_from(job, model, clip.expand(frames_given(job), -1, -1, -1), noised=False)
    first = check_encoded(model.encode(clip[None]), job.spec.latent_limit)
    noise = seeded_noise(job.sampling.seed, model.noise_shape())
    return from_first(job.schedule, first, noise, levels_of(job).sigmas.to(model.device))
