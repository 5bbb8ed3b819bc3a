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
from pavdm_cli.batch.render import Models, render
from pavdm_cli.generation.write import RunControl
from pavdm_cli.runtime.diagnose import diagnose, find_interrupt
from pavdm_cli.runtime.signals import Stop

PULSE = 2.0  # seconds between renewals of an attempt
POLL = 1.0  # seconds between looks at jobs that other workers have


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told what workers do."""

    seen: Callable[[Job, JobStatus], None] = lambda job, standing: None  # where a job stands, in whichever process
    progress: Callable[[Job, int], None] = lambda job, frames: None  # frames of this worker's job that are safe
    failed: Callable[[Job, Attempt], None] = lambda job, attempt: None


@dataclass(slots=True)
class Pulse:
    """Renews an attempt in the background; `lost` once another process has taken the job over."""

    queue: Queue
    job: Job
    attempt: Attempt
    lost: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Inside, the attempt is renewed."""
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(PULSE):
            self.renew()

    def renew(self) -> None:
        """Store the attempt, unless it is no longer this process's."""
        with suppress(OSError):  # a full disk stops the video itself
            self.lost = self.lost or not self.queue.renew(self.job.name, self.attempt)


def work(queue: Queue, jobs: Sequence[Job], stop: Stop, listener: Listener, threads: Callable[[], int]) -> None:
    """Render the jobs that no other process does, until all are done or have failed, or `stop` is true.

    threads: for the next video, where its request leaves that open; 0 leaves it to torch.
    """
    models, settled = Models(), set[str]()
    while not stop():
        if claimed := claim(queue, jobs, models, settled, listener, threads):
            perform(queue, *claimed, models, stop, listener)
        elif len(settled) == len(jobs):
            return
        else:
            time.sleep(POLL)  # until the processes that have the rest are done, or dead


def claim(
    queue: Queue,
    jobs: Sequence[Job],
    models: Models,
    settled: set[str],
    listener: Listener,
    threads: Callable[[], int],
) -> tuple[Job, Attempt] | None:
    """A job that now belongs to this process: one for the loaded model, else any, else one that failed before."""
    others: list[tuple[Job, JobStatus]] = []
    for job in (job for job in jobs if job.name not in settled):
        standing = queue.standing(job.name)
        listener.seen(job, standing)
        if standing.kind in ("done", "failed"):
            settled.add(job.name)
        elif standing.kind == "queued":
            if not standing.tries and models.fits(job.request):
                if attempt := queue.claim(job.name, standing, threads_of(job, standing, threads)):
                    return job, attempt
            else:
                others.append((job, standing))
    for job, standing in sorted(others, key=lambda other: other[1].tries):
        if attempt := queue.claim(job.name, standing, threads_of(job, standing, threads)):
            return job, attempt
    return None


def threads_of(job: Job, standing: JobStatus, threads: Callable[[], int]) -> int:
    """A job's own number of threads, else that of the attempt before: it changes the last bits of a video."""
    before = standing.attempt.threads if standing.attempt else 0
    return job.request.execution.threads or before or threads()


def perform(queue: Queue, job: Job, attempt: Attempt, models: Models, stop: Stop, listener: Listener) -> None:
    """Render a job that belongs to this process, and store how that ended."""
    pulse, begun = Pulse(queue, job, attempt), time.monotonic()

    def count(frames: int) -> None:
        pulse.attempt = replace(pulse.attempt, frames=pulse.attempt.frames + frames)
        listener.progress(job, pulse.attempt.frames)

    execution = replace(job.request.execution, threads=attempt.threads)
    watch = RunControl(count, lambda: stop() or pulse.lost, stop.interruptible)
    changes: dict[str, Any] = {}
    try:
        with pulse.beating():
            result = render(replace(job.request, execution=execution), models, watch)
        changes = {"state": "done", "frames": result.frames} if result.is_complete else {"state": "stopped"}
    except Exception as error:
        if interrupt := find_interrupt(error):
            raise interrupt from None
        problem = diagnose(error)
        models.loaded = None  # which the failure may have left in any state
        changes = {"state": "failed", "error": f"{problem.message}; {problem.hint}".removesuffix("; ")[:1000]}
    seconds = round(time.monotonic() - begun, 3)
    pulse.attempt = replace(pulse.attempt, seconds=seconds, **changes)
    pulse.renew()
    if pulse.attempt.state == "failed":
        listener.failed(job, pulse.attempt)
