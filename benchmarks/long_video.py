"""Memory and time per chunk of an hour of pocket, with its checkpoints; a row to benchmarks/results/long-video.jsonl.

Both must stay flat: in the last ten minutes of video, memory is within 2 % of that of the ten minutes after the fifth,
and the time per chunk within 5 % of that of the first ten. Stop everything else first: an hour of video takes about a
quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from pavdm_cli.bench.env import environment
from pavdm_cli.generation import pipeline, write
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import Output, Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.execution import ExecutionConfig

PROMPT = "a red balloon drifting over green hills at sunset"
SPAN, WARM_UP = 600, 300  # seconds of video: compared at each end, and skipped for memory
MAX_MEMORY_RATIO, MAX_CHUNK_RATIO = 1.02, 1.05
Sample = tuple[int, float, int]  # frames on the disk, seconds, bytes of the process


def main() -> None:
    """Print the ratios; the exit code is 1 if one is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="at least 1200")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "long-video.jsonl")
    args = parser.parse_args()
    if args.seconds < 2 * SPAN:
        parser.error("--seconds must be at least 1200: the first and the last ten minutes are compared")
    request = Request(PROMPT, seconds=args.seconds, seed=7, execution=ExecutionConfig(threads=args.threads))
    config = resolve(request)
    with tempfile.TemporaryDirectory() as folder:
        samples = record(config, Output(Path(folder) / "long.mp4"))
    row = {"schema": "pavdm.long-video/1", **environment(), "prompt": PROMPT, "seed": 7, "seconds": args.seconds}
    row |= {"threads": args.threads, "summary": (summary := summarize(samples, config.spec.fps))}
    with args.results.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(summary))
    sys.exit(0 if summary["memory_ratio"] <= MAX_MEMORY_RATIO and summary["chunk_ratio"] <= MAX_CHUNK_RATIO else 1)


def record(config: GenerationConfig, output: Output) -> list[Sample]:
    """Generate the video like the command; one sample whenever frames reach the disk."""
    process, samples, start = psutil.Process(), list[Sample](), time.monotonic()
    num_written = 0

    def count_frames(frames: int) -> None:
        nonlocal num_written
        num_written += frames
        samples.append((num_written, time.monotonic() - start, process.memory_info().rss))
        print(f"{num_written}/{config.frames} frames", end="\r", file=sys.stderr, flush=True)

    model = pipeline.open_model(config)
    result = write.write_video(config, model, output, write.RunControl(count_frames, lambda: False))
    assert result.is_complete
    return samples


def summarize(samples: list[Sample], fps: float) -> dict[str, Any]:
    """Memory after warming up, and the time between chunks, at both ends of the video."""
    end = samples[-1][0] / fps
    gaps = [(frames / fps, later - earlier) for (_, earlier, _), (frames, later, _) in pairwise(samples)]
    first = median(gap for at, gap in gaps if at <= SPAN)
    last = median(gap for at, gap in gaps if at > end - SPAN)
    early = median(size for frames, _, size in samples if WARM_UP <= frames / fps <= WARM_UP + SPAN)
    late = median(size for frames, _, size in samples if frames / fps > end - SPAN)
    return {
        "frames": samples[-1][0],
        "wall_s": round(samples[-1][1], 1),
        "first_chunk_ms": round(1e3 * first, 2),
        "last_chunk_ms": round(1e3 * last, 2),
        "chunk_ratio": round(last / first, 4),
        "memory_mb": [round(early / 1e6, 1), round(late / 1e6, 1)],
        "peak_mb": round(max(size for *_, size in samples) / 1e6, 1),
        "memory_ratio": round(late / early, 4),
    }


if __name__ == "__main__":
    main()
