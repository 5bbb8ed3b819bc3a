"""The queue of a batch: jobs, and attempts at them, as JSON files in the store of their videos.

Plain files rather than SQLite: network file systems and object stores offer exclusive creation and atomic
replacement, but not SQLite's locks. `jobs/NAME.json` is what to make; `attempts/NAME.N.json` is the N-th attempt at it,
which belongs to the process that created the file and is renewed while that process lives. The last attempt is what
counts: its number is a fencing token, and a process that sees a higher one than its own stops.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any, Literal

from pavdm_cli.batch.job import Job, differences, is_same, to_json
from pavdm_cli.batch.owner import Owner, this_process
from pavdm_cli.batch.store import Store
from pavdm_cli.errors import OutputError
from pavdm_cli.runtime.untrusted import InvalidError, integer, mismatches, number, one_of, parse_json, string

JOBS, ATTEMPTS, WORKERS = FOLDERS = (".queue/jobs", ".queue/attempts", ".queue/workers")
LEASE = 120.0  # seconds after which an attempt on another machine that was not renewed is taken over
MAX_FAILURES = 2  # of a job in one run, after which it is given up
JobState = Literal["queued", "running", "done", "failed"]
COUNT = integer(0, 10**9)
OWNER_KINDS = {"machine": string(1000), "pid": COUNT, "started": number(0, 1e12)}
UNKNOWN = Owner("", 0, 0.0)  # of an attempt whose file is not complete yet
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

    state: JobState
    attempt: Attempt | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue in a store, as one process sees it."""

    store: Store
    owner: Owner
    heartbeat: str  # a file of this process, by which it tells the time of the store
    start_time: float  # by the clock of the store
    force: bool = False  # videos rendered before this process started are rendered again

    def conflict(self, job: Job) -> str:
        """Why a job cannot be added: a video or a job of that name is there already; empty if it can."""
        stored_job = self._read(_job_file(job))
        if self.force or (stored_job is not None and is_same(stored_job, job)):
            return ""
        if stored_job is not None:
            changes = differences(stored_job, job) if isinstance(stored_job, dict) else ["the stored job is damaged"]
            return f"{self.store.location('')} already has a different job named {job.name}: {'; '.join(changes[:3])}"
        location = self.store.location(job.name)
        if self.store.exists(job.name):
            return f"{location} exists and belongs to no job of this folder"
        return f"an interrupted run left parts of {location}" if self.store.has_parts(job.name) else ""

    def conflicts(self, jobs: Iterable[Job]) -> list[tuple[Job, str]]:
        """The jobs that cannot be added, each with the reason."""
        return [(job, reason) for job in jobs if (reason := self.conflict(job))]

    def add_all(self, jobs: Iterable[Job]) -> None:
        """Store jobs. Raises: OutputError."""
        try:
            for job in jobs:
                self.add(job)
        except OSError as error:
            raise _write_error(self.store, error) from None

    def add(self, job: Job) -> None:
        """Store a job, unless the same one is there; what was rendered of another one is discarded. Raises: OSError."""
        stored_job = self._read(_job_file(job))
        if stored_job is not None and is_same(stored_job, job):
            return
        self.store.discard(job.name)
        self.store.replace(_job_file(job), json.dumps(to_json(job)).encode())

    def status(self, name: str, last_dead_attempt: int = 0) -> JobStatus:
        """Where a job stands now; attempts up to the number `last_dead_attempt` are known to have ended."""
        attempts, now = list(self._history(name)), self.store.touch(self.heartbeat)
        if not attempts:
            return JobStatus("queued")
        (last, write_time), failures = attempts[-1], self._count_failures(attempts, now, last_dead_attempt)
        if last.state == "done" and self.store.exists(name) and not (self.force and write_time < self.start_time):
            return JobStatus("done", last, failures)
        if last.state == "running" and last.number > last_dead_attempt and _is_alive(last, now - write_time):
            return JobStatus("running", last, failures)
        has_ended = last.state in ("failed", "running")
        return JobStatus("failed" if has_ended and failures >= MAX_FAILURES else "queued", last, failures)

    def claim(self, name: str, status: JobStatus, threads: int) -> Attempt | None:
        """Begin an attempt at a job; None if another process was first."""
        before = status.attempt
        attempt = Attempt(before.number + 1 if before else 1, self.owner, threads=threads)
        return attempt if self.store.create(_attempt_file(name, attempt.number), _encode(attempt)) else None

    def renew(self, name: str, attempt: Attempt) -> bool:
        """Show that an attempt continues; False if another process has taken the job over."""
        if self.is_superseded(name, attempt):
            return False
        self.store.replace(_attempt_file(name, attempt.number), _encode(attempt))
        return True

    def withdraw(self, name: str) -> bool:
        """Let the process that has a job stop after its chunk; False if none has it."""
        status = self.status(name)
        if status.state != "running" or status.attempt is None:
            return False
        if attempt := self.claim(name, status, status.attempt.threads):
            self.renew(name, replace(status.attempt, number=attempt.number, owner=self.owner, state="stopped"))
        return True

    def is_superseded(self, name: str, attempt: Attempt) -> bool:
        """Whether another process has taken the job over, or claimed it as well, in a store that lets both succeed."""
        if self.store.exists(_attempt_file(name, attempt.number + 1)):
            return True
        owner = _attempt(self._read(_attempt_file(name, attempt.number)), attempt.number).owner
        return owner not in (attempt.owner, UNKNOWN)

    def workers(self) -> int:
        """Processes that work in this folder on the cores of this one, itself included."""
        owners = [_owner(self._read(f"{WORKERS}/{name}")) for name in self.store.names(WORKERS)]
        return max(1, sum(owner is not None and owner.shares_cores() for owner in owners))

    def close(self) -> None:
        """Leave the folder."""
        with suppress(OSError):
            self.store.remove(self.heartbeat)

    def _history(self, name: str) -> Iterator[tuple[Attempt, float]]:
        """All attempts at a job, each with the time when it was last written."""
        for attempt in count(1):
            file = _attempt_file(name, attempt)
            try:
                write_time = self.store.modified_time(file)
            except FileNotFoundError:
                return
            yield _attempt(self._read(file), attempt), write_time

    def _count_failures(self, attempts: list[tuple[Attempt, float]], now: float, last_dead_attempt: int) -> int:
        """Attempts since this process began that failed, or died without more frames than the one before."""
        before, failures = 0, 0
        for attempt, write_time in attempts:
            has_ended = (
                attempt.number <= last_dead_attempt
                or attempt != attempts[-1][0]
                or not _is_alive(attempt, now - write_time)
            )
            has_died = attempt.state == "running" and has_ended
            is_failure = attempt.state == "failed" or (has_died and attempt.frames <= before)
            failures += is_failure and write_time >= self.start_time
            before = max(before, attempt.frames)
        return failures

    def _read(self, name: str) -> Any:
        """A JSON file; None if it is missing or incomplete."""
        try:
            return parse_json(self.store.read(name).decode())
        except (OSError, ValueError, InvalidError):
            return None


def open_queue(store: Store, force: bool = False) -> Queue:
    """The queue of a store, which is created. Raises: OutputError."""
    owner, heartbeat = this_process(), f"{WORKERS}/{uuid.uuid4().hex}.json"
    try:
        store.prepare(FOLDERS)
        store.replace(heartbeat, json.dumps(asdict(owner)).encode())
        return Queue(store, owner, heartbeat, store.touch(heartbeat), force)
    except OSError as error:
        raise _write_error(store, error) from None


def _write_error(store: Store, error: OSError) -> OutputError:
    return OutputError(f"cannot write in {store.location('')}: {error.strerror or error}", store.access_hint)


def _is_alive(attempt: Attempt, age: float) -> bool:
    """Whether the process of an attempt is alive: known on its own machine, elsewhere assumed for LEASE seconds."""
    is_running = attempt.owner.is_running()
    return age < LEASE if is_running is None else is_running


def _job_file(job: Job) -> str:
    return f"{JOBS}/{job.name}.json"


def _attempt_file(name: str, number: int) -> str:
    return f"{ATTEMPTS}/{name}.{number}.json"


def _attempt(fields: Any, number: int) -> Attempt:
    """An attempt; one whose file is not complete yet is running, on a machine that is not known."""
    owner = _owner(fields.get("owner")) if isinstance(fields, dict) else None
    if owner is None or mismatches(fields, KINDS, KINDS):
        return Attempt(number, UNKNOWN)
    return Attempt(number, owner, **{name: fields[name] for name in KINDS})


def _owner(fields: Any) -> Owner | None:
    if not isinstance(fields, dict) or mismatches(fields, OWNER_KINDS, OWNER_KINDS):
        return None
    return Owner(**{name: fields[name] for name in OWNER_KINDS})


def _encode(attempt: Attempt) -> bytes:
    return json.dumps(asdict(attempt)).encode()
