"""Jobs that would discard what another command made are rejected; the same job is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.requests import make_request

from pavdm_cli.batch.job import Job
from pavdm_cli.batch.queue import open_queue
from pavdm_cli.batch.store import FileStore, open_store

NAME = "0001-a-ball-0.mp4"
JOB = Job(NAME, "jobs.txt:1", make_request("a ball"))


@pytest.mark.parametrize("ending", ["", ".state", ".latents"])
def test_what_another_command_left_is_neither_discarded_nor_rendered_over(tmp_path: Path, ending: str) -> None:
    parts, queue = tmp_path / f"{NAME.replace('.mp4', '.partial.mp4')}{ending}", open_queue(FileStore(tmp_path))
    parts.write_bytes(b"an hour of video")
    assert f"an interrupted run left parts of {tmp_path / NAME}" in queue.conflict(JOB)
    assert parts.read_bytes() == b"an hour of video"
    assert open_queue(FileStore(tmp_path), force=True).conflict(JOB) == ""
    parts.unlink()
    queue.add(JOB)
    parts.write_bytes(b"of this job")
    assert queue.conflict(JOB) == ""


@pytest.mark.parametrize("is_folder", [True, False])
def test_force_makes_no_other_job(is_folder: bool, tmp_path: Path) -> None:
    store = open_store(tmp_path if is_folder else f"memory://{tmp_path.name}")
    queue, plain = open_queue(store), JOB
    forced = replace(plain, request=replace(plain.request, output=replace(plain.request.output, force=True)))
    queue.add(forced)
    assert queue.conflict(plain) == ""
    queue.add(plain)  # the same job: what was rendered stays
    assert "seed is 8" in queue.conflict(Job(NAME, "jobs.txt:1", make_request("a ball", seed=8)))
