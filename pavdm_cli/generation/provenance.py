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
from pavdm_cli.models.runner import ModelRunner


def recipe(job: Job, model: ModelRunner) -> dict[str, Any]:
    """What is stored in the file: enough to make the same frames again on the same machine."""
    return {
        "pavdm": __version__,
        "prompt": job.prompt,
        **({"caption": job.formatted.caption} if job.formatted.caption else {}),
        "seed": job.sampling.seed,
        "frames": job.frames,
        "fps": job.spec.fps,
        "model": job.spec.name,
        **choices_of(job),
        **({"lora": list(job.sampling.lora)} if job.sampling.lora else {}),
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


def choices_of(job: Job) -> dict[str, Any]:
    """The model's own options; of a model with several sizes also what memory may have decided."""
    own = [option for option in job.video_model.options if option.changes_frames]
    values = {option.key: job.sampling.options.get(option.key, option.default) for option in own}
    options = {key: None if value == "" else value for key, value in values.items()}
    if not job.spec.size_multiple:
        return options
    height, width = job.spec.size
    tiling = "on" if job.sampling.engine.vae_tiling == "on" else "off"
    batching = job.sampling.engine.cfg_batching
    return {"size": f"{width}x{height}", **options, "cfg_batching": batching, "vae_tiling": tiling}
