"""How long a fresh process takes to its first frame: run as `python -m pavdm_cli.bench.first PROMPT SEED ...`."""

from __future__ import annotations

import json
import sys

from pavdm_cli import pipeline
from pavdm_cli.request import Engine, Request, Sampling

LENGTH = 10.0  # seconds of the video whose first chunk is waited for


def first_frame(prompt: str, sampling: Sampling) -> None:
    """Load the model and wait for the first chunk of a video."""
    job = pipeline.plan(Request(prompt, seconds=LENGTH, sampling=sampling))
    next(pipeline.frames(job, pipeline.open_model(job)))


if __name__ == "__main__":
    prompt, seed, device, threads, engine = sys.argv[1:]
    asked = Sampling(seed=int(seed), device=device, threads=int(threads), engine=Engine(**json.loads(engine)))
    first_frame(prompt, asked)
