"""Measure the efficiencies behind the time estimate of `--plan`: `python benchmarks/efficiency.py`.

Rounds of one matmul, denoising, decoding and writing on one thread, in processor time, which excludes other programs.
Prints a line per round, and the medians for the models' `efficiency`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from pavdm_cli.bench.ceilings import matmul_side
from pavdm_cli.bench.estimate import decode_tflop, denoise_tflop
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.memory_plan import meta_model_of
from pavdm_cli.generation.request import build_request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.video import EncoderOptions, VideoWriter

PROMPT = "a red balloon drifting over green hills at sunset"


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def write(pixels: list, spec, folder: Path) -> None:
    """Write all frames to a file, like a video."""
    height, width = spec.size
    with VideoWriter(folder / "v.mp4", width, height, spec.fps, {}, EncoderOptions(crf=18), force=True) as writer:
        for frames in pixels:
            writer.write(frames)


def one_round(config: GenerationConfig, model: ModelRunner, folder: Path) -> dict[str, float]:
    """Shares of the matmul throughput, and the TFLOP equivalent of writing one pixel."""
    side, meta = matmul_side(model.device), meta_model_of(config)
    a, b = (torch.randn(side, side) for _ in range(2))
    rate = 2e-12 * side**3 / min(seconds(lambda: a @ b) for _ in range(4))
    latents, pixels = [], []
    denoise_seconds = seconds(lambda: latents.extend(pipeline.sample_latents(config, model)))
    decode_seconds = seconds(lambda: pixels.extend(to_bytes(model.decode(chunk)[0]) for chunk in latents))
    write_seconds = seconds(lambda: write(pixels, config.spec, folder))
    denoise_flop = denoise_tflop(config, meta)
    decode_flop = decode_tflop(meta) * config.frames / config.layout.unit_frames
    count = sum(len(frames) for frames in pixels) * config.spec.size[0] * config.spec.size[1]
    shares = {"denoise": denoise_flop / denoise_seconds / rate, "decode": decode_flop / decode_seconds / rate}
    return {"tflops": rate, **shares, "write_tflop": write_seconds * rate / count}


def main() -> None:
    """Measure both precisions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for precision in ("fp32", "bf16"):
        options = {"threads": 1, "device": "cpu", "precision": precision}
        config = resolve(build_request({"prompt": PROMPT, "seconds": args.seconds} | options))
        model, rows = pipeline.open_model(config), []
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(args.rounds):
                rows.append(one_round(config, model, Path(folder)))
                print(precision, json.dumps({name: round(value, 12) for name, value in rows[-1].items()}), flush=True)
        print(precision, "median", {name: float(f"{median(row[name] for row in rows):.3g}") for name in rows[0]})


if __name__ == "__main__":
    main()
