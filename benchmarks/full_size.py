"""One forward pass of Open-Sora's transformer at its full 1.2 billion parameters, random, on a CPU: time and memory.

A row to benchmarks/results/full-size.jsonl. The window is small: 5 clean and 5 noisy latents of 256x144.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pavdm_cli.bench.ceilings import ceilings
from pavdm_cli.bench.env import environment, process_peak_mb
from pavdm_cli.models.adapter import StepShape
from pavdm_cli.models.opensora.config import XL2
from pavdm_cli.models.opensora.model import MODEL
from pavdm_cli.models.random_weights import init_random
from pavdm_cli.models.stdit.denoiser import compute_modulation, with_full_context
from pavdm_cli.models.stdit.flops import step_flops, tokens_per_latent
from pavdm_cli.models.stdit.layers import rotary_frequencies
from pavdm_cli.models.stdit.transformer import STDiT
from pavdm_cli.sampling.denoiser import Denoiser, batched_cfg
from pavdm_cli.sampling.noise import shifted_sigmas

CPU = torch.device("cpu")
SIZE, NOISY, CLEAN, STEPS = (144, 256), 5, 5, 30
LIMIT = 24 * 2**10  # MB


def main() -> None:
    """Print time and memory; the exit code is 1 if the process used 24 GiB or the output is not finite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--passes", type=int, default=2, help="number of timed forward passes")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "full-size.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    row = measure(getattr(torch, args.dtype), args.passes)
    with args.results.open("a") as file:
        file.write(json.dumps(row) + "\n")
    summary = row["summary"]
    print(json.dumps(summary))
    sys.exit(0 if summary["finite"] and summary["peak_memory_mb"] < LIMIT else 1)


def measure(dtype: torch.dtype, passes: int) -> dict[str, Any]:
    """One row: machine, ceilings, configuration, samples and summary."""
    start = time.perf_counter()
    model = init_random(lambda: STDiT(XL2), CPU, dtype, {"rope.freqs": rotary_frequencies(XL2.head_dim)})
    init_seconds = time.perf_counter() - start
    parameters, weights = (sum(f(p) for p in model.parameters()) for f in (torch.numel, lambda p: p.nbytes))
    denoiser, step = build_denoiser(model)
    seconds, velocity = time_passes(denoiser, passes)
    tflop = 1e-12 * step_flops(XL2, step, tokens_per_latent(XL2, (SIZE[0] // 8, SIZE[1] // 8)))
    ceiling = ceilings(CPU, dtype)
    config = {"dtype": str(dtype).removeprefix("torch."), "size": SIZE, "noisy": NOISY, "clean": CLEAN, "batch": 2}
    summary = {
        "parameters": parameters,
        "weights_mb": weights / 2**20,
        "init_s": init_seconds,
        "pass_s": min(seconds),
        "pass_tflop": tflop,
        "matrix_share": tflop / min(seconds) / ceiling["matrix_tflops"],
        "peak_memory_mb": process_peak_mb(),
        "finite": bool(velocity.isfinite().all()),
        "deviation": float(velocity.std()),
    }
    row = {"schema": "pavdm.full-size/1", "env": environment(), "ceilings": ceiling, "config": config}
    return row | {"samples": {"pass_s": seconds}, "summary": summary}


def build_denoiser(model: STDiT) -> tuple[Denoiser, StepShape]:
    """A denoiser with guidance over 300 random text tokens, and the size of a step."""
    y = torch.randn(2, XL2.text_length, XL2.text_width, generator=torch.Generator().manual_seed(1))
    sigmas = shifted_sigmas(STEPS, MODEL.timestep_shift(SIZE, NOISY + CLEAN))
    with torch.no_grad():
        text = model.encode_text(y.to(model.x_embedder.proj.weight))
        modulation = compute_modulation(model, 1000 * sigmas, MODEL.spec.fps)
    step = StepShape(batch=2, window=NOISY + CLEAN, context=0, text=XL2.text_length)
    return batched_cfg(with_full_context(model, text, modulation, CLEAN, SIZE), MODEL.spec.guidance), step


def time_passes(denoiser: Denoiser, passes: int) -> tuple[list[float], torch.Tensor]:
    """Seconds of every pass, and the velocity of the last one."""
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(1, CLEAN + NOISY, XL2.in_channels, SIZE[0] // 8, SIZE[1] // 8, generator=generator)
    kv_cache = denoiser.prefill(latents[:, :CLEAN], 0)
    levels, seconds = torch.full((NOISY,), STEPS, dtype=torch.int32), []
    for _ in range(passes):
        start = time.perf_counter()
        velocity = denoiser(latents[:, CLEAN:], levels, kv_cache)
        seconds.append(time.perf_counter() - start)
    return seconds, velocity


if __name__ == "__main__":
    main()
