"""What `pavdm resume` continues, what it refuses, and what says how to continue."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import fields, replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.command import pavdm
from support.interrupted import RED, made, snapshots

from pavdm_cli.generation import checkpoint, decode, stored_request
from pavdm_cli.generation.request import Output, Request
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.video import VideoWriter, open_video
from pavdm_cli.video.write.output import open_locked

MORE = pytest.mark.integration


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def cut_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cuts = snapshots(*RED, "--frames", 34, name="v.mp4")
        shutil.copy("v.mp4", cuts[7] / "whole.mp4")
    return cuts[7]


@pytest.fixture
def cut(cut_video: Path) -> Path:
    """A folder with an interrupted video, and the same whole."""
    return shutil.copytree(cut_video, Path("cut"))


@pytest.mark.parametrize("name", ["v.mp4", "v.partial.mp4", "v.partial.mp4.state"])
def test_no_chunk_that_was_saved_is_computed_again(name: str, cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[int] = []
    push = decode.ChunkDecoder.push
    monkeypatch.setattr(decode.ChunkDecoder, "push", lambda self, chunk: pushed.append(1) or push(self, chunk))
    assert pavdm("resume", cut / name).code == 0
    assert len(pushed) == 9 - 8


def test_a_complete_video_is_left_as_it_is(cut: Path) -> None:
    said = pavdm("resume", cut / "whole.mp4")
    assert (said.code, said.out) == (0, "cut/whole.mp4\n")
    assert "is complete: there is nothing to resume" in said.err


def test_a_name_without_a_video_is_refused() -> None:
    said = pavdm("resume", "absent.mp4")
    assert (said.code, said.out) == (3, "")
    assert "no interrupted video found for absent.mp4" in said.err


def test_a_part_without_a_checkpoint_names_extend() -> None:
    with VideoWriter("v.partial.mp4", 64, 48, 8) as writer:
        writer.write(np.zeros((8, 48, 64, 3), np.uint8))
    said = pavdm("resume", "v.mp4")
    assert said.code == 3
    assert "`pavdm extend v.partial.mp4`" in said.err


def test_other_weights_are_refused_unless_forced(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in cut.iterdir()}
    monkeypatch.setattr(ModelRunner, "digest", property(lambda self: "f" * 16, lambda self, value: None), raising=False)
    said = pavdm("resume", cut / "v.mp4")
    assert said.code == 2
    assert "weights " in said.err
    assert f"now {'f' * 16}" in said.err
    assert {path.name: path.read_bytes() for path in cut.iterdir()} == before
    said = pavdm("resume", cut / "v.mp4", "--force")
    assert said.code == 0
    assert "not bit-identical" in said.err


def test_other_versions_are_named(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "__version__", "99.0")
    said = pavdm("resume", cut / "v.mp4")
    assert said.code == 2
    assert f"versions: av was {open_checkpoint(cut)['versions']['av']}, now 99.0" in said.err


def open_checkpoint(cut: Path) -> dict:
    return dict(checkpoint.read(cut / "v.partial.mp4.state").run.metadata)


def test_a_changed_part_is_refused_and_a_shorter_one_always(cut: Path) -> None:
    partial = cut / "v.partial.mp4"
    data = bytearray(partial.read_bytes())
    data[-1] ^= 1
    partial.write_bytes(data)
    said = pavdm("resume", cut / "v.mp4")
    assert said.code == 2
    assert "v.partial.mp4 was changed" in said.err
    partial.write_bytes(data[:-1])
    said = pavdm("resume", cut / "v.mp4", "--force")
    assert said.code == 3
    assert "shorter than recorded in the checkpoint" in said.err
    assert partial.read_bytes() == data[:-1]


@pytest.mark.parametrize("where", [20, -20])
def test_a_damaged_checkpoint_is_one_line(cut: Path, where: int) -> None:
    path = cut / "v.partial.mp4.state"
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    said = pavdm("resume", cut / "v.mp4")
    assert (said.code, said.out) == (3, "")
    assert "cannot read the checkpoint" in said.err
    assert "Traceback" not in said.err


def test_what_follows_the_checkpoint_in_the_part_is_dropped(cut: Path) -> None:
    with (cut / "v.partial.mp4").open("ab") as file:
        file.write(b"half a segment")
    assert pavdm("resume", cut / "v.mp4").code == 0
    assert (cut / "v.mp4").read_bytes() == (cut / "whole.mp4").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="Windows renames no open file, so it holds none open")
def test_a_video_that_another_run_makes_is_refused_also_with_force(cut: Path) -> None:
    with open_locked(cut / "v.partial.mp4"):
        for words in (("resume", cut / "v.mp4", "--force"), (*RED, "--frames", 4, "--force", "-o", cut / "v.mp4")):
            said = pavdm(*words)
            assert said.code == 4
            assert "being written by another run" in said.err


def test_a_name_that_was_taken_meanwhile_is_refused_before_any_work(cut: Path) -> None:
    (cut / "v.mp4").write_bytes(b"another's")
    said = pavdm("resume", cut / "v.mp4")
    assert said.code == 4
    assert "v.mp4 exists" in said.err
    assert (cut / "v.mp4").read_bytes() == b"another's"


def test_a_kill_after_the_name_was_given_leaves_nothing_behind(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(cut, "copy")
    with monkeypatch.context() as patch:
        patch.setattr("pavdm_cli.video.write.partial.PartialFile.remove", lambda self: None)
        patch.setattr(VideoWriter, "_remove_checkpoint", lambda self: None)
        assert pavdm("resume", "copy/v.mp4").code == 0
    assert len(list(Path("copy").iterdir())) == 4
    assert pavdm("resume", "copy/v.mp4").code == 0
    assert sorted(path.name for path in Path("copy").iterdir()) == ["v.mp4", "whole.mp4"]


def test_a_checkpoint_that_a_kill_left_next_to_the_video_is_removed(cut: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoWriter, "_remove_checkpoint", lambda self: None)
        assert pavdm("resume", cut / "v.mp4").code == 0
    assert (cut / "v.partial.mp4.state").exists()
    said = pavdm("resume", cut / "v.mp4")
    assert (said.code, said.out) == (0, "cut/v.mp4\n")
    assert sorted(path.name for path in cut.iterdir()) == ["v.mp4", "whole.mp4"]


def test_a_new_run_says_how_to_resume_the_old_one(cut: Path) -> None:
    (cut / "v.partial.mp4").write_bytes(b"")  # all frames are in the checkpoint
    said = pavdm(*RED, "--frames", 4, "-o", cut / "v.mp4")
    assert said.code == 4
    assert "`pavdm resume cut/v.mp4` continues it; --force discards it" in said.err


def test_the_checkpoint_is_kept_on_request() -> None:
    made(*RED, "--frames", 4, "--keep-state", name="v.mp4")
    assert sorted(path.name for path in Path().iterdir()) == ["v.mp4", "v.partial.mp4.latents", "v.partial.mp4.state"]
    assert "is complete" in pavdm("resume", "v.mp4").err
    assert Path("v.partial.mp4.state").exists()


# Signals


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param("SIGINT", 130, marks=MORE),
        ("SIGTERM", 75),
        *(pytest.param(*case, marks=MORE) for case in [("SIGHUP", 130), ("SIGUSR1", 75), ("SIGXCPU", 75)]),
    ],
)
def test_a_signal_saves_the_chunk_and_names_the_command(name: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write, times = VideoWriter.write, []

    def interrupted(self: VideoWriter, chunk: np.ndarray) -> None:
        times.append(1)
        if len(times) == 2:
            os.kill(os.getpid(), getattr(signal, name))
        write(self, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "write", interrupted)
        said = pavdm(*RED, "--frames", 14, "-o", "v.mp4")
    assert (said.code, said.out) == (code, "")
    assert "interrupted: kept v.partial.mp4, 8 frames\nhint: `pavdm resume v.mp4` continues it" in said.err
    assert open_video(Path("v.partial.mp4")).frames == 8
    assert "`pavdm resume v.partial.mp4` continues it" in pavdm("info", "v.partial.mp4").out
    assert pavdm("resume", "v.mp4").code == 0
    made(*RED, "--frames", 14, name="w.mp4")
    assert Path("w.mp4").read_bytes() == Path("v.mp4").read_bytes()


def test_a_checkpoint_holds_no_features_and_no_keys(cut: Path) -> None:
    with safe_open(cut / "v.partial.mp4.state", "pt") as file:
        names = set(file.keys())
    assert names <= {"window", "context", "originals", "decoder.context", "decoder.replay", "frames"}


def test_every_field_of_the_sampler_is_stored(cut: Path) -> None:
    path = cut / "v.partial.mp4.state"
    value = checkpoint.read(path)
    shape, render = value.render.sampler.window.shape, value.render
    full = replace(render.sampler, sink=torch.ones(shape), history=(torch.zeros(shape), torch.ones(shape)), num_given=3)
    checkpoint.write(path, replace(value, render=replace(render, sampler=full)))
    sampler = checkpoint.read(path).render.sampler
    for one in fields(full):
        before, after = getattr(full, one.name), getattr(sampler, one.name)
        if isinstance(before, torch.Tensor):
            assert torch.equal(before, after)
        elif one.name == "history":
            assert all(map(torch.equal, before, after))
        else:
            assert before == after


def test_a_stored_request_holds_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.safetensors", "image.png", "in.mp4"):
        Path(name).touch()
    Path("weights").mkdir()
    assert stored_request.absolute("weights") == str(tmp_path / "weights")
    assert stored_request.absolute("pocket") == "pocket"
    files = {"lora": ("a.safetensors:0.5",), "output": Output(Path("v.mp4")), "image": Path("image.png")}
    request = Request("a ball", frames=4, execution=ExecutionConfig(attention="sdpa"), **files)
    stored = json.loads(json.dumps(stored_request.to_json(request)))
    monkeypatch.chdir("/")
    again = stored_request.from_json(stored, tmp_path / "v.mp4")
    assert again.lora == (f"{tmp_path / 'a.safetensors'}:0.5",)
    assert (again.image, again.output.path) == (tmp_path / "image.png", tmp_path / "v.mp4")
    assert (again.prompt, again.frames, again.execution) == ("a ball", 4, request.execution)
