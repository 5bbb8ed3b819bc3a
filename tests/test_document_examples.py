"""The examples of docs/scale.md, docs/configuration.md and docs/serving.md run as written."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import pavdm
from support.objects import install

DOCS = Path(__file__).parents[1] / "docs"


def blocks(document: str, language: str) -> list[str]:
    """The code blocks of a language."""
    text = (DOCS / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that docs/scale.md shows, and a `pavdm` on the path."""
    monkeypatch.chdir(tmp_path)
    for name, language in (("prompts.txt", "text"), ("jobs.csv", "csv"), ("jobs.jsonl", "json")):
        (block,) = blocks("scale.md", language)
        Path(name).write_text(block)
    command = tmp_path / "bin" / "pavdm"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m pavdm_cli "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize("name", ["prompts.txt", "jobs.csv", "jobs.jsonl"])
def test_every_file_of_jobs_in_the_documents_is_sound(name: str, folder: Path) -> None:
    code, out, err = pavdm("batch", name, "-d", "out", "--plan", "--device", "cpu")
    assert code == 0, err
    table = out.partition("\nsettings")[0].splitlines()
    assert len(table) == {"jobs.jsonl": 4}.get(name, 3)  # a heading, and a line for every video


def test_the_configuration_in_the_documents_is_sound(folder: Path) -> None:
    (block,) = blocks("configuration.md", "toml")
    Path("pavdm.toml").write_text(block)
    assert pavdm("models", "path", "pocket").code == 0
    Path("pavdm.toml").write_text(block + "\n[batch]\nseconds = -1\nstepz = 3")
    assert "[batch] unknown option 'stepz'" in pavdm("models", "path", "pocket").err


def shell(script: str) -> str:
    done = subprocess.run(["sh", "-e", "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(script: str) -> str:
    """Run a script of plain commands in this process, where they start faster; its standard output."""
    out = []
    for line in script.splitlines():
        words, _, file = line.partition(" > ")
        done = pavdm(*shlex.split(words)[1:])
        assert done.code == 0, done.err
        if file:
            Path(file).write_text(done.out)
        else:
            out.append(done.out)
    return "".join(out)


@pytest.mark.integration
@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
def test_the_commands_of_the_documents_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, shared, _, objects = [block for block in blocks("scale.md", "sh") if block.startswith("pavdm batch")]
    assert len(run(jobs).split()) == 7
    assert len(shell(f"rm -r videos\n{shared}wait").split()) == 4  # two processes, two videos
    monkeypatch.setenv("PYTHONPATH", install(folder / "packages"))
    shell(objects.replace("s3://bucket", f"objects://{folder}/bucket"))
    stored = {path.name: path.read_bytes() for path in Path("bucket/videos").glob("*.mp4")}
    assert stored == {path.name: path.read_bytes() for path in Path("videos").glob("*.mp4")}
    run(blocks("configuration.md", "sh")[0])
    assert Path("again.mp4").exists()


@pytest.mark.integration
@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
def test_the_slurm_script_renders_every_prompt_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    srun = folder / "bin" / "srun"
    srun.write_text('#!/bin/sh\nexec "$@"\n')
    srun.chmod(0o755)
    (script,) = [block for block in blocks("scale.md", "sh") if "#SBATCH --array=0-7" in block]
    for name, value in {"MIN": 0, "MAX": 7, "COUNT": 8, "STEP": 1}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    videos = []
    for task in (0, 1, 7):  # two prompts for eight tasks: the last one has nothing to do
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        videos.append(len(shell(script).split()))
    assert videos == [1, 1, 0]


@pytest.mark.integration
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_the_command_for_ray_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = [block for block in blocks("scale.md", "sh") if "--engine ray" in block]
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    assert len(shell(command).split()) == 2


CURL = [line for block in blocks("serving.md", "sh") for line in block.splitlines() if line.startswith("curl ")]


def test_no_curl_command_of_the_documents_hides_an_error() -> None:
    files = [line for line in CURL if " -o " in line]
    assert files
    assert [line for line in files if not re.search(r" -f", line)] == []  # an error would be in the file
    assert [line for line in CURL if line not in files and "--fail-with-body" not in line] == []


def curl(line: str, address: str, video_id: str = "") -> subprocess.CompletedProcess[str]:
    """Run a line of docs/serving.md with its server and id replaced."""
    words = shlex.split(line.replace("localhost:8420", address.removeprefix("http://")).replace("/ID", f"/{video_id}"))
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    from support.serving import listening

    with listening(tmp_path) as address:
        yield address


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_commands_of_the_documents_run(address: str, folder: Path) -> None:
    create, show, download, live, prompt, stop = CURL
    video_id = json.loads(curl(create, address).stdout)["id"]
    early = curl(download, address, video_id)
    assert (early.returncode, Path("balloon.mp4").exists()) == (22, False)
    assert "409" in early.stderr
    while json.loads(curl(show, address, video_id).stdout)["state"] != "completed":
        time.sleep(0.5)
    assert curl(download, address, video_id).returncode == 0
    assert Path("balloon.mp4").read_bytes()[4:8] == b"ftyp"
    live_id = json.loads(curl(live, address).stdout)["id"]
    assert [curl(line, address, live_id).returncode for line in (prompt, stop)] == [0, 0]
    missing = curl(show, address, "video_" + "0" * 24)
    assert (missing.returncode, "there is no video" in missing.stdout) == (22, True)
