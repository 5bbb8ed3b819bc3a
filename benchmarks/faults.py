"""Real processes that are killed at random moments and inside every write, a full disk, NaN and the like.

Prints a table and stores it: what each fault lost beyond what was announced as safe, and whether the video that was
resumed has the bytes of one that was never interrupted. `python benchmarks/faults.py --kills 50`
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
DISK = 24_000  # bytes that a full disk holds: some segments, and not all
HEAD = "| fault | times | exit codes | frames lost | byte-identical |\n|---|---|---|---|---|"
COUNT = re.compile(r": (\d+)/\d+ frames")  # what is announced as safe
STEP = 9  # at which sampling fails


@dataclass(slots=True)
class Row:
    """What a kind of fault did."""

    fault: str
    times: int = 0
    exit_codes: set[int] = field(default_factory=set)
    lost: int = 0  # frames that were announced as safe, and were not
    identical: int = 0  # videos with the bytes of an uninterrupted one
    videos: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A process that ended."""

    code: int
    announced: int  # frames, the last time
    resumed: int | None  # frames that it continued after; None: it began


def run(folder: Path, words: tuple[str, ...], fault: str = "none", number: int = 0, **options: Any) -> Attempt:
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
    return attempt_of(process.returncode, output or "")


def attempt_of(code: int, output: str) -> Attempt:
    """What an exit code and standard error say of a process."""
    counts = COUNT.findall(output)
    match = re.search(r"resuming after frame (\d+) of", output)
    return Attempt(code, int(counts[-1]) if counts else 0, int(match[1]) if match else None)


def _environment() -> dict[str, str]:
    paths = [str(HERE.parent), str(HERE.parent / "kernels"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def resume(folder: Path, row: Row, announced: int, fault: str = "none", number: int = 0, **options: Any) -> Attempt:
    """Continue the video, or begin it where nothing was saved, and count what that lost.

    A process that is killed before it says where it begins leaves the count to the next one.
    """
    has_state, complete = (folder / "v.partial.mp4.state").exists(), (folder / "v.mp4").exists()
    words = ("resume", "v.mp4") if has_state or complete else (*WORDS, "-o", "v.mp4", "--force")
    attempt = run(folder, words, fault, number, **options)
    if attempt.resumed is None and has_state and not complete and attempt.code:
        return replace(attempt, announced=announced)
    row.lost += max(0, announced - (FRAMES if complete else attempt.resumed or 0))
    return replace(attempt, announced=max(attempt.announced, attempt.resumed or 0))


def compare(folder: Path, expected_video: Path, row: Row) -> None:
    """Count a video that is complete, alone in its folder and the same."""
    row.videos += 1
    names = [path.name for path in folder.iterdir()]
    row.identical += names == ["v.mp4"] and filecmp.cmp(folder / "v.mp4", expected_video, shallow=False)


def finish(folder: Path, expected_video: Path, row: Row, announced: int) -> None:
    """Resume without a fault, and compare."""
    resume(folder, row, announced)
    compare(folder, expected_video, row)


def random_kills(expected_video: Path, count: int, longest: float) -> Row:
    """SIGKILL at random moments, up to six times a video."""
    row, rng = Row("SIGKILL at a random moment"), random.Random(0)
    while row.times < count:
        with empty_folder() as folder:
            attempt = run(folder, (*WORDS, "-o", "v.mp4"), seconds=rng.uniform(0.3, 1) * longest)
            for _ in range(5):
                row.times += attempt.code == -signal.SIGKILL
                row.exit_codes.add(attempt.code)
                if (folder / "v.mp4").exists():
                    break
                attempt = resume(folder, row, attempt.announced, seconds=rng.uniform(0.3, 1) * longest)
            finish(folder, expected_video, row, attempt.announced)
    return row


def kills_inside(expected_video: Path, fault: str, max_calls: int) -> Row:
    """SIGKILL at every call of one kind, each in a video of its own, until a video is complete before the fault."""
    names = {name: f"SIGKILL before os.{name}" for name in faulty_process.KILLS}
    row = Row(names.get(fault, f"SIGKILL after {fault}"))
    for number in range(1, max_calls + 1):
        with empty_folder() as folder:
            attempt = run(folder, (*WORDS, "-o", "v.mp4"), fault, number)
            if attempt.code == 0:
                break
            row.times += 1
            row.exit_codes.add(attempt.code)
            finish(folder, expected_video, row, attempt.announced)
    return row


def limit_files() -> None:
    """No file of this process may be longer."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, DISK))


def full_disk(expected_video: Path) -> Row:
    """A tmpfs that fills, and room again; where none may be mounted, a limit on the length of files."""
    row = Row("full disk (tmpfs)")
    with empty_folder() as folder:
        is_mounted = mount(folder, DISK * 8)
        limits = {} if is_mounted else {"preexec_fn": limit_files}
        row.fault = row.fault if is_mounted else "full disk (limit on file sizes)"
        (folder / "ballast").write_bytes(bytes(DISK * 6 if is_mounted else 0))
        attempt = run(folder, (*WORDS, "-o", "v.mp4"), **limits)
        row.times, row.exit_codes = 1, {attempt.code}
        (folder / "ballast").unlink()
        if is_mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        finish(folder, expected_video, row, attempt.announced)
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)
    return row


def mount(folder: Path, size: int) -> bool:
    """Mount a tmpfs of so many bytes; False where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return (
        shutil.which("mount") is not None and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def fault_in_sampling(expected_video: Path, fault: str) -> Row:
    """NaN, or a lack of memory, at one step; the same video without it afterwards."""
    row = Row(fault)
    with empty_folder() as folder:
        attempt = run(folder, (*WORDS, "-o", "v.mp4"), fault, STEP)
        row.times, row.exit_codes = 1, {attempt.code}
        finish(folder, expected_video, row, attempt.announced)
    return row


def removed_folder(expected_video: Path) -> Row:
    """The folder is removed in the middle: nothing can be left, and the error is one line."""
    row = Row("removed folder")
    with empty_folder() as parent:
        folder = parent / "work"
        folder.mkdir()
        attempt = run(folder, (*WORDS, "-o", "v.mp4"), "removed folder", STEP)
        row.times, row.exit_codes = 1, {attempt.code}
        folder.mkdir(exist_ok=True)
        run(folder, (*WORDS, "-o", "v.mp4"))
        compare(folder, expected_video, row)
    return row


def dead_pipes(expected_video: Path) -> Row:
    """Nobody reads standard output and standard error."""
    row = Row("dead pipes")
    with empty_folder() as folder:
        read_end, write_end = os.pipe()
        os.close(read_end)
        attempt = run(folder, (*WORDS, "-o", "v.mp4"), stdout=write_end, stderr=write_end)
        os.close(write_end)
        row.times, row.exit_codes = 1, {attempt.code}
        compare(folder, expected_video, row)
    return row


def end_by_signal(expected_video: Path, number: signal.Signals) -> Row:
    """A signal that asks for an end, when a third of the frames are safe."""
    row = Row(number.name)
    with empty_folder() as folder:
        command = [sys.executable, str(HERE / "faulty_process.py"), "none", "0", *WORDS, "-o", "v.mp4"]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=folder, text=True, env=_environment(), **streams) as process:
            counts = (int(match[1]) for line in process.stderr or () if (match := COUNT.search(line)))
            announced = next(count for count in counts if count >= FRAMES // 3)
            process.send_signal(number)
            announced = max([announced, *counts])
        row.times, row.exit_codes = 1, {process.returncode}
        finish(folder, expected_video, row, announced)
    return row


class empty_folder(tempfile.TemporaryDirectory):  # type: ignore[type-arg]
    """A temporary folder, as a path."""

    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


def rows(kills: int, inside: int) -> Iterator[Row]:
    """All kinds of faults."""
    with empty_folder() as folder:
        start = time.monotonic()
        run(folder, (*WORDS, "-o", "v.mp4"))
        longest, expected_video = time.monotonic() - start, folder / "v.mp4"
        yield random_kills(expected_video, kills, longest)
        for fault in (*faulty_process.HALVES, *faulty_process.KILLS):
            yield kills_inside(expected_video, fault, inside)
        for number in (signal.SIGINT, signal.SIGTERM):
            yield end_by_signal(expected_video, number)
        calls: list[Callable[[Path], Row]] = [full_disk, removed_folder, dead_pipes]
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
    parser.add_argument("--inside", type=int, default=100, help="the most SIGKILLs inside each kind of write")
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
