"""The Python API: the documented examples run, and it makes the same videos as the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer.main
from support.clips import grays, make
from support.command import pavdm
from support.decoding import decoded_frames

import pavdm_cli
from pavdm_cli.api import known_options
from pavdm_cli.app import app
from pavdm_cli.errors import DeviceError, OutputError, PavdmError, UsageError
from pavdm_cli.models import registry
from pavdm_cli.runtime.python_names import with_python_names
from pavdm_cli.video import read_metadata

ROOT = Path(__file__).parents[1]
BLOCKS = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES = BLOCKS.findall((ROOT / "docs" / "python.md").read_text(encoding="utf-8"))
PROMPT = "a red ball over green hills"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model() -> pavdm_cli.Model:
    return pavdm_cli.load_model("pocket", steps=6, threads=1, device="cpu")


@pytest.mark.integration
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_documentation_run(number: int) -> None:
    exec(compile(EXAMPLES[number], "docs/python.md", "exec"), {})


def test_there_are_examples_to_run() -> None:
    assert len(EXAMPLES) >= 4


def test_frames_are_those_of_the_command_line(model: pavdm_cli.Model) -> None:
    words = ("--frames", "6", "--steps", "6", "--seed", "3", "--threads", "1", "--device", "cpu")
    assert pavdm("generate", PROMPT, *words, "-o", "v.mp4").code == 0
    saved = model.generate(PROMPT, frames=6, seed=3).save("w.mp4")
    assert saved == Path("w.mp4")
    assert np.array_equal(decoded_frames(saved), decoded_frames(Path("v.mp4")))
    frames = list(model.generate(PROMPT, frames=6, seed=3).frames())
    assert (len(frames), frames[0].shape, frames[0].dtype) == (6, (64, 96, 3), np.uint8)


def test_an_extension_gives_its_new_frames_and_saves_all(model: pavdm_cli.Model) -> None:
    model.generate(PROMPT, frames=6, seed=3).save("v.mp4")
    longer = model.extend("v.mp4", frames=4, seed=5)
    assert len(list(longer.frames())) == 4
    assert len(decoded_frames(longer.save("w.mp4"))) == 10
    assert len(decoded_frames(model.extend("v.mp4", frames=4, seed=5, only_new=True).save("n.mp4"))) == 4


def test_an_image_is_the_first_frame(model: pavdm_cli.Model) -> None:
    from PIL import Image

    Image.new("RGB", (96, 64), (40, 90, 160)).save("p.png")
    first = next(model.generate(PROMPT, frames=4, seed=3, image="p.png").frames())
    assert np.abs(first.astype(int) - (40, 90, 160)).max() <= 1


def test_weights_are_loaded_once(model: pavdm_cli.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    list(model.generate(PROMPT, frames=2).frames())
    monkeypatch.setattr("pavdm_cli.generation.pipeline.open_model", None)
    list(model.generate("a blue kite", frames=2).frames())
    with pytest.raises(UsageError, match="a different precision"):
        list(model.generate(PROMPT, frames=2, precision="bf16").frames())


def test_mistakes_are_raised_before_any_work(model: pavdm_cli.Model) -> None:
    with pytest.raises(UsageError, match="unknown option 'second'"):
        pavdm_cli.generate(PROMPT, second=3)
    for misplaced in ("only_new", "path", "prompt_text"):
        with pytest.raises(UsageError, match=f"unknown option '{misplaced}'"):
            model.generate(PROMPT, **{misplaced: True})
    with pytest.raises(UsageError, match=r"^seconds and frames cannot"):
        pavdm_cli.generate(PROMPT, seconds=3, frames=3)
    Path("v.mp4").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        model.generate(PROMPT, frames=2).save("v.mp4")
    assert Path("v.mp4").read_text() == "mine"


@pytest.mark.integration
def test_the_number_of_threads_is_each_videos_own(model: pavdm_cli.Model) -> None:
    before = torch.get_num_threads()
    try:
        path = model.generate(PROMPT, frames=2, threads=2).save("two.mp4")
        assert (torch.get_num_threads(), read_metadata(path)["threads"]) == (2, 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.integration
def test_memory_is_planned_before_weights_are_loaded_and_not_again(
    folder: Path, own_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pavdm_cli.load_model(str(folder), steps=6, threads=1, device="cpu", size="72x64", frames=2)
    first = list(model.generate(PROMPT, seed=3).frames())
    monkeypatch.setattr("pavdm_cli.generation.memory_plan.free_bytes", lambda device: 1000)
    assert np.array_equal(list(model.generate(PROMPT, seed=3).frames()), first)
    with pytest.raises(DeviceError, match="is free"):
        list(pavdm_cli.generate(PROMPT, model=str(folder), size="72x64", frames=2, device="cpu").frames())


def test_a_size_by_name_is_that_of_the_command_line() -> None:
    video = pavdm_cli.generate(PROMPT, model="wan2.2-ti2v-5b", size="720p")
    assert video.request.spec.size == (704, 1280)


def test_models_are_listed() -> None:
    assert {"pocket", "opensora-v1.2"} <= {spec.name for spec in pavdm_cli.list_models()}


def test_importing_the_package_imports_neither_torch_nor_the_api() -> None:
    code = "import sys, pavdm_cli; print({'torch', 'numpy', 'pavdm_cli.api'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()"


def test_a_batch_makes_each_job_once_and_names_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [{"prompt": PROMPT}, {"prompt": PROMPT, "seed": 3}]
    options = {"frames": 2, "steps": 6, "warmup": 0, "device": "cpu", "threads": 1}
    paths = pavdm_cli.generate_batch(jobs, "videos", **options)
    assert [path.name[-6:] for path in paths] == ["-0.mp4", "-3.mp4"]
    before = [path.stat().st_mtime_ns for path in paths]
    assert pavdm_cli.generate_batch(jobs, "videos", **options) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
    with pytest.raises(UsageError, match="unknown option 'second'"):
        pavdm_cli.generate_batch([{"prompt": PROMPT, "second": 3}], "other")
    with pytest.raises(UsageError, match="job 2: videos already has a different job"):
        pavdm_cli.generate_batch([jobs[0], jobs[1] | {"frames": 3}], "videos", **options)

    def fail(*inputs: object) -> None:
        raise DeviceError("the device failed")

    monkeypatch.setattr("pavdm_cli.batch.worker.render", fail)
    with pytest.raises(PavdmError, match=r"1 of 1 jobs failed: .*the device failed"):
        pavdm_cli.generate_batch([{"prompt": PROMPT, "seed": 9}], "more", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": "long"}, "seconds must be a time or forever, got 'long'"),
        ({"seconds": float("nan")}, "seconds must be a number, got nan"),
        ({"seed": "x"}, "seed must be an integer, got 'x'"),
        ({"steps": 6.5}, "steps must be an integer, got 6.5"),
        ({"crf": True}, "crf must be an integer, got True"),
        ({"threads": "2"}, "threads must be an integer, got '2'"),
        ({"prompt": None}, "prompt must be text, got None"),
        ({"loop": "yes"}, "loop must be True or False, got 'yes'"),
    ],
)
def test_a_value_of_another_type_is_a_usage_error(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        pavdm_cli.generate(**{"prompt": PROMPT} | options)


def test_a_video_says_what_it_is_and_what_its_prompt_leaves_out() -> None:
    video = pavdm_cli.generate("a red ball", seconds=2, seed=7, device="cpu")
    assert repr(video) == "<Video of 'a red ball' by pocket: 16 frames, seed 7>"
    assert any("leaves out motion, place and time of day; filled in from the seed" in line for line in video.notes)
    assert "seed 0>" in repr(pavdm_cli.generate("a red ball", frames=4))
    assert "endless" in repr(pavdm_cli.generate("a red ball", seconds="forever"))


def test_a_continuation_notes_what_it_sees(tmp_path: Path) -> None:
    source = make(tmp_path / "tall.mp4", grays(3, 64, 36))
    video = pavdm_cli.extend(source, "a red ball", frames=4, device="cpu")
    assert "after " in repr(video)
    assert any("sees only the center" in line for line in video.notes)
    assert any("knows only its own rendered world" in line for line in video.notes)


def test_a_misspelled_option_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown option 'second'") as error:
        pavdm_cli.generate("a red ball", second=1)
    assert error.value.hint == "did you mean seconds?"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"scale": 9}, "scale must be 1 to 8, got 9", "1 keeps the model's native size"),
        ({"size": "720x1280"}, "pocket supports 192x128 or 96x64, got 720x1280", 'use size="96x64"'),
        ({"seconds": 1e9}, "seconds=1", "for example seconds=10"),
        ({"method": "none"}, "method must be", ""),
        ({"count": 3}, "unknown option 'count'", "call it once for each seed"),
        ({"output": "a.mp4"}, "unknown option 'output'", "give the path to save()"),
        ({"sink": 65}, "the sink must be 0 to 64 chunks, got 65", "a context of one chunk"),
        ({"aesthetic_score": 7.0}, "unknown option 'aesthetic_score'", ""),
    ],
)
def test_errors_name_parameters_of_python(options: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        pavdm_cli.generate(PROMPT, device="cpu", **options)
    assert (message in error.value.message, hint in error.value.hint) == (True, True), error.value.as_line()
    assert "--" not in error.value.as_line()
    assert str(error.value) == error.value.message


def test_flags_become_parameters_and_commands_stay() -> None:
    text = "--cfg-batching or --frames 9, --size 96x64; omit --no-reencode; `pavdm info --json` --at 2s:"
    expected = 'cfg_batching or frames=9, size="96x64"; omit reencode=False; `pavdm info --json` at 2s:'
    assert with_python_names(text) == expected


def test_the_document_lists_what_differs_and_the_options_of_models() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8").partition("## Options")[2]
    documented = {flag.replace("-", "_") for flag in re.findall(r"--([a-z-]+)", text)}
    command = typer.main.get_command(app).get_command(None, "generate")
    flags = {option[2:].replace("-", "_") for each in command.params for option in each.opts if option[:2] == "--"}
    models = dict(re.findall(r"^\| `([\w.-]+)`.* \| (.*) \|$", text, re.MULTILINE))
    known = frozenset[str]().union(*(known_options(spec.name) for spec in pavdm_cli.list_models()))
    assert flags - known - documented == set()
    for spec in pavdm_cli.list_models():
        row = next(value for key, value in models.items() if spec.name.startswith(key.rstrip(".")))
        assert re.findall(r"`(\w+)`", row) == [option.key for option in registry.find(spec.name).options]
