"""Most of what GPU.md lists, in its order and in parts for a machine on loan; what fails does not stop the rest.

Each part appends its rows to FOLDER, keeps the output of every command as a log, and ends in one line a command.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np

from pavdm_cli.attention import BACKENDS

ROOT = Path(__file__).parents[1]
PROMPT = "a red ball over hills"
PAVDM = (sys.executable, "-m", "pavdm_cli")
PYTEST = (sys.executable, "-m", "pytest", "-q", "-rs")
Command = tuple[str | Path, ...]


def kernels(folder: Path, device: str) -> Iterable[Command]:
    """Every kernel against its reference, and beside a copy of memory."""
    yield (*PYTEST, ROOT / "tests/test_kernels_cuda.py", ROOT / "tests/test_attention.py")
    yield (*PAVDM, "bench", "kernels", "--device", device, "--out", folder / "kernels.jsonl")


def paths(folder: Path, device: str) -> Iterable[Command]:
    """Recorded, eager and reference steps make the same video; CPU and GPU nearly the same."""
    yield (*PYTEST, ROOT / "tests/test_graphs_cuda.py")
    graphs = "on" if device == "cuda" else "auto"
    asked = {
        "cpu": ("--device", "cpu"),
        "eager": ("--device", device, "--cuda-graphs", "off", "--decode-beside", "off"),
        "graphs": ("--device", device, "--cuda-graphs", graphs, "--decode-beside", "off"),
        "beside": ("--device", device, "--cuda-graphs", "off", "--decode-beside", "on"),
        "plain": ("--device", device, "--plain"),
    }
    for name, options in asked.items():
        yield (*PAVDM, "generate", PROMPT, "--seed", "1", "--frames", "48", *options, "-fo", folder / f"{name}.mkv")
    for name, within in (("graphs", 0), ("beside", 0), ("plain", 2), ("cpu", 2)):
        yield sys.executable, __file__, "same", folder / "eager.mkv", folder / f"{name}.mkv", str(within)


def throughput(folder: Path, device: str) -> Iterable[Command]:
    """Open-Sora's shape at the paper's setting, optimisation by optimisation; then pocket."""
    row = ("--device", device, "--out", folder / "throughput.jsonl")
    shape = (*PAVDM, "bench", "throughput", "--shape", "opensora-v1.2")
    yield (*shape, *row)
    yield (*shape, "--ablate", *row)
    yield (*shape, "--profile", folder / "trace", *row)
    yield (*PAVDM, "bench", "throughput", "--shape", "pocket", "--profile", folder / "trace-pocket", *row)
    yield (
        *PAVDM,
        "bench",
        "throughput",
        "--model",
        "opensora-v1.2",
        "--random-weights",
        "--whole",
        "--seconds",
        "60",
        *row,
    )
    for beside in ("on", "off"):
        yield (*PAVDM, "bench", "throughput", "--seconds", "60", "--decode-beside", beside, *row)
    yield (*PAVDM, "bench", "latency", "--device", device, "--out", folder / "latency.jsonl")


def choices(folder: Path, device: str) -> Iterable[Command]:
    """What is chosen by counting so far: back ends of attention, graphs, overlap reuse, compiled blocks."""
    row = ("--device", device, "--out", folder / "throughput.jsonl")
    shape = (*PAVDM, "bench", "throughput", "--shape", "opensora-v1.2")
    yield (*PAVDM, "doctor")
    yield from ((*shape, "--attention", name, *row) for name in BACKENDS)
    yield from ((*shape, "--overlap-kv", kept, *row) for kept in ("reuse", "recompute"))
    for size in ("opensora-v1.2", "pocket", "mid"):
        for graphs in ("on", "off"):
            yield (*PAVDM, "bench", "throughput", "--shape", size, "--cuda-graphs", graphs, *row)
    for graphs in ("on", "off"):  # growth and drain too, which a shape alone has none of
        yield (*PAVDM, "bench", "throughput", "--seconds", "30", "--cuda-graphs", graphs, *row)
    yield (*shape, "--compile", *row)


PARTS = {"kernels": kernels, "paths": paths, "throughput": throughput, "choices": choices}


def main() -> None:
    """Run the parts that are named, or all; the exit code is the number of commands that failed."""
    if sys.argv[1:2] == ["same"]:
        sys.exit(apart(Path(sys.argv[2]), Path(sys.argv[3])) > float(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all unless named")
    parser.add_argument("--device", default="cuda", help="cpu tries the script out")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for part in given.parts or PARTS:
        for number, command in enumerate(PARTS[part](given.folder, given.device)):
            failed += not run(command, given.folder / f"{part}-{number}.log")
    sys.exit(min(failed, 100))


def run(command: Command, log: Path) -> bool:
    """Run one command, keep what it says, and tell in one line how it went."""
    words, begun = [str(word) for word in command], time.perf_counter()
    with log.open("w") as file:
        native = os.environ | {"TRITON_INTERPRET": "0"}
        done = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=native, check=False)
    verdict = "ok    " if done.returncode == 0 else f"FAILED {done.returncode}"
    print(f"{verdict} {time.perf_counter() - begun:6.1f} s  {log.name}: {' '.join(words[1:])}", flush=True)
    return done.returncode == 0


def apart(first: Path, second: Path) -> float:
    """The largest difference of two videos in a byte; 255 where they have not as many frames."""
    one, other = (decoded(path) for path in (first, second))
    furthest = 255.0 if one.shape != other.shape else float(np.abs(one - other).max(initial=0))
    print(f"{first.name} and {second.name}: {len(one)} and {len(other)} frames, at most {furthest:g} of 255 apart")
    return furthest


def decoded(path: Path) -> np.ndarray:
    """All frames of a file, (n, H, W, 3)."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]).astype(np.int16)


if __name__ == "__main__":
    main()
