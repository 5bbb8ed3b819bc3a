"""One job on a node of a cluster, in a process that a scheduler starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pavdm_cli import __version__
from pavdm_cli.batch.job import Job
from pavdm_cli.batch.queue import UNKNOWN, Attempt, JobStatus, open_queue
from pavdm_cli.batch.render import ModelCache
from pavdm_cli.batch.store import open_store
from pavdm_cli.batch.worker import Listener, perform
from pavdm_cli.errors import PavdmError
from pavdm_cli.generation import stored_request
from pavdm_cli.runtime.signals import Stop


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """A job as it travels to a node."""

    store: str  # where the batch is: an absolute path or a URL
    fields: Mapping[str, Any]  # of the job, as JSON
    last_attempt: int  # its number; 0: none
    device: str
    threads: int
    force: bool
    version: str


def render_job(job: ClusterJob) -> None:
    """Begin the next attempt at a job, and render its video or the rest of it, unless another process was first.

    Raises: PavdmError, OSError.
    """
    if job.version != __version__:
        raise PavdmError(f"a node has pavdm {__version__}, but the batch was started with {job.version}", "")
    queue = replace(open_queue(open_store(job.store)), force=job.force)
    batch_job = _to_job(job)
    try:
        last = Attempt(job.last_attempt, UNKNOWN) if job.last_attempt else None
        if attempt := queue.claim(batch_job.name, JobStatus("queued", last), job.threads):
            try:
                perform(queue, batch_job, attempt, loaded_models(), Stop(interruptible=False), Listener())
            except BaseException:  # a canceled task: the process lives on
                queue.renew(batch_job.name, replace(attempt, state="stopped"))
                raise
    finally:
        queue.close()


@cache
def loaded_models() -> ModelCache:
    """The models of this process, which a scheduler may give several jobs."""
    return ModelCache()


def _to_job(job: ClusterJob) -> Job:
    name = job.fields["name"]
    request = stored_request.from_json(dict(job.fields["request"]), Path(name))
    execution = replace(request.execution, device=job.device)
    return Job(name, job.fields["location"], replace(request, execution=execution))
