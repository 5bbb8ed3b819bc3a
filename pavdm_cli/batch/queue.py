"""The queue of a batch: jobs, and attempts at them, as JSON files in the folder of their videos.

Files, since a network file system creates a file for exactly one process and replaces one atomically, but does not
keep SQLite's locks. `jobs/NAME.json` is what to make; `attempts/NAME.N.json` is the N-th attempt at it, which belongs
to the process that created the file and is renewed while that process lives. The last attempt is what counts: its
number is a fencing token, and a process that sees a higher one than its own stops.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pavdm_cli.batch.job import Job, differences, is_same, to_json
from pavdm_cli.batch.owner import Owner, this_process
from pavdm_cli.errors import OutputError
from pavdm_cli.runtime.untrusted import InvalidError, integer, mismatches, number, one_of, read_json, string
from pavdm_cli.video.write.output import checkpoint_path, latents_path, partial_path

FOLDER = ".queue"
LEASE = 120.0  # seconds after which an attempt on another machine that was not renewed is taken over
TRIES = 2  # of a job in one run
Kind = Literal["queued", "running", "done", "failed"]
COUNT = integer(0, 10**9)
OWNER_KINDS = {"machine": string(1000), "pid": COUNT, "started": number(0, 1e12)}
KINDS = {
    "state": one_of("running", "stopped", "done", "failed"),
    "threads": COUNT,
    "frames": COUNT,
    "seconds": number(0, 1e12),
    "error": string(10_000),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One process's work on a job."""

    number: int
    owner: Owner
    state: Literal["running", "stopped", "done", "failed"] = "running"
    threads: int = 0  # of torch, on a CPU
    frames: int = 0  # that no crash can lose
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job stands: its last attempt, and how many failed since this process began."""

    kind: Kind
    attempt: Attempt | None = None
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue in a folder, as one process sees it."""

    folder: Path
    owner: Owner
    heartbeat: Path  # a file of this process, by which it tells the time of the file system
    start_time: float  # by the clock of the file system
    force: bool = False  # videos made before this process began are made again

    def conflict(self, job: Job) -> str:
        """Why a job cannot be added: a video or a job of that name is there already; empty if it can."""
        stored = _read(self._job_path(job))
        if self.force or (stored is not None and is_same(stored, job)):
            return ""
        if stored is not None:
            changes = differences(stored, job) if isinstance(stored, dict) else ["the stored job is damaged"]
            return f"{self.folder} has another job of the name {job.name}: {'; '.join(changes[:3])}"
        exists = os.path.lexists(self.folder / job.name)
        return f"{self.folder / job.name} exists, and is from no job of this folder" if exists else ""

    def conflicts(self, jobs: Iterable[Job]) -> list[tuple[Job, str]]:
        """The jobs that cannot be added, each with the reason."""
        return [(job, reason) for job in jobs if (reason := self.conflict(job))]

    def add_all(self, jobs: Iterable[Job]) -> None:
        """Store jobs. Raises: OutputError."""
        try:
            for job in jobs:
                self.add(job)
        except OSError as error:
            raise _write_error(self.folder, error) from None

    def add(self, job: Job) -> None:
        """Store a job, unless the same one is there; what was begun of another one is discarded. Raises: OSError."""
        stored = _read(self._job_path(job))
        if stored is not None and is_same(stored, job):
            return
        partial = partial_path(self.folder / job.name)
        for path in (partial, checkpoint_path(partial), latents_path(partial)):
            path.unlink(missing_ok=True)
        _replace(self._job_path(job), json.dumps(to_json(job)))

    def status(self, name: str) -> JobStatus:
        """Where a job stands now."""
        attempts, now = list(self._history(name)), _touch(self.heartbeat)
        if not attempts:
            return JobStatus("queued")
        (last, written), tries = attempts[-1], self._count_failures(attempts, now)
        if last.state == "done" and (self.folder / name).exists() and not (self.force and written < self.start_time):
            return JobStatus("done", last, tries)
        if last.state == "running" and _is_alive(last, now - written):
            return JobStatus("running", last, tries)
        ended = last.state in ("failed", "running")
        return JobStatus("failed" if ended and tries >= TRIES else "queued", last, tries)

    def claim(self, name: str, status: JobStatus, threads: int) -> Attempt | None:
        """Begin an attempt at a job; None if another process was first."""
        before = status.attempt
        attempt = Attempt(before.number + 1 if before else 1, self.owner, threads=threads)
        try:
            with self._path(name, attempt.number).open("x", encoding="utf-8") as file:
                file.write(_text(attempt))
        except FileExistsError:
            return None
        return attempt

    def renew(self, name: str, attempt: Attempt) -> bool:
        """Show that an attempt continues; False if another process has taken the job over."""
        if self._path(name, attempt.number + 1).exists():
            return False
        _replace(self._path(name, attempt.number), _text(attempt))
        return True

    def workers(self) -> int:
        """Processes that work in this folder on the cores of this one, itself included."""
        owners = [_owner(_read(path)) for path in (self._root / "workers").glob("*.json")]
        return max(1, sum(owner is not None and owner.shares_cores() for owner in owners))

    def close(self) -> None:
        """Leave the folder."""
        with suppress(OSError):
            self.heartbeat.unlink()

    def _history(self, name: str) -> Iterator[tuple[Attempt, float]]:
        """All attempts at a job, each with the time when it was last written."""
        for attempt in count(1):
            path = self._path(name, attempt)
            try:
                written = path.stat().st_mtime
            except OSError:
                return
            yield _attempt(_read(path), attempt), written

    def _count_failures(self, attempts: list[tuple[Attempt, float]], now: float) -> int:
        """Attempts since this process began that failed, or died without a frame more than the one before."""
        before, failures = 0, 0
        for attempt, written in attempts:
            died = attempt.state == "running" and (attempt != attempts[-1][0] or not _is_alive(attempt, now - written))
            is_failure = attempt.state == "failed" or (died and attempt.frames <= before)
            failures += is_failure and written >= self.start_time
            before = attempt.frames
        return failures

    @property
    def _root(self) -> Path:
        return self.folder / FOLDER

    def _job_path(self, job: Job) -> Path:
        return self._root / "jobs" / f"{job.name}.json"

    def _path(self, name: str, number: int) -> Path:
        return self._root / "attempts" / f"{name}.{number}.json"


def open_queue(folder: Path, force: bool = False) -> Queue:
    """The queue of a folder, which is created. Raises: OutputError."""
    owner, root = this_process(), folder / FOLDER
    try:
        for name in ("jobs", "attempts", "workers"):
            (root / name).mkdir(parents=True, exist_ok=True)
        heartbeat = root / "workers" / f"{uuid.uuid4().hex}.json"
        heartbeat.write_text(json.dumps(asdict(owner)), encoding="utf-8")
        return Queue(folder, owner, heartbeat, _touch(heartbeat), force)
    except OSError as error:
        raise _write_error(folder, error) from None


def _write_error(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write in {folder}: {error.strerror}", "choose another folder")


def _is_alive(attempt: Attempt, age: float) -> bool:
    """Whether the process of an attempt is alive: known on its own machine, elsewhere assumed for LEASE seconds."""
    is_running = attempt.owner.is_running()
    return age < LEASE if is_running is None else is_running


def _touch(path: Path) -> float:
    """The time by the clock that dates the folder's files, which may be a server's."""
    with suppress(OSError):
        os.utime(path)
    return path.stat().st_mtime


def _read(path: Path) -> Any:
    """A JSON file; None where there is none, or none that is whole."""
    try:
        return read_json(path)
    except (OSError, InvalidError):
        return None


def _attempt(fields: Any, number: int) -> Attempt:
    """An attempt; one whose file is not whole yet is running, on a machine that is not known."""
    owner = _owner(fields.get("owner")) if isinstance(fields, dict) else None
    if owner is None or mismatches(fields, KINDS, KINDS):
        return Attempt(number, Owner("", 0, 0.0))
    return Attempt(number, owner, **{name: fields[name] for name in KINDS})


def _owner(fields: Any) -> Owner | None:
    if not isinstance(fields, dict) or mismatches(fields, OWNER_KINDS, OWNER_KINDS):
        return None
    return Owner(**{name: fields[name] for name in OWNER_KINDS})


def _text(attempt: Attempt) -> str:
    return json.dumps(asdict(attempt))


def _replace(path: Path, text: str) -> None:
    """Write a file, or replace it: others see the old one or the new one, whole. Raises: OSError."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
