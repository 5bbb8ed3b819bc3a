"""How long a fresh process takes to its first frame: run as `python -m pavdm_cli.bench.first_frame REQUEST` (JSON)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict

from pavdm_cli.errors import PavdmError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.request import Request, Sampling
from pavdm_cli.models.execution import Engine
from pavdm_cli.models.runner import ModelRunner


def first_frames(request: Request) -> ModelRunner:
    """Load the model, wait for the first frames of a video, and hand the model over."""
    job = pipeline.plan(request)
    model = pipeline.open_model(job)
    next(pipeline.frames(job, model))
    return model


def cold(request: Request) -> float:
    """Seconds from starting a new process to its first frames. Raises: PavdmError."""
    asked = json.dumps({"prompt": request.prompt, "frames": request.count, "sampling": asdict(request.sampling)})
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pavdm_cli.bench.first_frame", asked], stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise PavdmError("a new process made no frame", (done.stderr.splitlines() or ["it said nothing"])[-1])
    return time.perf_counter() - begun


def warm(request: Request) -> tuple[float, ModelRunner]:
    """Seconds to the first frames in this process, loading the weights included, and the model."""
    begun = time.perf_counter()
    model = first_frames(request)
    return time.perf_counter() - begun, model


def read(asked: str) -> Request:
    """The request that `cold` wrote."""
    values = json.loads(asked)
    sampling = values["sampling"]
    inner = {"engine": Engine(**sampling["engine"])}
    return Request(values["prompt"], frames=values["frames"], sampling=Sampling(**sampling | inner))


if __name__ == "__main__":
    first_frames(read(sys.argv[1]))
