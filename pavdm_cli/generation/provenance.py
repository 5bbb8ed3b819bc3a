"""What a video file stores of how it was made: enough to make the same frames again on the same machine."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import av
import torch

from pavdm_cli import __version__
from pavdm_cli.generation.pipeline import Job
from pavdm_cli.generation.reencode import about
from pavdm_cli.models.load import Loaded


def recipe(job: Job, model: Loaded) -> dict[str, Any]:
    """What is stored in the file: enough to make the same frames again on the same machine."""
    return {
        "pavdm": __version__,
        "prompt": job.prompt,
        **({"caption": job.caption} if job.spec.family == "pocket" and job.prompt else {}),
        "seed": job.sampling.seed,
        "frames": job.frames,
        "fps": job.spec.fps,
        "model": job.spec.name,
        **reading_of(job),
        "weights": model.digest,
        **asdict(job.settings),
        **about(job.sampling, job.schedule),
        "device": model.device.type,
        "attention": model.attention.name,
        "attention_reason": model.attention.reason,
        "compile": job.sampling.engine.compile,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "av": av.__version__},
    }


def reading_of(job: Job) -> dict[str, Any]:
    """What else made the frames, where a model has sizes, scores and precisions to choose, and memory may be short."""
    exact = {"fp32_timesteps": job.sampling.fp32_timesteps}
    if not job.spec.scaled:
        return exact
    (height, width), reading = job.spec.size, job.sampling.reading
    scores = {"aesthetic_score": reading.aesthetic or 0, "motion_score": reading.motion}
    tiling = "on" if job.sampling.engine.vae_tiling == "on" else "off"
    chosen = {"cfg_batching": job.sampling.engine.cfg_batching, "vae_tiling": tiling}
    said = {"camera_motion": reading.camera or None, **exact}
    return {"size": f"{width}x{height}", **scores, **said, **chosen}
