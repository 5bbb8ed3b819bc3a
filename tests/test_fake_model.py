"""Every verb works with a third model that nothing in the package knows: see `support.fake_model`.

A process of its own generates, is killed and resumes; other commands run in this one, which starts much faster.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from support import clips
from support.command import pavdm, pavdm_process
from support.fake_model import loaded
from support.fake_model.model import MODEL, SPEC
from support.tiers import long
from torch import Tensor

from pavdm_cli.models import registry
from pavdm_cli.models.adapter import Placement
from pavdm_cli.models.streams import run_stream
from pavdm_cli.video import open_video, read_metadata

TESTS = Path(__file__).parent
PROMPT = "a red ball over green hills"
REGISTER = 'from pavdm_cli.models import registry\nregistry.MODELS["fake"] = "support.fake_model.model"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which every process knows the model, and has its weights."""
    folder = tmp_path_factory.mktemp("fake")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(REGISTER)
    loaded.write(folder / "cache" / "pavdm" / "models" / "fake")
    return folder


def run(folder: Path, *words: object) -> str:
    """Standard output of a command in this process, whose flags were built without the model and its defaults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setitem(registry.MODELS, "fake", "support.fake_model.model")
        result = pavdm(*words, folder=folder)
    assert result.code == 0, result.err
    return result.out


def run_process(folder: Path, *words: object) -> str:
    """Standard output of a command in a process of its own."""
    result = pavdm_process(*words, folder=folder, env=environment(folder))
    assert result.code == 0, result.err
    return result.out


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process that knows the model."""
    paths = [folder / "site", TESTS, TESTS.parent, TESTS.parent / "kernels"]
    return {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }


SAMPLED = ("--model", "fake", "--seed", 3, "--device", "cpu", "--threads", 1)


def made(folder: Path, name: str, *words: object, run: Callable[..., str] = run) -> dict[str, Any]:
    """Generate a video; its metadata."""
    run(folder, "generate", PROMPT, "--frames", 22, "-o", name, "--force", *SAMPLED, *words)
    assert open_video(folder / name).frames == 22
    return read_metadata(folder / name) or {}


@pytest.mark.integration
def test_generate_offloads_and_info_gives_the_command_again(folder: Path) -> None:
    stored = made(folder, "a.mp4", "--negative-prompt", "dark", run=run_process)
    assert (stored["model"], stored["negative_prompt"], stored["guidance"]) == ("fake", "dark", 3.0)
    for mode in ("model", "sequential"):
        made(folder, "b.mp4", "--negative-prompt", "dark", "--offload", mode)
        assert pixels(folder / "b.mp4") == pixels(folder / "a.mp4")
    made(folder, "b.mp4")
    assert pixels(folder / "b.mp4") != pixels(folder / "a.mp4")
    assert "--negative-prompt dark" in run(folder, "info", "a.mp4")


@pytest.mark.integration
@pytest.mark.parametrize("method", ["rn", "rw", "fifo"])
def test_every_method_makes_the_frames_asked_for(folder: Path, method: str) -> None:
    made(folder, "m.mp4", "--method", method)


@pytest.mark.integration
def test_the_prompt_changes_where_weights_are_offloaded_too(folder: Path) -> None:
    words = ("--at", "1.5s", "a blue kite", "--blend", 0.5)
    stored = made(folder, "changed.mp4", *words)
    assert stored["timeline"] == [{"at": 1.5, "prompt": "a blue kite"}]
    for mode in ("model", "sequential"):
        made(folder, "offloaded.mp4", *words, "--offload", mode)
        assert pixels(folder / "offloaded.mp4") == pixels(folder / "changed.mp4")
    again = shlex.split(run(folder, "info", "changed.mp4").splitlines()[-1])[1:]
    run(folder, *again, "-o", "again.mp4", "--force")
    assert pixels(folder / "again.mp4") == pixels(folder / "changed.mp4")
    made(folder, "plain.mp4")
    assert pixels(folder / "plain.mp4") != pixels(folder / "changed.mp4")


@pytest.mark.integration
def test_an_image_is_the_first_frame_and_a_video_is_continued(folder: Path) -> None:
    Image.fromarray(clips.corners(64, 72)).save(folder / "image.png")
    made(folder, "image.mp4", "--image", "image.png")
    for start in ("clip", "noised"):
        words = ("--frames", 9, "-o", "longer.mp4", "--force", "--start", start, *SAMPLED)
        run(folder, "extend", "image.mp4", *words)
        assert open_video(folder / "longer.mp4").frames == 31


KILLED = ("generate", PROMPT, "--frames", 22, *SAMPLED)


@pytest.fixture(scope="module")
def whole(folder: Path) -> bytes:
    """The file of a process that was not killed."""
    run_process(folder, *KILLED, "-o", "whole.mp4")
    return (folder / "whole.mp4").read_bytes()


@pytest.mark.integration
@pytest.mark.parametrize(("checkpoints", "run"), [*long((1, run_process)), (3, run)])
def test_a_killed_video_is_resumed_to_the_same_bytes(
    folder: Path, whole: bytes, checkpoints: int, run: Callable[..., str]
) -> None:
    faulty = [sys.executable, str(TESTS.parent / "benchmarks" / "faulty_process.py"), "replace", str(checkpoints + 1)]
    words, env = (*KILLED, "-o", "killed.mp4", "--force"), environment(folder)
    assert pavdm_process(*words, folder=folder, env=env, start=faulty).code == -signal.SIGKILL
    run(folder, "resume", "killed.mp4")
    assert (folder / "killed.mp4").read_bytes() == whole


@pytest.mark.integration
def test_it_is_planned_measured_and_listed(folder: Path) -> None:
    plan = json.loads(run(folder, "generate", PROMPT, "--frames", 22, "--plan", "--json", *SAMPLED))
    assert plan["fits"]
    assert plan["time"]["denoise_tflop"] > 0
    words = ("--model", "fake", "--seconds", 1, "--threads", 1, "--device", "cpu", "--json")
    row = json.loads(run_process(folder, "bench", "throughput", *words))  # starts another one, to time a cold start
    assert row["summary"]["steady_fps"] > 0
    assert json.loads(run(folder, "bench", "throughput", "--random-weights", *words))["config"]["random_weights"]
    listed = json.loads(run(folder, "models", "list", "--json"))
    assert "fake" in [model["name"] for model in listed["models"]]
    assert "4 frames per latent, 1 in the first" in run(folder, "models", "show", "fake")


@pytest.mark.integration
def test_a_training_step_changes_its_weights_and_the_result_is_a_model(folder: Path) -> None:
    (folder / "videos").mkdir()
    frames = [np.full((64, 72, 3), 8 * number, np.uint8) for number in range(30)]
    clips.make(folder / "videos" / "one.mp4", frames)
    (folder / "videos" / "one.txt").write_text("a gray wall")
    words = (
        "--data",
        "videos",
        "--output-dir",
        "run",
        "--steps",
        1,
        "--batch-size",
        1,
        "--precision",
        "fp32",
        "--device",
        "cpu",
    )
    sizes = (
        "--size",
        "72x64",
        "--fps",
        8,
        "--window",
        4,
        "--chunk",
        2,
        "--validation-videos",
        0,
        "--precision",
        "fp32",
    )
    result = Path(run(folder, "train", "denoiser", "--init", "fake", *words, *sizes).strip())
    run(folder, "generate", PROMPT, "--frames", 5, "-o", "t.mp4", "--model", folder / result, "--device", "cpu")
    assert open_video(folder / "t.mp4").frames == 5


def pixels(path: Path) -> str:
    """A digest of the decoded frames."""
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray().tobytes() for frame in file.decode(video=0)]
    return hashlib.sha256(b"".join(frames)).hexdigest()


def latents(count: int) -> Tensor:
    return torch.randn(1, count, 4, 8, 9, generator=torch.Generator().manual_seed(1))


def test_frames_do_not_depend_on_how_latents_were_pushed(tmp_path: Path) -> None:
    model = MODEL.with_weights("fake", loaded.write(tmp_path / "fake")).load(Placement(torch.device("cpu")), "weights")
    z, layout = latents(7), MODEL.layout(SPEC.size, SPEC.fps)
    whole = run_stream(model.decode_stream(SPEC), z)
    assert whole.shape[1] == layout.num_frames(7) == 25
    for cut in range(1, 7):
        stream = model.decode_stream(SPEC)
        first = stream.push(z[:, :cut])
        rest = model.decode_stream(SPEC, z[:, cut - stream.replay : cut]).push(z[:, cut:])
        assert torch.equal(torch.cat([first, rest], dim=1), whole)
        assert rest.shape[1] == len(layout.frame_range(0, 7 - cut, continues_stream=True))
    assert run_stream(model.encode_stream(SPEC), whole).shape[1] == 7


def test_a_model_that_does_not_compile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.MODELS, "fake", "support.fake_model.model")
    result = pavdm("generate", PROMPT, *SAMPLED, "--compile")
    assert (result.code, "fake does not support --compile" in result.err) == (2, True)
