"""Peak memory of a short and a long video, each in a process of its own; a row to benchmarks/results/memory.jsonl."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pavdm_cli.bench.env import environment

HERE = Path(__file__).parent
PROMPT = "a red balloon drifting over green hills at sunset"
MAX_RATIO = 1.05  # of the long video's peak to the short one's


def main() -> None:
    """Print the peaks; the exit code is 1 if the long video's is more than 5 % above the short one's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs=2, default=[10.0, 600.0], metavar=("SHORT", "LONG"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "memory.jsonl")
    args = parser.parse_args()
    short, long = (peak(seconds, args.threads) for seconds in args.seconds)
    row = {"schema": "pavdm.memory/1", **environment(), "prompt": PROMPT, "seed": 7, "threads": args.threads}
    row |= {"seconds": args.seconds, "peak_mb": [round(short), round(long)], "ratio": round(long / short, 4)}
    with args.results.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{short:.0f} MB for {args.seconds[0]:g} s, {long:.0f} MB for {args.seconds[1]:g} s: {long / short:.3f}")
    sys.exit(0 if long <= MAX_RATIO * short else 1)


def peak(seconds: float, threads: int) -> float:
    """Peak memory of a `pavdm generate` of this length, in MB; Linux and macOS."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["generate", PROMPT, "--seed", "7", "--seconds", f"{seconds:g}", "--threads", str(threads)]
        process = subprocess.Popen([sys.executable, "-m", "pavdm_cli", *words, "-o", str(Path(folder, "video.mp4"))])
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"pavdm generate failed with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
