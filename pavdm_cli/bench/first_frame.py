"""How long a fresh process takes to its first frame: run as `python -m pavdm_cli.bench.first_frame REQUEST` (JSON)."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from pavdm_cli.errors import PavdmError
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.request import Request, build_request, flat_values
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.runner import ModelRunner


def first_frames(request: Request) -> ModelRunner:
    """Load the model and generate the first frames of a video; returns the model."""
    config = resolve(request)
    model = pipeline.open_model(config)
    next(pipeline.generate_frames(config, model))
    return model


def cold(request: Request) -> float:
    """Seconds from starting a new process to its first frames. Raises: PavdmError."""
    values = json.dumps(flat_values(request) | {"frames": request.frame_count, "seconds": None})
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-m", "pavdm_cli.bench.first_frame", values], stderr=subprocess.PIPE, text=True
    )
    if process.returncode:
        raise PavdmError("a new process produced no frame", (process.stderr.splitlines() or ["no message"])[-1])
    return time.perf_counter() - start


def warm(request: Request) -> tuple[float, ModelRunner]:
    """Seconds to the first frames in this process, loading the weights included, and the model."""
    start = time.perf_counter()
    model = first_frames(request)
    return time.perf_counter() - start, model


if __name__ == "__main__":
    first_frames(build_request(json.loads(sys.argv[1])))
