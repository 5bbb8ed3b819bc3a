"""Seconds per step of each run that trains `pocket`, and per rendered clip.

Rows go to benchmarks/results/training-speed.jsonl. The runs are those of docs/training.md, with new weights and few
clips, which make no difference to the speed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pavdm_cli.bench.env import environment
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import SPEC, VAE_FILE
from pavdm_cli.training.loop import Task, TrainConfig, init_state, train_step
from pavdm_cli.training.pocket import runs
from pavdm_cli.training.pocket.initial_weights import new_denoiser
from pavdm_cli.training.pocket.latent_pool import Clips, encode_pool

HERE = Path(__file__).parent
CLIPS = 32
WARMUP = 2  # steps that are not timed
OBJECTIVES = {
    "single latents": runs.Objective("base", window=1, shift=3.0, object_weight=6.0, fill_batches=True),
    "base": runs.Objective("base", shift=2.0, object_weight=4.0, fill_batches=True),
    "progressive": runs.Objective("pa", object_weight=2.0, fill_batches=True),
    "guidance distillation": runs.Objective("pa", distill_guidance=3.3),
}


def main() -> None:
    """Print and store a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each run")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "training-speed.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    conditions = {"schema": "pavdm.training_speed/1", **environment(), "threads": args.threads}
    measured = {"clips": seconds_per_clip()} | {
        name: seconds_per_step(name, args.steps) for name in ("vae", *OBJECTIVES)
    }
    with args.results.open("a") as file:
        for name, seconds in measured.items():
            row = {"run": name, "seconds": round(seconds, 3), "per": "clip" if name == "clips" else "step"}
            file.write(json.dumps(conditions | row) + "\n")
            print(f"{name}: {seconds:.2f} s per {row['per']}", flush=True)


def seconds_per_clip() -> float:
    """Rendering and encoding a clip of 20 latents."""
    vae = checkpoint.load_vae(SPEC.folder / VAE_FILE)
    start = time.perf_counter()
    for _ in encode_pool(Clips(CLIPS), vae, lambda done: None):
        pass
    return (time.perf_counter() - start) / CLIPS


def seconds_per_step(name: str, steps: int) -> float:
    """One run, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(name, Path(folder))
        state, config = init_state(task, Path(folder, "checkpoint.pt")), TrainConfig(steps + WARMUP, 0.0015)
        for _ in range(WARMUP):
            train_step(state, config)
        start = time.perf_counter()
        for _ in range(steps):
            train_step(state, config)
        return (time.perf_counter() - start) / steps


def make_task(name: str, folder: Path) -> Task:
    """The task of a run."""
    vae = checkpoint.load_vae(SPEC.folder / VAE_FILE)
    teacher = checkpoint.save(new_denoiser(vae.config), folder / "teacher.safetensors", {})
    init = None if name == "vae" else teacher
    options = runs.TrainOptions(folder, steps=1000, learning_rate=0.0015, batch_size=16, init=init, device="cpu")
    if name == "vae":
        return runs.vae_task(options)
    return runs.denoiser_task(options, OBJECTIVES[name], None, CLIPS, no_progress)


@contextmanager
def no_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Ignore progress."""
    yield lambda done: None


if __name__ == "__main__":
    main()
