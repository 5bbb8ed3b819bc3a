"""This process's share of a batch (from Slurm or torchrun variables), and starting worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pavdm_cli.errors import UsageError

WORKER = "PAVDM_BATCH_WORKER"  # set for the processes that a batch starts


@dataclass(frozen=True, slots=True)
class WorkerRank:
    """This process's rank among those that share a list of jobs."""

    index: int = 0
    count: int = 1
    local_rank: int | None = None  # None if not set
    local_count: int = 1
    rank: int = 0  # torchrun's; rank 0 shows the progress

    def shard(self, jobs: Sequence[object]) -> slice:
        """Every count-th job."""
        return slice(self.index, None, self.count)


def rank_from_environment(environment: Mapping[str, str]) -> WorkerRank:
    """From Slurm array and torchrun variables; if both are set, jobs are divided by both. Raises: UsageError."""
    array, tasks = _array(environment)
    rank, world = (environment_number(environment, name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    if not 0 <= rank < world:
        raise UsageError(f"RANK {rank} is not below WORLD_SIZE {world}", "let torchrun set them")
    local = environment_number(environment, "LOCAL_RANK", 0) if "LOCAL_RANK" in environment else None
    return WorkerRank(
        array * world + rank, tasks * world, local, environment_number(environment, "LOCAL_WORLD_SIZE", 1), rank
    )


def _array(environment: Mapping[str, str]) -> tuple[int, int]:
    """This task's index in a Slurm array and the array's size; task IDs may start anywhere."""
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return 0, 1
    task = environment_number(environment, "SLURM_ARRAY_TASK_ID", 0)
    first = environment_number(environment, "SLURM_ARRAY_TASK_MIN", 0)
    step = environment_number(environment, "SLURM_ARRAY_TASK_STEP", 1)
    count = environment_number(environment, "SLURM_ARRAY_TASK_COUNT", 1)
    index, remainder = divmod(task - first, max(1, step))
    if remainder or not 0 <= index < count:
        message = f"task {task} is not one of {count} consecutive tasks starting at {first}"
        raise UsageError(message, f"use consecutive task IDs: --array 0-{count - 1}")
    return index, count


def environment_number(environment: Mapping[str, str], name: str, default: int) -> int:
    """The integer in a variable that Slurm or torchrun sets; the default if it is unset. Raises: UsageError."""
    text = environment.get(name) or str(default)
    if not text.isdecimal():
        raise UsageError(f"{name} is {text!r}, not an integer", "let Slurm or torchrun set it")
    return int(text)


def choose_device(local_rank: int, environment: Mapping[str, str]) -> str:
    """CUDA_VISIBLE_DEVICES for a process: the GPU of its rank among those it may see."""
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[local_rank % len(visible)] if visible else str(local_rank)


def terminate_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to exit after their current chunk."""
    for process in processes:
        if process.poll() is None:
            process.terminate()


@contextmanager
def start_workers(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start `count` worker processes running the same command, one device each; waits for all on exit."""
    command, processes = [sys.executable, "-m", "pavdm_cli", *sys.argv[1:]], []
    variables = {WORKER: "1", "PAVDM_QUIET": "1", "LOCAL_WORLD_SIZE": str(count)}
    try:
        for rank in range(count):  # in sessions of their own: a Ctrl-C reaches them once, from this process
            environment = os.environ | variables | {"LOCAL_RANK": str(rank)}
            options = {"stdout": subprocess.DEVNULL, "start_new_session": True}
            processes.append(subprocess.Popen(command, env=environment, **options))  # type: ignore[call-overload]
        yield processes
    except BaseException:
        terminate_all(processes)
        raise
    finally:
        for process in processes:
            process.wait()
