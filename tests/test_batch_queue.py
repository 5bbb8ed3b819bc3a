"""The queue in a folder: claims, takeovers of dead processes, and shares of CPU threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from support.requests import make_request

from pavdm_cli.batch import queue as queues
from pavdm_cli.batch import render, worker
from pavdm_cli.batch.job import Job
from pavdm_cli.batch.owner import Owner, this_process
from pavdm_cli.batch.queue import Attempt, JobStatus, Queue, open_queue
from pavdm_cli.batch.store import FileStore, Store, open_store
from pavdm_cli.commands.batch_processes import WorkerRank, choose_device, rank_from_environment
from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.generation.timeline import PromptChange
from pavdm_cli.runtime import threads
from pavdm_cli.video.write.output import is_being_written, open_locked

NAME = "0001-a-ball-0.mp4"
GONE = Owner(this_process().machine, 2**22 + 1, 5.0)  # beyond the largest process number
ELSEWHERE = Owner("another machine", 1, 5.0)


def job(**values: object) -> Job:
    return Job(NAME, "jobs.txt:1", make_request("a ball", **values))


@pytest.fixture(params=["folder", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path if request.param == "folder" else f"memory://{tmp_path.name}")


def attempt_file(number: int) -> str:
    return f".queue/attempts/{NAME}.{number}.json"


def age(store: Store, number: int, seconds: float) -> None:
    """Date an attempt back."""
    name = attempt_file(number)
    if isinstance(store, FileStore):
        times = store.modified_time(name) - seconds
        os.utime(store.folder / name, (times, times))
    else:
        store._system.store[store._path(name)].modified -= timedelta(seconds=seconds)


def test_a_job_that_lives_belongs_to_one_process(store: Store) -> None:
    first, second = open_queue(store), open_queue(store)
    before = first.status(NAME)
    assert before.state == "queued"
    attempt = first.claim(NAME, before, threads=2)
    assert attempt is not None
    assert second.claim(NAME, before, threads=2) is None
    assert (second.status(NAME).state, second.status(NAME).attempt) == ("running", attempt)


def test_of_many_threads_that_claim_one_wins(store: Store) -> None:
    queue = open_queue(store)
    before, wins = queue.status(NAME), []
    claimants = [threading.Thread(target=lambda: wins.append(queue.claim(NAME, before, 0))) for _ in range(20)]
    for claimant in claimants:
        claimant.start()
    for claimant in claimants:
        claimant.join()
    assert sum(win is not None for win in wins) == 1


@pytest.mark.parametrize(("owner", "silence", "state"), [
    (GONE, 0, "queued"),
    (ELSEWHERE, 0, "running"),
    (ELSEWHERE, queues.LEASE - 20, "running"),
    (ELSEWHERE, queues.LEASE + 20, "queued"),
    (this_process(), queues.LEASE + 20, "running"),  # it may be suspended: its process is what counts
    (replace(this_process(), started=this_process().started - 60), 0, "queued"),  # its number was used again
])  # fmt: skip
def test_a_dead_process_loses_its_job(owner: Owner, silence: float, state: str, store: Store) -> None:
    queue = replace(open_queue(store), owner=owner)
    attempt = queue.claim(NAME, queue.status(NAME), threads=3)
    assert attempt is not None
    age(store, 1, silence)
    other = open_queue(store)
    assert other.status(NAME).state == state
    if state == "queued":
        claim = other.claim(NAME, other.status(NAME), threads=3)
        assert claim is not None
        assert claim.number == 2
        assert not queue.renew(NAME, attempt)  # it sees the higher number, and stops
        assert other.renew(NAME, claim)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owner": 3}', b'{"state": "done"}', b"\xff" * 9, b"[" * 9000])
def test_a_file_that_is_not_whole_is_of_a_process_that_begins(content: bytes, store: Store) -> None:
    queue = open_queue(store)
    store.replace(attempt_file(1), content)
    assert queue.status(NAME).state == "running"
    age(store, 1, queues.LEASE + 20)
    assert queue.status(NAME).state == "queued"


def ended(queue: Queue, state: str, frames: int = 0) -> None:
    attempt = queue.claim(NAME, queue.status(NAME), 0)
    assert attempt is not None
    queue.renew(NAME, replace(attempt, state=state, frames=frames))


def test_a_job_is_tried_twice_in_a_run_and_again_in_the_next(store: Store) -> None:
    queue = open_queue(store)
    for failures in range(2):
        assert (queue.status(NAME).state, queue.status(NAME).failures) == ("queued", failures)
        ended(queue, "failed")
    assert queue.status(NAME).state == "failed"
    for number in (1, 2):
        age(store, number, 10)
    assert open_queue(store).status(NAME).state == "queued"


def test_a_job_that_kills_its_processes_is_given_up_unless_it_gets_on(store: Store) -> None:
    watching, dying = open_queue(store), replace(open_queue(store), owner=GONE)
    for frames in (4, 8, 8):
        assert watching.status(NAME).state == "queued"
        ended(dying, "running", frames)
    assert watching.status(NAME).failures == 1
    ended(dying, "running", 8)
    assert watching.status(NAME).state == "failed"


def test_a_job_whose_processes_die_soon_but_get_on_is_not_given_up(store: Store) -> None:
    queue = open_queue(store)
    for number, frames in enumerate([(4,), (4, 4), (8, 4)], 1):
        attempt = queue.claim(NAME, queue.status(NAME, number - 1), threads=1)
        assert attempt is not None
        assert attempt.number == number
        heartbeat = worker.Heartbeat(queue, job(), attempt)
        with heartbeat.running():  # far shorter than a period
            for count in frames:
                heartbeat.add_frames(count)
            deadline = time.monotonic() + worker.RENEWAL_PERIOD / 2
            while (status := queue.status(NAME)).attempt.frames < sum(frames) and time.monotonic() < deadline:
                time.sleep(0.01)
        assert status.attempt.frames == sum(frames)
        status = queue.status(NAME, last_dead_attempt=number)
        assert (status.state, status.failures) == ("queued", 0)


def test_a_done_job_is_done_while_its_video_is_there(store: Store) -> None:
    queue = open_queue(store)
    ended(queue, "done", 8)
    assert queue.status(NAME).state == "queued"
    store.replace(NAME, b"")
    assert queue.status(NAME).state == "done"
    age(store, 1, 10)
    assert open_queue(store, force=True).status(NAME).state == "queued"


def test_a_name_stands_for_one_job_and_foreign_videos_are_safe(store: Store) -> None:
    queue = open_queue(store)
    store.replace(NAME, b"mine")
    assert "belongs to no job of this folder" in queue.conflict(job())
    store.remove(NAME)
    queue.add(job())
    store.replace(NAME, b"")
    assert queue.conflict(job()) == ""
    changed = job(seed=3, frames=9, timeline=(PromptChange(1.0, "at night"),))
    stored = queue.conflict(changed)
    assert "already has a different job named" in stored
    assert f"seed is 3, was {job().request.seed}" in stored
    assert f"frames is 9, was {job().request.frames}" in stored
    assert "timeline is a list of 1, was []" in stored
    forced = open_queue(store, force=True)
    assert forced.conflict(job(seed=3)) == ""
    forced.add(job(seed=3))
    assert queue.conflict(job(seed=3)) == ""


@pytest.mark.integration
def test_workers_on_the_same_cores_are_counted_until_they_end(tmp_path: Path) -> None:
    first = open_queue(FileStore(tmp_path))
    imports = "from pavdm_cli.batch.queue import open_queue; from pavdm_cli.batch.store import open_store"
    code = f"{imports}; open_queue(open_store({str(tmp_path)!r})); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as other:
        while first.workers() < 2:
            assert other.poll() is None
        other.kill()
    assert first.workers() == 1


@pytest.mark.parametrize(
    ("cores", "workers", "each"), [(1, 1, 1), (2, 1, 1), (2, 2, 1), (8, 1, 7), (8, 2, 3), (8, 20, 1)]
)
def test_workers_share_the_cores_and_leave_one_free(
    cores: int, workers: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: cores)
    assert threads.share_cores(workers) == each


def array(task: int, first: int, count: int, step: int = 1) -> dict[str, str]:
    values = {"ID": task, "MIN": first, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def torchrun(rank: int, world: int, local: int = 0) -> dict[str, str]:
    values = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": world}
    return {name: str(value) for name, value in values.items()}


PLACES = [
    ({}, WorkerRank()),
    (array(0, 0, 4), WorkerRank(0, 4)),
    (array(7, 5, 4), WorkerRank(2, 4)),
    (array(9, 5, 3, step=2), WorkerRank(2, 3)),
    (torchrun(3, 4, 1), WorkerRank(3, 4, 1, 4, 3)),
    (array(1, 0, 2) | torchrun(1, 3, 1), WorkerRank(4, 6, 1, 3, 1)),
]


@pytest.mark.parametrize(("environment", "worker_rank"), PLACES)
def test_slurm_and_torchrun_say_which_share_a_process_has(environment: dict[str, str], worker_rank: WorkerRank) -> None:
    assert rank_from_environment(environment) == worker_rank


@pytest.mark.parametrize("make", [lambda n: array(n, 0, 5), lambda n: array(n + 3, 3, 5), lambda n: torchrun(n, 5)])
def test_the_shares_are_all_jobs_once(make) -> None:
    jobs = list(range(23))
    shares = [jobs[rank_from_environment(make(number)).shard(jobs)] for number in range(5)]
    assert sorted(job for share in shares for job in share) == jobs


@pytest.mark.parametrize(
    "environment", [array(3, 0, 2), array(4, 1, 3, 2), array(0, 1, 1), {"RANK": "x"}, torchrun(3, 2)]
)
def test_impossible_numbers_are_rejected(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        rank_from_environment(environment)


def test_the_local_rank_picks_a_device_among_the_visible_ones() -> None:
    assert [choose_device(rank, {}) for rank in range(2)] == ["0", "1"]
    assert [choose_device(rank, {"CUDA_VISIBLE_DEVICES": "2,5"}) for rank in range(3)] == ["2", "5", "2"]


def test_a_file_that_a_dying_process_still_holds_is_waited_for(tmp_path: Path) -> None:
    partial = tmp_path / "a.partial.mp4"
    file = open_locked(partial)
    threading.Timer(0.3, file.close).start()
    start = time.monotonic()
    render._wait_for_writer(partial)
    assert 0.2 < time.monotonic() - start < 5
    assert not is_being_written(partial)
    render._wait_for_writer(tmp_path / "b.partial.mp4")
    assert not (tmp_path / "b.partial.mp4").exists()


def test_a_job_has_its_own_threads_or_those_of_its_last_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 9)
    monkeypatch.setattr(worker, "pick_device", torch.device)
    shares = [worker.share_threads(job(device=device), workers=2) for device in ("cpu", "cuda")]
    assert shares == [4, 0]  # on a GPU torch's default
    previous = JobStatus("queued", Attempt(1, GONE, threads=3))
    cases = [(job(threads=2), previous, 2), (job(), previous, 3), (job(device="cpu"), JobStatus("queued"), 4)]
    for queued_job, status, expected in cases:
        assert worker.threads_of(queued_job, status, lambda job: worker.share_threads(job, workers=2)) == expected


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    queue = open_queue(FileStore(tmp_path))
    monkeypatch.setattr(FileStore, "replace", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        queue.add_all([job()])
