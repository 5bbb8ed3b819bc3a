"""Runs commands unattended, one after another: each with a time limit, its output in a log, its rows in files."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MAX_LOG_BYTES = 400_000  # of one command's output
MAX_TRACE_BYTES = 15_000_000  # larger traces are dropped
TIMED_OUT = 124  # exit code of a command that timed out, as of timeout(1)
SUMMARY_FIELDS = (
    "steady_fps",
    "end_to_end_fps",
    "step_p50_ms",
    "matrix_share",
    "graphs",
    "gpu_peak_mb",
    "issuing_share",
)
SUMMARY_FIELDS += ("first_frame_cold_p50_s", "steady_chunk_p50_s", "error", "copy_share")  # that are printed of a row
Command = tuple[object, ...]


def finished_tasks(folders: Iterable[Path]) -> set[str]:
    """Tasks that earlier calls finished, whether they failed or not, but not those that timed out."""
    logs = [folder / "done.jsonl" for folder in folders]
    rows = [row for log in logs if log.exists() for row in rows_of(log.read_bytes())]
    return {row["task"] for row in rows if not row["timed_out"]}


def run(command: Command, folder: Path, seconds: float, commit: str | None) -> int:
    """Run one command with a time limit, log its output, and print the result and its new rows."""
    words, start_time, log = [str(word) for word in command], time.perf_counter(), folder / "log.txt"
    before = {path: path.stat().st_size for path in folder.glob("*.jsonl")}
    if seconds < 1:
        return TIMED_OUT
    with log.open("ab") as file:
        file.write(f"\n$ {command_line(command)}\n".encode())
        file.flush()
        start = file.tell()
        code = wait_or_kill(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, **environment()), seconds)
    output = trim_log(log, start)
    result, duration = "ok" if code == 0 else f"FAILED {code}", time.perf_counter() - start_time
    print(f"{result:>10} {duration:6.1f} s  {command_line(command)}")
    if code:
        print("\n".join("    " + line for line in output.strip().splitlines()[-12:]))
    for path in folder.glob("*.jsonl"):
        add_commit(path, commit)
        print(*(f"    {line}\n" for line in format_rows(path, before.get(path, 0))), sep="", end="", flush=True)
    return code


def environment() -> dict[str, Any]:
    """Options of `Popen`: these sources, compiled kernels, and a process group of its own."""
    paths = [str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {"TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(paths), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return {"cwd": ROOT, "env": os.environ | variables, "process_group": 0}


def wait_or_kill(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit code; the process group is killed after so many seconds, or when this script ends."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return TIMED_OUT
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def trim_log(log: Path, start: int) -> str:
    """The output of the last command, which is shortened in the log if it is long."""
    data = log.read_bytes()
    if len(data) - start > MAX_LOG_BYTES:
        log.write_bytes(data[: start + MAX_LOG_BYTES // 2] + b"\n[...]\n" + data[-MAX_LOG_BYTES // 2 :])
    return data[start:].decode(errors="replace")


def rows_of(data: bytes) -> list[dict[str, Any]]:
    """The rows of a file, without truncated ones."""
    lines = data.decode(errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def add_commit(path: Path, commit: str | None) -> None:
    """Add the commit to rows without one."""
    rows = rows_of(path.read_bytes())
    rows_without_commit = [row for row in rows if commit and "env" in row and not row["env"]["commit"]]
    for row in rows_without_commit:
        row["env"]["commit"] = commit
    if rows_without_commit:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def format_rows(path: Path, start: int) -> Iterator[str]:
    """The rows of a file from a byte offset on, as text."""
    for row in rows_of(path.read_bytes()[start:]):
        summary = {
            name: row["summary"][name] for name in SUMMARY_FIELDS if row.get("summary", {}).get(name) is not None
        }
        summary |= {value["rung"]: f"{value['ratio']:.2f}x" for value in row.get("ladder", ())}
        title = [str(row.get("config", {}).get(name, "")) for name in ("model", "op", "sizes", "dtype")]
        if "kind" in row:
            parts = (
                f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in summary.items()
            )
            yield " ".join(filter(None, [row["kind"], *title, ", ".join(parts), *row.get("failed", ())]))


def command_line(command: Command) -> str:
    """A command as typed in a shell."""
    return " ".join(map(str, ("python", *command[1:])))


def compress(trace: str, target: str) -> int:
    """Compress a trace; it is dropped if it is too large."""
    data = gzip.compress(Path(trace).read_bytes(), 6)
    print(f"{target}: {len(data)} bytes")
    if len(data) <= MAX_TRACE_BYTES:
        Path(target).write_bytes(data)
    return 0


def max_difference(first: Path, second: Path) -> float:
    """The largest difference of two videos in a byte; 255 if they differ in length or size."""
    import numpy as np

    first_frames, second_frames = (decode_frames(path) for path in (first, second))
    difference = (
        255.0
        if first_frames.shape != second_frames.shape
        else float(np.abs(first_frames - second_frames).max(initial=0))
    )
    print(
        f"{first.name} and {second.name}: {len(first_frames)} and {len(second_frames)} frames, "
        f"differing by at most {difference:g} of 255"
    )
    return difference


def decode_frames(path: Path) -> Any:
    """All frames of a file, (n, H, W, 3)."""
    import av
    import numpy as np

    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]).astype(np.int16)


def compare(first: str, second: str, tolerance: str) -> int:
    """Compare two videos; the exit code is 1 if a byte differs by more than the tolerance."""
    return int(max_difference(Path(first), Path(second)) > float(tolerance))


if __name__ == "__main__":
    sys.exit({"compare": compare, "compress": compress}[sys.argv[1]](*sys.argv[2:]))
