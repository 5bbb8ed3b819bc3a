"""The number of threads: the limits of Linux, idle cores, and never zero."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.requests import make_request

from pavdm_cli.commands.run import with_threads
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.advice import decoding_advice
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.runtime import threads as cores
from pavdm_cli.runtime.threads import Clock, Load, cgroup_quota, choose_threads


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Eight cores, all of them ours, no limit, unless told otherwise."""

    def shape(present: int = 8, allowed: int | None = None, limit: float | None = None) -> None:
        monkeypatch.setattr(cores.os, "cpu_count", lambda: present)
        monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(allowed or present)), raising=False)
        monkeypatch.setattr(cores, "cgroup_quota", lambda: limit)

    shape()
    return shape


@pytest.mark.parametrize(
    ("count", "others", "threads"), [(8, 0.0, 8), (8, 0.4, 8), (8, 0.6, 7), (4, 1.0, 4), (8, 5.2, 3), (8, 9.0, 1)]
)
def test_busy_cores_are_left_to_others(machine, count: int, others: float, threads: int) -> None:
    assert choose_threads(count, others) == threads


@pytest.mark.parametrize(("limit", "threads"), [(None, 8), (2.0, 2), (2.9, 2), (0.5, 1), (64.0, 8)])
def test_a_containers_share_is_a_limit(machine, limit: float | None, threads: int) -> None:
    machine(limit=limit)
    assert choose_threads(8, 0.0) == threads


def test_what_runs_outside_a_container_is_not_counted(machine) -> None:
    machine(present=64, limit=4.0)
    assert choose_threads(32, 61.0) == 4


def test_only_cores_this_process_may_run_on_count(machine) -> None:
    machine(allowed=3)
    assert choose_threads(8, 0.0) == 3


def test_the_load_of_others_is_what_this_process_did_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "read_clock", lambda: Clock(12.0, 107.0, 4.0))
    assert Load(Clock(10.0, 100.0, 1.0)).other_busy_cores() == pytest.approx(2.0)
    assert Load(Clock(10.0, 106.0, 1.0)).other_busy_cores() == 0


def test_a_busy_program_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            load, until = Load(), time.monotonic() + 60
            time.sleep(0.5)
            while load.other_busy_cores() <= 0.2:
                assert time.monotonic() < until
                time.sleep(0.5)
        finally:
            busy.kill()


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_tightest_group_around_a_process_counts(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_text("0::/user/session\n")
    group(tmp_path / "user" / "session", cpu__max="max 100000\n")
    assert cgroup_quota(tmp_path, ours) is None
    group(tmp_path / "user", cpu__max="250000 100000\n")
    assert cgroup_quota(tmp_path, ours) == 2.5
    group(tmp_path / "user" / "session", cpu__max="150000 100000\n")
    assert cgroup_quota(tmp_path, ours) == 1.5


def test_groups_of_the_first_version_count(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_text("5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n")
    group(tmp_path / "cpu,cpuacct" / "docker" / "a", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert cgroup_quota(tmp_path, ours) is None
    group(tmp_path / "cpu,cpuacct" / "docker" / "a", cpu__cfs_quota_us="300000\n", cpu__cfs_period_us="100000\n")
    assert cgroup_quota(tmp_path, ours) == 3


@pytest.mark.parametrize("text", ["", "nonsense", "0::/\n"])
def test_a_system_without_groups_sets_no_limit(tmp_path: Path, text: str) -> None:
    (tmp_path / "ours").write_text(text)
    group(tmp_path, cpu__max="rubbish")
    assert cgroup_quota(tmp_path, tmp_path / "ours") is None
    assert cgroup_quota(tmp_path, tmp_path / "missing") is None


def asked(threads: int, monkeypatch: pytest.MonkeyPatch, others: float = 0.0, device: str = "cpu") -> int:
    monkeypatch.setattr(Load, "other_busy_cores", lambda self: others)
    request = make_request("a red ball", frames=2, threads=threads, device=device)
    return with_threads(request, Load()).execution.threads


def test_threads_are_chosen_where_nobody_said_how_many(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert asked(0, monkeypatch) == 8
    assert asked(0, monkeypatch, others=3.0) == 5
    assert asked(6, monkeypatch, others=3.0) == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert asked(0, monkeypatch, others=3.0) == 0


def test_fewer_threads_are_told(machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    asked(0, monkeypatch)
    assert capsys.readouterr().err == ""
    asked(0, monkeypatch, others=7.0)
    assert "1 of 8 CPU threads" in capsys.readouterr().err


@pytest.mark.integration
def test_the_number_of_threads_changes_a_video_by_rounding_at_most() -> None:
    def video(threads: int) -> torch.Tensor:
        job = resolve(make_request("a red ball over hills", frames=8, device="cpu", threads=threads))
        model = pipeline.open_model(job)
        latents = torch.cat(list(pipeline.sample_latents(job, model)), dim=1)
        return torch.cat([latents.flatten(), model.vae.decode(latents).flatten()])

    before = torch.get_num_threads()
    try:
        torch.testing.assert_close(video(2), video(1), rtol=0, atol=1e-5)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "cores", "words"),
    [(2, 2, "--threads 1, or --overlap-decode off"), (1, 1, "try --overlap-decode"), (8, 4, "--threads 3")],
)
def test_decoding_next_to_steps_that_take_all_cores_is_advised_against(threads, cores, words):
    (line,) = decoding_advice(threads, cores)
    assert words in line
    assert "20 to 30 % slower" in line


def test_decoding_next_to_steps_that_leave_a_core_is_not_advised_against():
    assert decoding_advice(3, 4) == []
