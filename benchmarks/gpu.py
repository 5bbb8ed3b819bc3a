"""Run what GPU.md lists on a borrowed GPU machine, the most valuable tasks first; call it again for the rest.

    python benchmarks/gpu.py FOLDER --minutes 9

It can be stopped at any time: every row is in FOLDER as soon as it is measured. A task that fails or hangs does not
stop the others.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import unattended
from unattended import ROOT, TIMED_OUT, Command, command_line, finished_tasks, run

PROMPT = "a red ball over hills"
PAVDM = (sys.executable, "-m", "pavdm_cli")
BENCH = (*PAVDM, "bench", "throughput")
PYTEST = (sys.executable, "-m", "pytest", "-q", "-rfEs", "--tb=short", "-W", "default", "-p", "no:cacheprovider")
REQUIREMENTS = ("torch", "triton", "numpy", "av", "einops", "ffmpeg", "platformdirs", "psutil", "rich", "safetensors")
PACKAGES = (*REQUIREMENTS, "typer", "pytest")
ATTENTION = ("fa3", "cudnn", "sdpa-flash", "flash-attn", "xformers", "sdpa-efficient", "sdpa-math", "sdpa")
MIN_SECONDS = 30  # remaining time below which no task is started
HELPER = (sys.executable, Path(unattended.__file__))


@dataclass(frozen=True, slots=True)
class Target:
    """Folders for results and temporary files, and the device; tiny: sizes for a trial run on a CPU."""

    folder: Path
    scratch: Path
    device: str = "cuda"
    tiny: bool = False

    def row(self, name: str = "throughput") -> Command:
        """Options that select the device and the file of the row."""
        return "--device", self.device, "--output", self.folder / f"{name}.jsonl"

    def architecture(self, *options: object) -> Command:
        """The command that measures Open-Sora's network at the paper's setting, with random weights."""
        arch = ("--arch", "pocket", "--samples", 1) if self.tiny else ("--arch", "opensora-v1.2")
        return (*BENCH, *arch, *options, *self.row())

    def seconds(self, length: int) -> Command:
        """Options for the length of the video."""
        return "--seconds", 2 if self.tiny else length


class Task(NamedTuple):
    """Related commands, and their time limit in seconds."""

    limit: int
    commands: Callable[[Target], Iterable[Command]]


def kernel_tests(target: Target) -> Iterable[Command]:
    """Test every kernel against its reference, and every attention backend against the equation."""
    yield (*PYTEST, ROOT / "tests/test_kernels_cuda.py")
    yield (*PYTEST, ROOT / "tests/test_attention.py", "-k", "gpu")


def graph_tests(target: Target) -> Iterable[Command]:
    """Test that replayed states equal the eager ones, for every method."""
    yield (*PYTEST, ROOT / "tests/test_graphs_cuda.py")


def compare_videos(target: Target) -> Iterable[Command]:
    """Compare videos: captured and eager steps are equal; a recomputed context and a CPU are within rounding."""
    eager = ("--device", target.device, "--cuda-graphs", "off", "--overlap-decode", "off")
    capture = "on" if target.device == "cuda" else "auto"
    graphs = ("--device", target.device, "--cuda-graphs", capture, "--overlap-decode", "off")
    overlap_decode = ("--device", target.device, "--cuda-graphs", "off", "--overlap-decode", "on")
    recompute = (*eager, "--context-cache", "recompute")
    runs = {"eager": (0, eager), "graphs": (0, graphs), "overlapped": (0, overlap_decode), "recomputed": (2, recompute)}
    for name, (tolerance, options) in (runs | {"cpu": (2, ("--device", "cpu"))}).items():
        path = (target.folder if name == "eager" else target.scratch) / f"{name}.mkv"
        yield (*PAVDM, "generate", PROMPT, "--seed", 1, "--frames", 16 if target.tiny else 48, *options, "-fo", path)
        yield (*HELPER, "compare", target.folder / "eager.mkv", path, tolerance)


def paper_setting(target: Target) -> Iterable[Command]:
    """Open-Sora's throughput at the paper's setting: by default, by FlashAttention, with the context cache."""
    yield target.architecture()
    yield target.architecture("--attention", "sdpa-flash")  # a row even if the default backend fails
    yield target.architecture("--context-cache", "reuse")


def kernels(target: Target) -> Iterable[Command]:
    """Bandwidth of every kernel relative to a memory copy."""
    width = ("--width", 192) if target.tiny else ()
    for dtype in ("bf16", "fp32", "fp16"):
        yield (*PAVDM, "bench", "kernels", "--dtype", dtype, *width, *target.row("kernels"))


def ablation(target: Target) -> Iterable[Command]:
    """One optimization after another, starting from the released code's operations."""
    yield target.architecture("--ablate")


def profile(target: Target) -> Iterable[Command]:
    """Profiles of a step."""
    for name, command in (("opensora", target.architecture()), ("pocket", (*BENCH, "--arch", "pocket", *target.row()))):
        yield (*command, "--profile", target.scratch / name)
        yield (*HELPER, "compress", target.scratch / name / "trace.json", target.folder / f"trace-{name}.json.gz")


def pocket(target: Target) -> Iterable[Command]:
    """The bundled model end to end, and its latency."""
    for switch in ("on", "off"):
        yield (*BENCH, *target.seconds(30), "--overlap-decode", switch, *target.row())
    yield (
        *PAVDM,
        "bench",
        "latency",
        *target.seconds(10),
        *(("--repeat", 1) if target.tiny else ()),
        *target.row("latency"),
    )


def end_to_end(target: Target) -> Iterable[Command]:
    """Open-Sora's architecture end to end, stage by stage."""
    model = ("--model", "pocket" if target.tiny else "opensora-v1.2", "--random-weights", "--end-to-end")
    yield (*BENCH, *model, *target.seconds(20), *target.row())


def training(target: Target) -> Iterable[Command]:
    """Training steps of pocket at full detail."""
    steps, folder = (2, target.scratch / "vae") if target.tiny else (200, target.scratch / "vae")
    options = ("--steps", steps, "--detail", 1, "--device", target.device, "--output-dir")
    yield (*PAVDM, "train", "vae", *options, folder)
    clips = ("--vae", folder / "vae.safetensors", "--clips", 4 if target.tiny else 64, "--method", "base")
    yield (*PAVDM, "train", "denoiser", *clips, *options, target.scratch / "base")


def graphs(target: Target) -> Iterable[Command]:
    """CUDA graphs on and off, also for whole videos, with ramp-up and ramp-down."""
    for switch in ("on", "off") if target.device == "cuda" else ("off",):
        yield target.architecture("--cuda-graphs", switch)
        for size in () if target.tiny else ("pocket", "mid"):
            yield (*BENCH, "--arch", size, "--cuda-graphs", switch, *target.row())
        yield (*BENCH, *target.seconds(30), "--cuda-graphs", switch, *target.row())


def attention(target: Target) -> Iterable[Command]:
    """Every attention backend; one that is not installed fails within two seconds."""
    for name in ("sdpa-math",) if target.tiny else ATTENTION:
        yield target.architecture("--attention", name)


def compiled(target: Target) -> Iterable[Command]:
    """Compiled transformer blocks."""
    yield target.architecture("--compile")


TASKS = {
    "kernel-tests": Task(150, kernel_tests),
    "graph-tests": Task(150, graph_tests),
    "video-comparison": Task(200, compare_videos),
    "paper": Task(200, paper_setting),
    "kernels": Task(300, kernels),
    "ablation": Task(200, ablation),
    "profile": Task(200, profile),
    "pocket": Task(240, pocket),
    "training": Task(200, training),
    "graphs": Task(300, graphs),
    "attention": Task(300, attention),
    "compiled": Task(200, compiled),
    "end-to-end": Task(300, end_to_end),
}


def main() -> None:
    """Run the named tasks, or all that are not finished; the exit code is 1 if one failed or was not run."""
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that child processes are ended too
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        sys.exit(f"not installed: {', '.join(missing)}; GPU.md explains how to install them without network access")
    args.folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as scratch:
        target = Target(args.folder.resolve(), Path(scratch), args.device, args.tiny)
        finished_names = finished_tasks([args.folder, *args.before])
        remaining = args.tasks or [name for name in TASKS if name not in finished_names]
        failures = [name for name in remaining if not run_task(name, target, deadline, args.commit)]
    print(f"failed or not run: {', '.join(failures)}" if failures else "all done", flush=True)
    sys.exit(bool(failures))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for results: at most 8 files, each under 16 MB")
    parser.add_argument(
        "tasks", nargs="*", metavar="TASK", help=f"default: all that are not finished, of {', '.join(TASKS)}"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="no task is started after this time")
    parser.add_argument("--before", type=Path, nargs="*", default=[], help="folders of earlier calls")
    parser.add_argument("--commit", help="of the sources, if they have no git history")
    parser.add_argument("--device", default="cuda", help="cpu: for a trial run")
    parser.add_argument("--tiny", action="store_true", help="small sizes for a trial run on a CPU")
    args = parser.parse_args()
    if unknown := [name for name in args.tasks if name not in TASKS]:
        parser.error(f"no such task: {', '.join(unknown)}")
    return args


def run_task(name: str, target: Target, deadline: float, commit: str | None) -> bool:
    """Run a task within the time left, and log the result."""
    task, start = TASKS[name], time.monotonic()
    end, failures, timed_out = min(deadline, start + task.limit), list[str](), False
    if deadline - start < MIN_SECONDS:
        return False
    for command in task.commands(target):
        code = run(command, target.folder, end - time.monotonic(), commit)
        failures += [f"{code}: {command_line(command)}"] if code else []
        timed_out = timed_out or (code == TIMED_OUT and end == deadline)
    row = {"task": name, "seconds": round(time.monotonic() - start, 1), "failed": failures, "timed_out": timed_out}
    with (target.folder / "done.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return not failures


if __name__ == "__main__":
    main()
