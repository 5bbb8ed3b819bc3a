"""What GPU.md lists, by worth, for a machine on loan: one command, stopped at any moment and called again for the rest.

    python benchmarks/gpu.py FOLDER --minutes 9

Every row is in FOLDER as soon as it is measured; what fails, hangs or is missing does not stop what comes after it.
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
NEEDED = ("torch", "triton", "numpy", "av", "einops", "ffmpeg", "platformdirs", "psutil", "rich", "safetensors")
PACKAGES = (*NEEDED, "typer", "pytest")
ATTENTION = ("fa3", "cudnn", "sdpa-flash", "flash-attn", "xformers", "sdpa-efficient", "sdpa-math", "sdpa")
MIN_SECONDS = 30  # seconds without which no task is started
HELPER = (sys.executable, Path(unattended.__file__))


@dataclass(frozen=True, slots=True)
class Place:
    """Where results go, what may be lost, and on what; tiny: sizes at which a CPU tries the script out."""

    folder: Path
    scratch: Path
    device: str = "cuda"
    tiny: bool = False

    def row(self, name: str = "throughput") -> Command:
        """Words that measure on the device and keep the row."""
        return "--device", self.device, "--out", self.folder / f"{name}.jsonl"

    def shape(self, *options: object) -> Command:
        """A row of Open-Sora's network at the paper's setting, with random weights."""
        shape = ("--shape", "pocket", "--samples", 1) if self.tiny else ("--shape", "opensora-v1.2")
        return (*BENCH, *shape, *options, *self.row())

    def seconds(self, length: int) -> Command:
        """So long a video."""
        return "--seconds", 2 if self.tiny else length


class Task(NamedTuple):
    """Commands that belong together, and the seconds after which they are stopped."""

    limit: int
    commands: Callable[[Place], Iterable[Command]]


def kernels_right(to: Place) -> Iterable[Command]:
    """Every kernel against its reference, every attention backend against the equation."""
    yield (*PYTEST, ROOT / "tests/test_kernels_cuda.py")
    yield (*PYTEST, ROOT / "tests/test_attention.py", "-k", "gpu")


def graphs_right(to: Place) -> Iterable[Command]:
    """Replayed states are the eager ones, for every method."""
    yield (*PYTEST, ROOT / "tests/test_graphs_cuda.py")


def same_videos(to: Place) -> Iterable[Command]:
    """Captured and eager steps make the same video; a recomputed context and a CPU nearly the same."""
    eager = ("--device", to.device, "--cuda-graphs", "off", "--overlap-decode", "off")
    capture = "on" if to.device == "cuda" else "auto"
    graphs = ("--device", to.device, "--cuda-graphs", capture, "--overlap-decode", "off")
    overlap_decode = ("--device", to.device, "--cuda-graphs", "off", "--overlap-decode", "on")
    recompute = (*eager, "--context-cache", "recompute")
    runs = {"eager": (0, eager), "graphs": (0, graphs), "overlapped": (0, overlap_decode), "recomputed": (2, recompute)}
    for name, (within, options) in (runs | {"cpu": (2, ("--device", "cpu"))}).items():
        path = (to.folder if name == "eager" else to.scratch) / f"{name}.mkv"
        yield (*PAVDM, "generate", PROMPT, "--seed", 1, "--frames", 16 if to.tiny else 48, *options, "-fo", path)
        yield (*HELPER, "same", to.folder / "eager.mkv", path, within)


def paper(to: Place) -> Iterable[Command]:
    """Throughput of Open-Sora's shape at the paper's setting: as it is, by flash, with the context cache."""
    yield to.shape()
    yield to.shape("--attention", "sdpa-flash")  # a figure even where what is chosen first breaks
    yield to.shape("--context-cache", "reuse")


def kernels(to: Place) -> Iterable[Command]:
    """Every kernel, compared with a copy of memory."""
    width = ("--width", 192) if to.tiny else ()
    for dtype in ("bf16", "fp32", "fp16"):
        yield (*PAVDM, "bench", "kernels", "--dtype", dtype, *width, *to.row("kernels"))


def ablation(to: Place) -> Iterable[Command]:
    """One optimisation after another, compared with the released code's operations."""
    yield to.shape("--ablate")


def profile(to: Place) -> Iterable[Command]:
    """Where a step's time goes."""
    for name, shape in (("opensora", to.shape()), ("pocket", (*BENCH, "--shape", "pocket", *to.row()))):
        yield (*shape, "--profile", to.scratch / name)
        yield (*HELPER, "keep", to.scratch / name / "trace.json", to.folder / f"trace-{name}.json.gz")


def pocket(to: Place) -> Iterable[Command]:
    """The bundled model from end to end; then the times that users wait for."""
    for switch in ("on", "off"):
        yield (*BENCH, *to.seconds(30), "--overlap-decode", switch, *to.row())
    yield (*PAVDM, "bench", "latency", *to.seconds(10), *(("--repeat", 1) if to.tiny else ()), *to.row("latency"))


def whole(to: Place) -> Iterable[Command]:
    """Open-Sora's shape from text to file, stage by stage."""
    model = ("--model", "pocket" if to.tiny else "opensora-v1.2", "--random-weights", "--whole")
    yield (*BENCH, *model, *to.seconds(20), *to.row())


def training(to: Place) -> Iterable[Command]:
    """Steps of training pocket at full detail."""
    steps, folder = (2, to.scratch / "codec") if to.tiny else (200, to.scratch / "codec")
    options = ("--steps", steps, "--detail", 1, "--device", to.device, "--folder")
    yield (*PAVDM, "train", "codec", *options, folder)
    clips = ("--codec", folder / "codec.safetensors", "--clips", 4 if to.tiny else 64, "--method", "base")
    yield (*PAVDM, "train", "denoiser", *clips, *options, to.scratch / "base")


def graphs(to: Place) -> Iterable[Command]:
    """Where graphs win; growth and drain too, which a shape alone has none of."""
    for on in ("on", "off") if to.device == "cuda" else ("off",):
        yield to.shape("--cuda-graphs", on)
        for size in () if to.tiny else ("pocket", "mid"):
            yield (*BENCH, "--shape", size, "--cuda-graphs", on, *to.row())
        yield (*BENCH, *to.seconds(30), "--cuda-graphs", on, *to.row())


def attention(to: Place) -> Iterable[Command]:
    """Which backend is fastest; one that is not installed fails within two seconds."""
    for name in ("sdpa-math",) if to.tiny else ATTENTION:
        yield to.shape("--attention", name)


def compilation(to: Place) -> Iterable[Command]:
    """Compiled blocks."""
    yield to.shape("--compile")


TASKS = {
    "kernels-right": Task(150, kernels_right),
    "graphs-right": Task(150, graphs_right),
    "same-videos": Task(200, same_videos),
    "paper": Task(200, paper),
    "kernels": Task(300, kernels),
    "ablation": Task(200, ablation),
    "profile": Task(200, profile),
    "pocket": Task(240, pocket),
    "training": Task(200, training),
    "graphs": Task(300, graphs),
    "attention": Task(300, attention),
    "compiled": Task(200, compilation),
    "whole": Task(300, whole),
}


def main() -> None:
    """Run the tasks that are named, or all that are not done; exit code 1 where something failed or is left."""
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended with this
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        sys.exit(f"not installed: {', '.join(missing)}; GPU.md tells how to bring them to a machine without a network")
    args.folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(args.folder.resolve(), Path(scratch), args.device, args.tiny)
        finished_names = finished_tasks([args.folder, *args.before])
        remaining = args.tasks or [name for name in TASKS if name not in finished_names]
        failures = [name for name in remaining if not attempt(name, place, until, args.commit)]
    print(f"not in order: {', '.join(failures)}" if failures else "all done", flush=True)
    sys.exit(bool(failures))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for results: 8 files at most, each under 16 MB")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"unless named, all not done: {', '.join(TASKS)}")
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="tasks that are not started by then are left for another call"
    )
    parser.add_argument("--before", type=Path, nargs="*", default=[], help="folders of earlier calls")
    parser.add_argument("--commit", help="of the sources, where they came without their history")
    parser.add_argument("--device", default="cuda", help="cpu tries the script out")
    parser.add_argument("--tiny", action="store_true", help="at sizes for that")
    args = parser.parse_args()
    if unknown := [name for name in args.tasks if name not in TASKS]:
        parser.error(f"no such task: {', '.join(unknown)}")
    return args


def attempt(name: str, place: Place, until: float, commit: str | None) -> bool:
    """Run a task as far as time allows, and note how it went."""
    task, start = TASKS[name], time.monotonic()
    end, failures, timed_out = min(until, start + task.limit), list[str](), False
    if until - start < MIN_SECONDS:
        return False
    for command in task.commands(place):
        code = run(command, place.folder, end - time.monotonic(), commit)
        failures += [f"{code}: {command_line(command)}"] if code else []
        timed_out = timed_out or (code == TIMED_OUT and end == until)
    row = {"task": name, "seconds": round(time.monotonic() - start, 1), "failed": failures, "cut": timed_out}
    with (place.folder / "done.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return not failures


if __name__ == "__main__":
    main()
