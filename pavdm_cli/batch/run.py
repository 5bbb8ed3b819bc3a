"""Requests to videos in a folder, from a program: the queue and one worker, without a command line."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pavdm_cli.batch.job import Job, file_name
from pavdm_cli.batch.queue import Queue, open_queue
from pavdm_cli.batch.store import FileStore
from pavdm_cli.batch.worker import Listener, share_threads, work
from pavdm_cli.errors import PavdmError, UsageError
from pavdm_cli.generation.request import Request
from pavdm_cli.runtime.signals import Stop, stop_requested


def run_jobs(requests: list[Request], folder: Path) -> list[Path]:
    """The paths of the videos, in order. Raises: UsageError, OutputError, PavdmError, KeyboardInterrupt."""
    jobs = [
        Job(file_name(number, request.prompt, request.seed), f"job {number}", request)
        for number, request in enumerate(requests, 1)
    ]
    queue = open_queue(FileStore(folder))
    try:
        for job, reason in queue.conflicts(jobs):
            raise UsageError(f"{job.location}: {reason}", "choose another folder")
        queue.add_all(jobs)
        with _stop() as stop:
            work(queue, jobs, stop, Listener(), lambda job: share_threads(job, queue.workers()))
        if stop():
            raise KeyboardInterrupt
        _check_all(queue, jobs)
    finally:
        queue.close()
    return [folder / job.name for job in jobs]


def _stop() -> AbstractContextManager[Stop]:
    """Signals are noted in the main thread, which alone may handle them."""
    is_main = threading.current_thread() is threading.main_thread()
    return stop_requested(interruptible=False) if is_main else nullcontext(Stop(interruptible=False))


def _check_all(queue: Queue, jobs: list[Job]) -> None:
    """Raises: PavdmError if a job failed."""
    last = {job.name: queue.status(job.name) for job in jobs}
    errors = [
        f"{name}: {status.attempt.error}"
        for name, status in last.items()
        if status.state == "failed" and status.attempt
    ]
    if errors:
        raise PavdmError(f"{len(errors)} of {len(jobs)} jobs failed: {errors[0]}", "call it again to try them again")
