"""`pavdm batch`: every job is rendered exactly once, even if processes die."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command import QUICK, pavdm
from support.processes import start, wait_for_signals
from support.tiers import long

from pavdm_cli.batch import worker
from pavdm_cli.errors import DeviceError
from pavdm_cli.generation import pipeline

PROMPTS = ("a red ball over green hills at noon", "a blue kite over the sea at night")
integration = pytest.mark.integration


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("jobs.txt").write_text("\n".join(PROMPTS))


def rows(out: str) -> dict[str, Any]:
    return {Path(row["path"]).name: row for row in json.loads(out)["jobs"]}


def videos(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def attempts(folder: str) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(Path(folder).glob(".queue/attempts/*.json"))]


def running_pids(folder: str) -> set[int]:
    """Processes that have started a job; the file of a new attempt is empty for a moment."""
    texts = [file.read_text() for file in Path(folder).glob(".queue/attempts/*.json")]
    return {json.loads(text)["owner"]["pid"] for text in texts if text}


def test_the_results_have_captions_and_notes() -> None:
    Path("jobs.txt").write_text("a red ball with a zebra")
    code, out, err = pavdm("batch", "jobs.txt", "-d", "out", "--frames", "2", *QUICK, "--json")
    assert code == 0, err
    (row,) = rows(out).values()
    assert row["caption"].startswith("a red ball ")
    assert any("does not know: zebra" in note for note in row["notes"])
    assert any(f'filled in from the seed: "{row["caption"]}"' in note for note in row["notes"])


def test_jobs_share_a_model_and_finished_ones_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, plain = [], pipeline.open_runner
    monkeypatch.setattr(pipeline, "open_runner", lambda *given, **named: loads.append(1) or plain(*given, **named))
    words = ("batch", "jobs.txt", "-d", "out", "--frames", "2", *QUICK)
    code, out, err = pavdm(*words)
    names = ["0001-a-red-ball-over-green-hills-at-noon-0.mp4", "0002-a-blue-kite-over-the-sea-at-night-0.mp4"]
    assert code == 0, err
    assert out.split() == [f"out/{name}" for name in names]
    assert [line.split()[:3] for line in err.splitlines()[-2:]] == [[name, "done", "2"] for name in names]
    assert loads == [1]
    made = videos("out")
    assert sorted(made) == names
    assert pavdm("generate", PROMPTS[0], "--seed", "0", "--frames", "2", *QUICK, "-o", "one.mp4").code == 0
    assert Path("one.mp4").read_bytes() == made[names[0]]
    Path("jobs.txt").write_text("\n".join((*PROMPTS, "zebra")))
    assert pavdm(*words).code == 2
    Path("jobs.txt").write_text("\n".join(PROMPTS))
    loads.clear()
    code, out, err = pavdm(*words, "--json")
    assert (code, loads, videos("out")) == (0, [], made)
    assert [row["state"] for row in rows(out).values()] == ["done", "done"]


def test_a_failed_job_is_retried_once_and_listed_and_tried_again_by_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries, plain = [], worker.render

    def render(request: Any, *rest: Any) -> Any:
        tries.append(request.seed)
        if request.seed == 0:
            raise DeviceError("the device failed", "another one")
        return plain(request, *rest)

    Path("jobs.txt").write_text(PROMPTS[0])
    monkeypatch.setattr(worker, "render", render)
    words = ("batch", "jobs.txt", "-d", "out", "-n", "2", "--frames", "2", *QUICK, "--json")
    code, out, err = pavdm(*words)
    assert (code, tries) == (1, [0, 1, 0])
    failed, done = rows(out).values()
    assert (failed["state"], failed["error"]) == ("failed", "the device failed; another one")
    assert done["state"] == "done"
    assert err.count("failed: the device failed; another one") == 2
    time.sleep(0.05)  # file systems date files by a coarse clock
    monkeypatch.setattr(worker, "render", plain)
    code, out, _ = pavdm(*words)
    assert (code, [row["state"] for row in rows(out).values()]) == (0, ["done", "done"])


def test_a_plan_checks_all_and_makes_nothing() -> None:
    code, out, _ = pavdm("batch", "jobs.txt", "-d", "out", "--plan", "-n", "3", "--json", "--device", "cpu")
    assert (code, len(json.loads(out)["jobs"]), Path("out").exists()) == (0, 6, False)


LONG = ("batch", "jobs.txt", "-d", "out", "--frames", "34", *QUICK, "--json")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def saved() -> set[int]:
    """The times when checkpoints were written."""
    return {path.stat().st_mtime_ns for path in Path("out").glob("*.state")}


def has_checkpoint() -> bool:
    return bool(saved())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The videos of `LONG` by name, from a batch that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "jobs.txt").write_text("\n".join(PROMPTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code, _, err = pavdm(*LONG)
    assert code == 0, err
    return videos(str(folder / "out"))


@integration
def test_a_batch_that_is_killed_continues_to_the_same_bytes(undisturbed: dict[str, bytes]) -> None:
    for kills in range(1, 3):  # in the middle of a video, and in the middle of its second attempt
        process, before = start(*LONG, cwd=Path()), saved()
        wait_for(lambda before=before: bool(saved() - before), process)
        process.kill()
        process.communicate()
        assert len(attempts("out")) == kills
    code, _, err = pavdm(*LONG)
    assert code == 0, err
    assert videos("out") == undisturbed
    assert sorted(attempt["number"] for attempt in attempts("out")) == [1, 1, 2, 3]


@integration
def test_two_processes_render_each_job_once(undisturbed: dict[str, bytes]) -> None:
    both = [start(*LONG, cwd=Path()) for _ in range(2)]
    ends = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert videos("out") == undisturbed
    made = attempts("out")
    assert [(one["state"], one["number"]) for one in made] == [("done", 1), ("done", 1)]
    assert len({one["owner"]["pid"] for one in made}) == 2
    assert [row["state"] for out, _ in ends for row in rows(out).values()] == ["done"] * 4


@integration
def test_what_a_dead_process_had_is_taken_over(undisturbed: dict[str, bytes]) -> None:
    dying, living = start(*LONG, cwd=Path()), start(*LONG, cwd=Path())
    wait_for(lambda: dying.pid in running_pids("out"), dying)
    (own,) = [
        path for path in Path("out").glob(".queue/attempts/*.1.json") if f'"pid": {dying.pid},' in path.read_text()
    ]
    wait_for(Path("out", own.name.replace(".mp4.1.json", ".partial.mp4.state")).exists, dying)
    dying.kill()
    dying.communicate()
    _, err = living.communicate(timeout=200)
    assert living.returncode == 0, err
    assert videos("out") == undisturbed
    assert sorted(one["number"] for one in attempts("out")) == [1, 1, 2], attempts("out")


@integration
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), *long((signal.SIGTERM, 75))])
def test_a_stop_finishes_the_chunk_and_prints_the_command_that_continues(
    number: int, code: int, undisturbed: dict[str, bytes]
) -> None:
    process = start(*LONG, cwd=Path())
    wait_for_signals(process)
    wait_for(has_checkpoint, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=100)
    assert process.returncode == code, err
    assert {row["state"] for row in rows(out).values()} == {"queued"}
    hint = err.splitlines()[-1]
    assert "2 jobs remaining, 0 failed" in err
    command = shlex.split(hint.partition("`")[2].partition("`")[0])
    assert command == ["pavdm", *LONG]
    assert json.loads(out)["continue"] == shlex.join(command)
    assert pavdm(*command[1:]).code == 0
    assert videos("out") == undisturbed


@integration
def test_workers_of_one_command_share_the_jobs(undisturbed: dict[str, bytes]) -> None:
    process = start(*LONG, "--workers", "2", cwd=Path())
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert videos("out") == undisturbed
    assert len({one["owner"]["pid"] for one in attempts("out")}) == 2
    assert [row["state"] for row in rows(out).values()] == ["done", "done"]


@integration
def test_a_stop_reaches_the_workers_once(undisturbed: dict[str, bytes]) -> None:
    process = start(*LONG, "--workers", "2", cwd=Path())
    wait_for_signals(process)
    wait_for(has_checkpoint, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "`pavdm batch jobs.txt -d out" in err
    states = [attempt["state"] for attempt in attempts("out")]
    assert "stopped" in states
    assert {*states} <= {"stopped", "done"}  # one may have finished before the stop; none failed by a second one
    assert pavdm(*LONG).code == 0
    assert videos("out") == undisturbed


@integration
def test_tasks_of_a_slurm_array_render_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in range(2):
        for name, value in {"ID": task, "MIN": 0, "COUNT": 2, "STEP": 1}.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        code, out, err = pavdm("batch", "jobs.txt", "-d", "out", "--frames", "2", *QUICK)
        assert code == 0, err
        assert [Path(line).name[:4] for line in out.split()] == [f"{task + 1:04}"]
    assert len(videos("out")) == 2
