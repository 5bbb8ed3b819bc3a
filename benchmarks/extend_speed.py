"""Time of `pavdm extend` and of ffmpeg re-encoding its input, alternating; rows to benchmarks/results/extend.jsonl.

`default` is `ffmpeg -c:v libx264 -crf 16 -c:a copy`; `same` is ffmpeg with the x264 settings that extend writes with.
Ratios of processor time (user and system, all threads) vary less on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

from pavdm_cli.bench.env import environment
from pavdm_cli.video.write.encode import X264_DETERMINISTIC, EncoderOptions
from pavdm_cli.video.write.external import find_ffmpeg

SIZES = {"720p": "1280x720", "1080p": "1920x1080", "2160p": "3840x2160"}
RATE = 30  # frames per second
CRF = 16  # the default of extend
MAX_RATIO = 1.25


def main() -> None:
    """Print the ratios; the exit code is 1 if one of processor time is above MAX_RATIO."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--frames", type=int, default=1, help="new frames")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "extend.jsonl")
    args = parser.parse_args()
    worst = 0.0
    for size in args.sizes:
        row = measure(size, args.seconds, args.pairs, args.frames)
        worst = max(worst, row["summary"]["default"]["cpu"])
        with args.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
    sys.exit(0 if worst <= MAX_RATIO else 1)


def measure(size: str, seconds: float, pairs: int, frames: int) -> dict[str, Any]:
    """One row: every sample, and the median over the rounds of the ratio of extend to each of the others."""
    with tempfile.TemporaryDirectory() as folder:
        source = clip(Path(folder), SIZES[size], seconds)
        rounds = [{name: run_timed(words) for name, words in commands(source, frames).items()} for _ in range(pairs)]
    summary = {
        baseline: {kind: ratio(rounds, baseline, kind) for kind in ("wall", "cpu")} for baseline in ("default", "same")
    }
    print(size, json.dumps(summary), flush=True)
    config = {"size": size, "seconds": seconds, "frames": frames, "crf": CRF, "pairs": pairs}
    return {"schema": "pavdm.extend/1", "env": environment(), "config": config, "samples": rounds, "summary": summary}


def ratio(rounds: list[dict[str, dict[str, float]]], baseline: str, kind: str) -> float:
    """The median of extend's time over the other's in the same round."""
    return round(statistics.median(samples["extend"][kind] / samples[baseline][kind] for samples in rounds), 3)


def clip(folder: Path, size: str, seconds: float) -> Path:
    """A moving test pattern with noise, at 30 fps, and a tone."""
    pattern, tone = f"testsrc2=s={size}:r={RATE}:d={seconds},noise=alls=6:allf=t", f"sine=440:d={seconds}"
    inputs = ["-f", "lavfi", "-i", pattern, "-f", "lavfi", "-i", tone]
    encoding = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    source = folder / "in.mp4"
    subprocess.run([find_ffmpeg(), "-v", "error", "-y", *inputs, *encoding, str(source)], check=True)
    return source


def commands(source: Path, frames: int) -> dict[str, list[str]]:
    """The commands: extend, ffmpeg with default settings, ffmpeg with the settings of extend."""
    encoding = EncoderOptions(crf=CRF)
    ours = ["-g", str(encoding.segment_frames(Fraction(RATE))), "-threads", str(encoding.threads)]
    ours += ["-x264-params", X264_DETERMINISTIC]
    plain = [find_ffmpeg(), "-v", "error", "-y", "-i", str(source), "-c:v", "libx264", "-crf", str(CRF)]
    end = ["-c:a", "copy", str(source.with_name("ffmpeg.mp4"))]
    words = ["extend", str(source), "-p", "a red ball", "--frames", str(frames), "--seed", "1", "--force"]
    extend = [sys.executable, "-m", "pavdm_cli", *words, "-o", str(source.with_name("extend.mp4"))]
    return {"extend": extend, "default": [*plain, *end], "same": [*plain, *ours, *end]}


def run_timed(command: list[str]) -> dict[str, float]:
    """Seconds of the wall clock and of the processor, the process's threads included; Linux and macOS."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        if status:
            sys.exit(f"{command[0]} failed: {output.read().decode(errors='replace')}")
    return {"wall": round(time.perf_counter() - start, 2), "cpu": round(usage.ru_utime + usage.ru_stime, 2)}


if __name__ == "__main__":
    main()
