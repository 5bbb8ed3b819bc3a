"""Jobs of a batch as tasks on a Ray cluster. This is the only module that imports ray.

Ray knows immediately when a worker or a node dies. The job is then submitted again, and the next attempt continues from
its checkpoint; what the queue stores about attempts decides whether it was tried too often.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray._private import services  # which cluster this machine belongs to

from pavdm_cli import __version__
from pavdm_cli.batch.cluster_job import ClusterJob, render_job
from pavdm_cli.batch.job import Job, to_json
from pavdm_cli.batch.queue import JobStatus, Queue
from pavdm_cli.batch.resources import Planner, Resources, device_on, threads_on
from pavdm_cli.batch.worker import Listener, threads_of
from pavdm_cli.errors import DeviceError
from pavdm_cli.runtime.diagnose import diagnose, first_line
from pavdm_cli.runtime.optional_imports import suppress_logs
from pavdm_cli.runtime.signals import Stop

MAX_SUBMITTED = 1000  # tasks that wait or run
ANSWER_SECONDS = 5.0
# Ray's gRPC uses HTTP/2, where each side first sends a frame of this type.
FIRST_FRAME = b"\x04"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + FIRST_FRAME + bytes(5)


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that waits or runs, and the number of its last attempt before."""

    job: Job
    last: int


@dataclass(slots=True)
class Tasks:
    """Jobs that are submitted, and what is known about their attempts."""

    queue: Queue
    listener: Listener
    running: dict[Any, Submission] = field(default_factory=dict)  # by Ray's reference
    last_dead_attempt: dict[str, int] = field(default_factory=dict)  # by job: attempts up to this number have ended
    settled: set[str] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)
    planner: Planner = field(default_factory=Planner)

    def status(self, job: Job) -> JobStatus:
        """Where a job stands, which the listener is told."""
        status = self.queue.status(job.name, self.last_dead_attempt.get(job.name, 0))
        self.listener.on_status(job, status)
        return status

    def collect(self, timeout: float) -> None:
        """Wait until a task has ended, or until the timeout in seconds."""
        ended_tasks, _ = ray.wait([*self.running], timeout=timeout)
        for task in ended_tasks:
            _end(self, self.running.pop(task), task)
        for submission in self.running.values():
            self.status(submission.job)


@contextmanager
def connect(address: str) -> Iterator[None]:
    """A connection to the cluster at an address, else to that of this machine, else one that is started here.

    Raises: DeviceError.
    """
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with suppress_logs():
            address = address if address not in ("", "auto") else _find_address()
            _init(address)
    except Exception as error:  # Ray raises many kinds
        at_address = f" at {address}" if address else ""
        hint = "see `ray status`, and RAY_ADDRESS for the address; `ray stop` forgets a cluster that has ended"
        raise DeviceError(f"cannot connect to the Ray cluster{at_address}: {first_line(error)}", hint) from None
    finally:
        if is_main:  # Ray sets its own
            signal.signal(signal.SIGTERM, handler)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):  # Ray prints what dies
        try:
            yield
        finally:
            ray.shutdown()


def _find_address() -> str:
    """The address of the cluster that this machine belongs to, or belonged to; empty if there is none."""
    try:
        return services.canonicalize_bootstrap_address("auto") or ""
    except ConnectionError:
        return ""


def _check_answers(address: str) -> None:
    """Connect once: Ray would try for minutes, also if another program answers. Raises: OSError."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return
        connection.sendall(PREFACE)
        try:
            answer = connection.recv(9)
        except TimeoutError:
            raise ConnectionError(f"no answer within {ANSWER_SECONDS:.0f} s") from None
    if answer[3:4] != FIRST_FRAME:
        raise ConnectionError("the program there is not Ray")


def _init(address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        _check_answers(address)
        ray.init(address=address, **quiet)
    else:
        ray.init(include_dashboard=False, **quiet)


def cluster_nodes() -> list[Resources]:
    """The resources of all nodes."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Resources(node.get("GPU", 0), node.get("CPU", 0), node.get("memory", 0)) for node in nodes]


def run_on_ray(queue: Queue, jobs: Sequence[Job], stop: Stop, listener: Listener, address: str = "") -> None:
    """Render jobs as tasks, until all are done or have failed, or `stop` is true. Raises: DeviceError, PavdmError."""
    with connect(address):
        tasks = Tasks(queue, listener)
        with suppress(KeyboardInterrupt), stop.interruptible():
            while len(tasks.settled) < len(jobs) and not stop():
                _submit_all(tasks, jobs)
                tasks.collect(queue.store.poll)
            while tasks.running:
                _withdraw_all(tasks)
                tasks.collect(queue.store.poll)


def _submit_all(tasks: Tasks, jobs: Sequence[Job]) -> None:
    """Submit the jobs that no process has."""
    submitted_names, nodes = {submission.job.name for submission in tasks.running.values()}, cluster_nodes()
    for job in (job for job in jobs if job.name not in tasks.settled | submitted_names):
        if len(tasks.running) >= MAX_SUBMITTED:
            return
        status = tasks.status(job)
        if status.state in ("done", "failed"):
            tasks.settled.add(job.name)
        elif status.state == "queued":
            threads = threads_of(job, status, lambda job: threads_on(device_on(job, nodes), nodes, len(jobs)))
            last = status.attempt.number if status.attempt else 0
            tasks.running[_submit(tasks, job, last, threads, nodes)] = Submission(job, last)


def _submit(tasks: Tasks, job: Job, last: int, threads: int, nodes: Sequence[Resources]) -> Any:
    """Ray's reference of a new task. Raises: PavdmError."""
    device = device_on(job, nodes)
    needs = tasks.planner.needed_by(job, device, threads)
    if not any(needs.fit_in(node) for node in nodes):
        tasks.listener.on_note(f"no node of the cluster has {needs}: {job.name} waits for one")
    location = tasks.queue.store.location("")
    location = location if "://" in location else os.path.abspath(location)
    cluster_job = ClusterJob(location, to_json(job), last, device, threads, tasks.queue.force, __version__)
    options = {"num_gpus": needs.gpus, "num_cpus": needs.cpus, "memory": needs.host_bytes, "name": job.name}
    return ray.remote(render_job).options(max_retries=0, **options).remote(cluster_job)


def _end(tasks: Tasks, submission: Submission, task: Any) -> None:
    """Record how a task has ended."""
    job = submission.job
    try:
        ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return
    except Exception as error:
        _record_death(tasks, submission, error)
    attempt = tasks.status(job).attempt
    if attempt and attempt.state == "failed":
        tasks.listener.on_failed(job, attempt)


def _record_death(tasks: Tasks, submission: Submission, error: Exception) -> None:
    """Store that the task's attempt failed, unless it died after frames that the next one continues from."""
    job, queue, cause = submission.job, tasks.queue, getattr(error, "cause", None)
    attempt = queue.status(job.name).attempt
    if (attempt.number if attempt else 0) == submission.last:  # the task did not come to begin one
        attempt = queue.claim(job.name, JobStatus("queued", attempt), threads=0)
    if attempt is None or attempt.state != "running":  # it ended before its process
        return
    tasks.last_dead_attempt[job.name] = attempt.number
    if cause or queue.status(job.name, attempt.number).state == "failed" or not attempt.frames:
        reason = diagnose(cause).as_line() if cause else f"its process died ({first_line(error)})"
        queue.renew(job.name, replace(attempt, state="failed", error=reason))


def _withdraw_all(tasks: Tasks) -> None:
    """Cancel tasks that have not started, and let the others stop after their chunk."""
    for task, submission in tasks.running.items():
        name = submission.job.name
        if name not in tasks.withdrawn and not tasks.queue.withdraw(name):
            ray.cancel(task)
        tasks.withdrawn.add(name)
