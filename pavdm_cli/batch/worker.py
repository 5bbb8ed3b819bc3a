"""A worker: it claims one job after the other and renders it, until all are done or it is told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pavdm_cli.batch.job import Job
from pavdm_cli.batch.queue import Attempt, JobStatus, Queue
from pavdm_cli.batch.render import ModelCache, render
from pavdm_cli.batch.store import VideoLocation
from pavdm_cli.generation.checkpoint_writer import SavedFiles
from pavdm_cli.generation.write import RunControl, WriteResult
from pavdm_cli.models.devices import pick_device
from pavdm_cli.runtime.diagnose import diagnose, find_interrupt
from pavdm_cli.runtime.signals import Stop
from pavdm_cli.runtime.threads import share_cores

RENEWAL_PERIOD = 2.0  # seconds between renewals of an attempt
IMMEDIATE_UPDATES = 2  # resumed frames and the first new ones are stored immediately, in case the process dies early


@dataclass(frozen=True, slots=True)
class Listener:
    """Callbacks that report the progress of workers."""

    on_status: Callable[[Job, JobStatus], None] = lambda job, status: None  # of a job, whichever process renders it
    on_progress: Callable[[Job, int], None] = lambda job, frames: None  # frames that a crash cannot lose
    on_failed: Callable[[Job, Attempt], None] = lambda job, attempt: None
    on_note: Callable[[str], None] = lambda text: None


@dataclass(slots=True)
class Heartbeat:
    """Renews an attempt in the background; `lost` once another process has taken the job over."""

    queue: Queue
    job: Job
    attempt: Attempt
    lost: bool = False
    _num_updates: int = 0
    _wake: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, the attempt is renewed."""
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._wake.set()
            thread.join()

    def _beat(self) -> None:
        while True:
            self._wake.wait(RENEWAL_PERIOD)
            self._wake.clear()
            if self._stop.is_set():
                return
            self.renew()

    def add_frames(self, frames: int) -> None:
        """Count frames that a crash cannot lose."""
        self.attempt = replace(self.attempt, frames=self.attempt.frames + frames)
        self._num_updates += 1
        if self._num_updates <= IMMEDIATE_UPDATES:
            self._wake.set()

    def is_lost(self) -> bool:
        """Look whether another process has taken the job over. Raises: OSError."""
        self.lost = self.lost or self.queue.is_superseded(self.job.name, self.attempt)
        return self.lost

    def renew(self) -> None:
        """Store the attempt, unless it is no longer this process's."""
        with suppress(OSError):  # a full disk stops the video itself
            self.lost = self.lost or not self.queue.renew(self.job.name, self.attempt)


def work(queue: Queue, jobs: Sequence[Job], stop: Stop, listener: Listener, threads: Callable[[Job], int]) -> None:
    """Render the jobs that no other process does, until all are done or have failed, or `stop` is true.

    threads: for a job that does not set them; 0: torch's default.
    """
    models, settled_names = ModelCache(), set[str]()
    while not stop():
        if job_and_attempt := claim(queue, jobs, models, settled_names, listener, threads):
            perform(queue, *job_and_attempt, models, stop, listener)
        elif len(settled_names) == len(jobs):
            return
        else:
            time.sleep(queue.store.poll)  # until the processes that have the rest are done, or dead


def claim(
    queue: Queue,
    jobs: Sequence[Job],
    models: ModelCache,
    settled_names: set[str],
    listener: Listener,
    threads: Callable[[Job], int],
) -> tuple[Job, Attempt] | None:
    """A job that now belongs to this process: one for the loaded model, else any, else one that failed before."""
    remaining: list[tuple[Job, JobStatus]] = []
    for job in (job for job in jobs if job.name not in settled_names):
        status = queue.status(job.name)
        listener.on_status(job, status)
        if status.state in ("done", "failed"):
            settled_names.add(job.name)
        elif status.state == "queued":
            if not status.failures and models.fits(job.request):
                if attempt := queue.claim(job.name, status, threads_of(job, status, threads)):
                    return job, attempt
            else:
                remaining.append((job, status))
    for job, status in sorted(remaining, key=lambda entry: entry[1].failures):
        if attempt := queue.claim(job.name, status, threads_of(job, status, threads)):
            return job, attempt
    return None


def threads_of(job: Job, status: JobStatus, threads: Callable[[Job], int]) -> int:
    """A job's own number of threads, else that of the attempt before: it changes the last bits of a video."""
    previous = status.attempt.threads if status.attempt else 0
    return job.request.execution.threads or previous or threads(job)


def share_threads(job: Job, workers: int) -> int:
    """CPU threads for a job next to other workers on the same cores; 0 on a GPU: torch's default."""
    return share_cores(workers) if pick_device(job.request.execution.device).type == "cpu" else 0


def perform(queue: Queue, job: Job, attempt: Attempt, models: ModelCache, stop: Stop, listener: Listener) -> None:
    """Render a job that belongs to this process, and store how that ended."""
    heartbeat, start_time = Heartbeat(queue, job, attempt), time.monotonic()

    def count(frames: int) -> None:
        heartbeat.add_frames(frames)
        listener.on_progress(job, heartbeat.attempt.frames)

    control = RunControl(count, lambda: stop() or heartbeat.lost, stop.interruptible)
    changes: dict[str, Any] = {}
    try:
        with heartbeat.running(), queue.store.open_video(job.name, attempt.number, queue.force) as video:
            result = _render(heartbeat, video, models, control)
        changes = {"state": "done", "frames": result.frames} if result.is_complete else {"state": "stopped"}
    except Exception as error:
        if interrupt := find_interrupt(error):
            raise interrupt from None
        problem = diagnose(error)
        models.loaded = None  # which the failure may have left in any state
        changes = {"state": "failed", "error": problem.as_line()[:1000]}
    seconds = round(time.monotonic() - start_time, 3)
    heartbeat.attempt = replace(heartbeat.attempt, seconds=seconds, **changes)
    heartbeat.renew()
    if heartbeat.attempt.state == "failed":
        listener.on_failed(job, heartbeat.attempt)


def _render(heartbeat: Heartbeat, video: VideoLocation, models: ModelCache, control: RunControl) -> WriteResult:
    """Render an attempt's video, and store its state after every chunk, while the job is this process's.

    Raises: PavdmError.
    """

    def store(files: SavedFiles) -> None:
        if video.on_saved and not heartbeat.is_lost():
            video.on_saved(files)

    request = heartbeat.job.request
    execution = replace(request.execution, threads=heartbeat.attempt.threads)
    request = replace(request, execution=execution, output=replace(request.output, path=video.path))
    result = render(request, models, replace(control, on_saved=store if video.on_saved else None))
    if result.is_complete and not heartbeat.is_lost():
        video.publish(request.output.keep_state)
    return result
