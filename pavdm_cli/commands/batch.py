"""`pavdm batch`: render a file of jobs into a folder of videos."""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from pavdm_cli import ui
from pavdm_cli.commands import batch_ray, output_options
from pavdm_cli.commands.batch_processes import (
    WORKER,
    WorkerRank,
    choose_device,
    rank_from_environment,
    start_workers,
    terminate_all,
)
from pavdm_cli.commands.generate import generate
from pavdm_cli.commands.option_sources import option_sources
from pavdm_cli.commands.signatures import with_signature
from pavdm_cli.errors import OutputError, PavdmError, UsageError
from pavdm_cli.runtime.printable import pluralize, printable, quote
from pavdm_cli.runtime.signals import Stop, stop_requested

if TYPE_CHECKING:
    from pavdm_cli.batch.job import Job
    from pavdm_cli.batch.store import Store

NOT_SHARED = ("ctx", "prompt", "output", "stream_format")  # parameters of `generate` that `batch` does not have
MAX_WORKERS = 256
Count = Annotated[
    int,
    typer.Option("--count", "-n", min=1, max=10_000, help="Number of videos per job, with consecutive seeds."),
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_WORKERS,
        help="Number of worker processes, each with its own copy of the weights; 0: one per GPU, or one on a CPU.",
    ),
]


def with_options_of_generate(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `generate` to a command; their values are in `ctx.params`."""
    own_parameters, hints = inspect.signature(function).parameters, get_type_hints(function, include_extras=True)
    generate_parameters = inspect.signature(generate).parameters
    shared_parameters = {
        name: parameter for name, parameter in generate_parameters.items() if name not in (*own_parameters, *NOT_SHARED)
    }

    @wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **{name: value for name, value in options.items() if name not in shared_parameters})

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *own_parameters.values(),
        *(parameter.replace(kind=keyword) for parameter in shared_parameters.values()),
    ]
    hints |= {name: parameter.annotation for name, parameter in shared_parameters.items()}
    hints |= {
        name: hint for name, hint in get_type_hints(generate, include_extras=True).items() if name in shared_parameters
    }
    return with_signature(command, parameters, hints)


@with_options_of_generate
def batch(
    ctx: typer.Context,
    jobs: Annotated[
        Path,
        typer.Argument(
            metavar="JOBS",
            help="A .txt file with a prompt per line, or .csv or .jsonl with any option of `generate` for each job.",
        ),
    ],
    output_dir: Annotated[
        str,
        typer.Option(
            "--output-dir", "-d", help="Output folder, or a URL such as s3://bucket/folder; it also holds the queue."
        ),
    ],
    count: Count = 1,
    workers: Workers = 0,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="local: processes of this machine. ray: tasks on a Ray cluster, at RAY_ADDRESS, else this machine's."
        ),
    ] = "local",
    plan: Annotated[bool, typer.Option("--plan", help="Check all jobs, list them with their files, and exit.")] = False,
    as_json: output_options.Json = False,
) -> None:
    """Render every job of the file JOBS; rerun the same command to continue where it stopped.

    Videos are INDEX-PROMPT-SEED.mp4; seeds begin with --seed, or 0. Job options override those of the command.
    Several processes and machines may work in one folder: each job is rendered once, and a job whose process died is
    taken over from its last finished chunk. Slurm arrays and torchrun divide the jobs.
    """
    worker_rank = rank_from_environment(os.environ)
    if engine == "ray":
        batch_ray.check_ray(workers)
    if worker_rank.local_rank is not None:
        _bind_to_device(worker_rank.local_rank, ctx.params["device"])
    from pavdm_cli.batch.store import open_store
    from pavdm_cli.commands.batch_jobs import read_jobs

    store = open_store(output_dir)
    _check_shared(store, engine, worker_rank, workers, ctx.params["device"])
    all_jobs = read_jobs(ctx, jobs)
    rank_jobs = all_jobs[worker_rank.shard(all_jobs)]
    if plan:
        return _print_plan(rank_jobs, option_sources(ctx), as_json)
    for name, (value, source) in option_sources(ctx).items():
        ui.detail(f"{name} {value} ({source})")
    queue = _open(rank_jobs, store, ctx.params["force"])
    with stop_requested(interruptible=False) as stop:
        try:
            if engine == "ray":
                _run_on_ray(queue, rank_jobs, worker_rank, stop)
            else:
                _run(queue, rank_jobs, worker_rank, workers or _gpus(ctx.params["device"]), stop)
            rows = [_row(job, queue.status(job.name), store.location(job.name)) for job in rank_jobs]
        finally:
            queue.close()
    _report(rank_jobs, rows, as_json)
    _end(rows, stop)


def _bind_to_device(local_rank: int, device: str) -> None:
    """Let this process see the GPU of its rank alone, if there is one; CUDA must not be in use yet."""
    import torch

    if device != "cpu" and torch.cuda.device_count() > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = choose_device(local_rank, os.environ)


def _check_shared(store: Store, engine: str, worker_rank: WorkerRank, workers: int, device: str) -> None:
    """Reject a store in the memory of this process where others render too. Raises: UsageError."""
    if store.is_shared or (engine != "ray" and worker_rank.count == 1 and (workers or _gpus(device)) == 1):
        return
    cause = "--engine ray" if engine == "ray" else "a batch of several processes"
    hint = "name a folder, or a URL that all processes reach, such as s3://bucket/folder"
    raise UsageError(
        f"{cause} cannot write to {printable(store.location('').rstrip('/'))}, which lives in a single process", hint
    )


def _gpus(device: str) -> int:
    """Number of GPUs to use; 1 on a CPU."""
    import torch

    return 1 if device in ("cpu", "mps") else max(1, torch.cuda.device_count())


def _open(jobs: Sequence[Job], store: Store, force: bool) -> Any:
    """The store's queue with the jobs in it.

    Raises: OutputError, UsageError if a job conflicts with one already queued.
    """
    from pavdm_cli.batch.queue import open_queue

    queue = open_queue(store, force)
    if conflicts := queue.conflicts(jobs):
        queue.close()
        for job, reason in conflicts[:50]:
            ui.info(f"{job.location}: {reason}", always=True)
        hint = "choose another folder with -d, or render them again with --force"
        raise UsageError(f"{pluralize(len(conflicts), 'job')} cannot be added, nothing was rendered", hint)
    try:
        queue.add_all(jobs)
    except OutputError:
        queue.close()
        raise
    return queue


def _run(queue: Any, jobs: Sequence[Job], worker_rank: WorkerRank, workers: int, stop: Stop) -> None:
    from pavdm_cli.commands.batch_view import batch_progress

    with batch_progress(jobs, is_enabled=worker_rank.rank == 0) as listener:
        if workers > 1 and worker_rank.local_rank is None:
            _supervise(queue, jobs, workers, stop, listener)
            return
        from pavdm_cli.batch.worker import work

        work(queue, jobs, stop, listener, lambda job: _threads(job, max(worker_rank.local_count, queue.workers())))


def _run_on_ray(queue: Any, jobs: list[Job], worker_rank: WorkerRank, stop: Stop) -> None:
    from pavdm_cli.commands.batch_view import batch_progress

    with batch_progress(jobs, is_enabled=worker_rank.rank == 0) as listener:
        batch_ray.run(queue, jobs, stop, listener)


def _threads(job: Job, workers: int) -> int:
    """CPU threads for a job that does not set them; 0: torch's default."""
    from pavdm_cli.batch.worker import share_threads

    return 0 if "OMP_NUM_THREADS" in os.environ else share_threads(job, workers)


def _supervise(queue: Any, jobs: Sequence[Job], workers: int, stop: Stop, listener: Any) -> None:
    """Start workers and poll the queue until they exit. Raises: PavdmError if all end with an error of their own."""
    stop_sent, finished_jobs = False, set[str]()
    with start_workers(workers) as processes:
        while any(process.poll() is None for process in processes):
            if stop() and not stop_sent:
                terminate_all(processes)
                stop_sent = True
            for job in (job for job in jobs if job.name not in finished_jobs):
                listener.on_status(job, status := queue.status(job.name))
                finished_jobs |= {job.name} if status.state == "done" else set()
            time.sleep(queue.store.poll)
    if all(process.returncode not in (0, 1) for process in processes) and not stop():
        raise PavdmError("all workers failed", "run with --workers 1 to see the error")


def _print_plan(jobs: Sequence[Job], sources: Mapping[str, tuple[Any, str]], as_json: bool) -> None:
    """Print the jobs, and the source of each shared option."""
    origins = {name: {"value": str(value), "source": source} for name, (value, source) in sources.items()}
    rows: list[dict[str, Any]] = [
        {"name": job.name, "frames": job.frames, "seed": job.request.seed, "prompt": job.request.prompt} for job in jobs
    ]
    if as_json:
        print(json.dumps({"jobs": rows, "settings": origins}))
        return
    ui.show_table("", ("video", "frames", "prompt"), [(r["name"], str(r["frames"]), r["prompt"]) for r in rows])
    ui.show_table("\nsettings", ("", "", "from"), [(name, *row.values()) for name, row in origins.items()])


def _row(job: Job, status: Any, location: str) -> dict[str, Any]:
    attempt = status.attempt
    return {
        "path": location,
        "location": job.location,
        "prompt": job.request.prompt,
        "seed": job.request.seed,
        "state": status.state,
        "frames": attempt.frames if attempt else 0,
        "wall_seconds": attempt.seconds if attempt else 0.0,
        "error": (attempt.error or "its process died") if attempt and status.state == "failed" else "",
    }


def _report(jobs: Sequence[Job], rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """The table on stderr; on stdout the paths of the videos, or everything as JSON."""
    if WORKER in os.environ:
        return
    cells = [(Path(r["path"]).name, r["state"], str(r["frames"]), f"{r['wall_seconds']:.1f}", r["error"]) for r in rows]
    ui.show_table("", ("video", "state", "frames", "seconds", ""), cells, to_stderr=True)
    if as_json:
        states = [row["state"] for row in rows]
        counts = {kind: states.count(kind) for kind in ("done", "failed", "running", "queued")}
        from pavdm_cli.batch.notes import caption_and_notes

        described = [row | caption_and_notes(job) for row, job in zip(rows, jobs, strict=True)]
        print(json.dumps(counts | {"jobs": described, "continue": _same_command()}))
        return
    for row in rows:
        if row["state"] == "done":
            print(row["path"])


def _end(rows: Sequence[dict[str, Any]], stop: Stop) -> None:
    """Say what is left and how to continue, and end with the documented exit code."""
    remaining = [row for row in rows if row["state"] in ("queued", "running")]
    failed_jobs = [row for row in rows if row["state"] == "failed"]
    if remaining and WORKER not in os.environ:
        ui.info(f"{pluralize(len(remaining), 'job')} remaining, {len(failed_jobs)} failed", always=True)
        ui.hint(f"run `{_same_command()}` to continue")
    if stop():
        raise typer.Exit(stop.exit_code)
    if failed_jobs or remaining:
        raise typer.Exit(1)


def _same_command() -> str:
    return " ".join(["pavdm", *map(quote, sys.argv[1:])])
