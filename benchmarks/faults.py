"""Fault injection: real processes are killed at random moments and inside every write, a disk is full, and more.

Prints a table and stores it: how many frames that were reported as safe each fault lost, and whether the resumed video
is byte-identical to an uninterrupted one. `python benchmarks/faults.py --kills 50`
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import faulty_process

from pavdm_cli.bench.env import environment

HERE = Path(__file__).parent
FRAMES = 60
VIDEO = ("generate", "a red ball bouncing over the sea at sunset", "--seed", "1", "--threads", "1", "--steps", "6")
WORDS = (*VIDEO, "--warmup", "0", "--scale", "1", "--frames", str(FRAMES))
DISK = 24_000  # bytes of the full disk: enough for some segments only
HEAD = "| fault | times | exit codes | frames lost | byte-identical |\n|---|---|---|---|---|"
COUNT = re.compile(r": (\d+)/\d+ frames")  # reported as safe
STEP = 9  # at which faults in sampling occur


@dataclass(slots=True)
class Row:
    """The results of one kind of fault."""

    fault: str
    times: int = 0
    exit_codes: set[int] = field(default_factory=set)
    lost: int = 0  # frames that had been reported as safe
    identical: int = 0  # videos that are byte-identical to an uninterrupted one
    videos: int = 0


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """The result of a process."""

    code: int
    reported: int  # safe frames, at last
    resumed: int | None  # frame after which it resumed; None: it started over


def run(folder: Path, words: tuple[str, ...], fault: str = "none", number: int = 0, **options: Any) -> ProcessResult:
    """Run `pavdm` with a fault; options: `seconds` until a SIGKILL, others for `Popen`."""
    seconds = options.pop("seconds", None)
    command = [sys.executable, str(HERE / "faulty_process.py"), fault, str(number), *words]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | options
    process = subprocess.Popen(command, cwd=folder, text=True, env=_environment(), **streams)
    try:
        _, output = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        _, output = process.communicate()
    return parse_result(process.returncode, output or "")


def parse_result(code: int, output: str) -> ProcessResult:
    """The result of a process from its exit code and standard error."""
    counts = COUNT.findall(output)
    match = re.search(r"resuming after frame (\d+) of", output)
    return ProcessResult(code, int(counts[-1]) if counts else 0, int(match[1]) if match else None)


def _environment() -> dict[str, str]:
    paths = [str(HERE.parent), str(HERE.parent / "kernels"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def resume(
    folder: Path, row: Row, reported: int, fault: str = "none", number: int = 0, **options: Any
) -> ProcessResult:
    """Resume the video, or start over if nothing was saved, and count lost frames.

    If a process is killed before it prints where it starts, the next one counts.
    """
    has_state, complete = (folder / "v.partial.mp4.state").exists(), (folder / "v.mp4").exists()
    words = ("resume", "v.mp4") if has_state or complete else (*WORDS, "-o", "v.mp4", "--force")
    result = run(folder, words, fault, number, **options)
    if result.resumed is None and has_state and not complete and result.code:
        return replace(result, reported=reported)
    row.lost += max(0, reported - (FRAMES if complete else result.resumed or 0))
    return replace(result, reported=max(result.reported, result.resumed or 0))


def compare(folder: Path, expected_video: Path, row: Row) -> None:
    """Count a complete video, and whether it is identical and alone in its folder."""
    row.videos += 1
    names = [path.name for path in folder.iterdir()]
    row.identical += names == ["v.mp4"] and filecmp.cmp(folder / "v.mp4", expected_video, shallow=False)


def finish(folder: Path, expected_video: Path, row: Row, reported: int) -> None:
    """Resume without a fault, and compare."""
    resume(folder, row, reported)
    compare(folder, expected_video, row)


def random_kills(expected_video: Path, count: int, longest: float) -> Row:
    """SIGKILL at random moments, up to six times per video."""
    row, rng = Row("SIGKILL at a random moment"), random.Random(0)
    while (times_before := row.times) < count:
        with TemporaryFolder() as folder:
            result = run(folder, (*WORDS, "-o", "v.mp4"), seconds=rng.uniform(0.3, 1) * longest)
            for _ in range(5):
                row.times += result.code == -signal.SIGKILL
                row.exit_codes.add(result.code)
                if (folder / "v.mp4").exists():
                    break
                result = resume(folder, row, result.reported, seconds=rng.uniform(0.3, 1) * longest)
            finish(folder, expected_video, row, result.reported)
        if row.times == times_before:  # complete before the kill
            longest *= 0.8
    return row


def kills_inside(expected_video: Path, fault: str, max_calls: int) -> Row:
    """SIGKILL at every call of one kind, each in a video of its own, until a video is complete before the fault."""
    names = {name: f"SIGKILL before os.{name}" for name in faulty_process.KILLS}
    row = Row(names.get(fault, f"SIGKILL after {fault}"))
    for number in range(1, max_calls + 1):
        with TemporaryFolder() as folder:
            result = run(folder, (*WORDS, "-o", "v.mp4"), fault, number)
            if result.code == 0:
                break
            row.times += 1
            row.exit_codes.add(result.code)
            finish(folder, expected_video, row, result.reported)
    return row


def limit_files() -> None:
    """Limit the size of files of this process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, DISK))


def full_disk(expected_video: Path) -> Row:
    """A full tmpfs that then has space again; if it cannot be mounted, a limit on file sizes."""
    row = Row("full disk (tmpfs)")
    with TemporaryFolder() as folder:
        is_mounted = mount(folder, DISK * 8)
        limits = {} if is_mounted else {"preexec_fn": limit_files}
        row.fault = row.fault if is_mounted else "full disk (limit on file sizes)"
        (folder / "ballast").write_bytes(bytes(DISK * 6 if is_mounted else 0))
        result = run(folder, (*WORDS, "-o", "v.mp4"), **limits)
        row.times, row.exit_codes = 1, {result.code}
        (folder / "ballast").unlink()
        if is_mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        finish(folder, expected_video, row, result.reported)
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)
    return row


def mount(folder: Path, size: int) -> bool:
    """Mount a tmpfs of this size; False if that is not permitted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return (
        shutil.which("mount") is not None and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def fault_in_sampling(expected_video: Path, fault: str) -> Row:
    """NaN or an out-of-memory error at one step; then the video is resumed without it."""
    row = Row(fault)
    with TemporaryFolder() as folder:
        result = run(folder, (*WORDS, "-o", "v.mp4"), fault, STEP)
        row.times, row.exit_codes = 1, {result.code}
        finish(folder, expected_video, row, result.reported)
    return row


def removed_folder(expected_video: Path) -> Row:
    """The folder is removed meanwhile; then the video starts over."""
    row = Row("removed folder")
    with TemporaryFolder() as parent:
        folder = parent / "work"
        folder.mkdir()
        result = run(folder, (*WORDS, "-o", "v.mp4"), "removed folder", STEP)
        row.times, row.exit_codes = 1, {result.code}
        folder.mkdir(exist_ok=True)
        run(folder, (*WORDS, "-o", "v.mp4"))
        compare(folder, expected_video, row)
    return row


def closed_pipes(expected_video: Path) -> Row:
    """Standard output and standard error are pipes without a reader."""
    row = Row("closed pipes")
    with TemporaryFolder() as folder:
        read_end, write_end = os.pipe()
        os.close(read_end)
        result = run(folder, (*WORDS, "-o", "v.mp4"), stdout=write_end, stderr=write_end)
        os.close(write_end)
        row.times, row.exit_codes = 1, {result.code}
        compare(folder, expected_video, row)
    return row


def end_by_signal(expected_video: Path, number: signal.Signals) -> Row:
    """A termination signal after a third of the frames are safe."""
    row = Row(number.name)
    with TemporaryFolder() as folder:
        command = [sys.executable, str(HERE / "faulty_process.py"), "none", "0", *WORDS, "-o", "v.mp4"]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=folder, text=True, env=_environment(), **streams) as process:
            counts = (int(match[1]) for line in process.stderr or () if (match := COUNT.search(line)))
            reported = next(count for count in counts if count >= FRAMES // 3)
            process.send_signal(number)
            reported = max([reported, *counts])
        row.times, row.exit_codes = 1, {process.returncode}
        finish(folder, expected_video, row, reported)
    return row


class TemporaryFolder(tempfile.TemporaryDirectory):  # type: ignore[type-arg]
    """A temporary folder, as a path."""

    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


def rows(kills: int, inside: int) -> Iterator[Row]:
    """A row for every kind of fault."""
    with TemporaryFolder() as folder:
        start = time.monotonic()
        run(folder, (*WORDS, "-o", "v.mp4"))
        longest, expected_video = time.monotonic() - start, folder / "v.mp4"
        yield random_kills(expected_video, kills, longest)
        for fault in (*faulty_process.PARTIAL_WRITES, *faulty_process.KILLS):
            yield kills_inside(expected_video, fault, inside)
        for number in (signal.SIGINT, signal.SIGTERM):
            yield end_by_signal(expected_video, number)
        calls: list[Callable[[Path], Row]] = [full_disk, removed_folder, closed_pipes]
        yield from (call(expected_video) for call in calls)
        yield from (fault_in_sampling(expected_video, fault) for fault in ("nan", "out of memory"))


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    codes = ", ".join(map(str, row["exit_codes"]))
    return f"| {row['fault']} | {row['times']} | {codes} | {row['lost']} | {row['identical']} of {row['videos']} |"


def main() -> None:
    """Print a table of all faults and append a row; the exit code is 1 if a frame was lost or a video differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs at random moments")
    parser.add_argument("--inside", type=int, default=100, help="maximum number of SIGKILLs inside each kind of write")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "faults.jsonl")
    args = parser.parse_args()
    fault_rows: list[dict[str, Any]] = []
    print(HEAD)
    for row in rows(args.kills, args.inside):
        fault_rows.append(asdict(row) | {"exit_codes": sorted(row.exit_codes)})
        print(line(fault_rows[-1]), flush=True)
    stored_row = {
        "schema": "pavdm.faults/1",
        **environment(),
        "frames": FRAMES,
        "words": list(WORDS),
        "faults": fault_rows,
    }
    with args.results.open("a") as file:
        file.write(json.dumps(stored_row) + "\n")
    sys.exit(any(row["lost"] or row["identical"] < row["videos"] for row in fault_rows))


if __name__ == "__main__":
    main()
