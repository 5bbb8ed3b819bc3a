"""One progress view for all jobs of a batch, whichever processes render them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from pavdm_cli import ui
from pavdm_cli.batch.job import Job

if TYPE_CHECKING:
    from pavdm_cli.batch.queue import Attempt, JobStatus
    from pavdm_cli.batch.worker import Listener


class BatchProgress:
    """Frames of all jobs on one bar."""

    def __init__(self, jobs: Sequence[Job], bar: ui.Advance) -> None:
        self.total, self.bar = len(jobs), bar
        self.frames: dict[str, int] = {}
        self.done: set[str] = set()
        self.taken_over: set[str] = set()

    def on_status(self, job: Job, status: JobStatus) -> None:
        """Update a job's progress, whichever process renders it."""
        if status.state == "done":
            self.done.add(job.name)
            self.update(job, job.frames)
        elif status.attempt:
            self.update(job, status.attempt.frames)
            self._note_takeover(job, status)

    def _note_takeover(self, job: Job, status: JobStatus) -> None:
        """Note once that the job of a dead process is being taken over."""
        if status.state == "queued" and status.attempt and status.attempt.state == "running":
            if job.name not in self.taken_over:
                ui.info(f"{job.name}: its process died; another one continues after frame {status.attempt.frames}")
            self.taken_over.add(job.name)

    def update(self, job: Job, frames: int) -> None:
        """Set a job's frame count. The bar never moves back when a job restarts."""
        new = min(frames, job.frames) - self.frames.get(job.name, 0)
        if new > 0:
            self.frames[job.name] = self.frames.get(job.name, 0) + new
            self.bar(new, f"{job.name}, {len(self.done)} of {self.total} done")

    def on_failed(self, job: Job, attempt: Attempt) -> None:
        """Report a failure immediately."""
        ui.note(f"{job.name} failed: {attempt.error}")


@contextmanager
def batch_progress(jobs: Sequence[Job], is_enabled: bool) -> Iterator[Listener]:
    """A listener that shows progress; only one of several processes on a terminal shows it."""
    from pavdm_cli.batch.worker import Listener

    with ui.progress("batch", sum(job.frames for job in jobs)) if is_enabled else nullcontext(ui.no_progress) as bar:
        jobs_view = BatchProgress(jobs, bar)
        yield Listener(jobs_view.on_status, jobs_view.update, jobs_view.on_failed, ui.note)
