"""`pavdm train denoiser --data`: from a folder of videos to a model that makes one, also under torchrun."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support import clips, published
from support.command import CommandResult, pavdm
from torch import Tensor

from pavdm_cli.models import distributed
from pavdm_cli.training.finetune.task import FinetuneTask

pytestmark = pytest.mark.usefixtures("own_cache")

STEPS = 4
COMMON = ["--steps", str(STEPS), "--size", "64x64", "--window", "5", "--checkpoint-every", "2", "--precision", "fp32"]
COMMON += ["--device", "cpu", "--threads", "1", "--validation-videos", "1", "--warmup", "2"]
CAPTIONS = {
    "a.mp4": "a red balloon drifts over green hills",
    "inner/b.mkv": "a boat on calm water",
    "c.mp4": "a street",
}


@dataclass
class Studio:
    """A folder with weights, videos and an uninterrupted run."""

    folder: Path
    result: CommandResult

    def command(self, run: str, *more: str | Path) -> list[str]:
        words = ["train", "denoiser", "--init", self.folder / "tiny", "--data", self.folder / "videos", "--output-dir"]
        return [*map(str, [*words, self.folder / run]), *COMMON, *map(str, more)]

    def log(self, run: str) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.folder / run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = tmp_path_factory.mktemp("studio")
    published.write(folder / "tiny")
    (folder / "videos" / "inner").mkdir(parents=True)
    for number, name in enumerate(CAPTIONS):
        frames = clips.grays(9, 48, 64)[number:] * 3
        clips.make(folder / "videos" / name, frames[:18], clips.ClipSpec(rate=Fraction(12)))
    rows = "".join(f"{name},{caption}\n" for name, caption in CAPTIONS.items())
    (folder / "videos" / "captions.csv").write_text(f"path,text\n{rows}gone.mp4,nothing\n")
    (folder / "videos" / "broken.mp4").write_bytes(b"no video" * 9)
    (folder / "videos" / "broken.txt").write_text("rain")
    clips.make(folder / "videos" / "silent.mp4", clips.grays(2), clips.ClipSpec())
    new_studio = Studio(folder, CommandResult(1, "", ""))
    new_studio.result = pavdm(*new_studio.command("straight"))
    return new_studio


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in two processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pavdm_cli"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*start, *words], capture_output=True, text=True, timeout=300, env=env)


def assert_close(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Equal weights, except for biases of text keys: Adam scales up the rounding errors in their gradients."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        if name.endswith("cross_attn.kv_linear.bias"):
            value, other = value[len(value) // 2 :], right[name][len(value) // 2 :]
        else:
            other = right[name]
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-5, msg=name)


def test_finetuning_reports_skipped_videos(studio):
    code, out, err = studio.result
    assert (code, out) == (0, f"{studio.folder / 'straight' / 'model'}\n"), err
    lines = err.splitlines()
    counts = "note: 3 videos to train on, 3 skipped: 1 missing, 1 without a caption, 1 unreadable"
    assert counts in lines
    assert f"note: skipped: {studio.folder / 'videos' / 'silent.mp4'} (without a caption)" in lines
    assert "note: 3 of them have fewer than 24 fps: frames repeat; lower --fps to avoid it" in lines
    rows = studio.log("straight")
    assert [row["step"] for row in rows] == [2, 4, 4]
    assert all(row["held_out"] > 0 and row["loss"] > 0 for row in rows[:2])


def test_finetuned_weights_generate_a_video(studio, tmp_path):
    model = studio.folder / "straight" / "model"
    before = load_file(studio.folder / "tiny" / "transformer" / "model.safetensors")
    after = load_file(model / "transformer" / "model.safetensors")
    assert {name: value.shape for name, value in after.items()} == {n: value.shape for n, value in before.items()}
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name for name in after if name not in changed} >= {"rope.freqs", "y_embedder.y_embedding"}
    assert len(changed) > 0.9 * len(after) - 5
    with safe_open(model / "transformer" / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["about"])["method"] == "pa"
    video = tmp_path / "v.mp4"
    quick = ["--size", "64x64", "--steps", "2", "--window", "5", "--frames", "3", "--seed", "1", "--device", "cpu"]
    code, out, err = pavdm("generate", "a boat", "--model", str(model), *quick, "-o", str(video))
    assert (code, out.strip()) == (0, str(video)), err


@pytest.mark.integration
def test_a_run_resumes_identically_in_two_processes(studio, monkeypatch):
    shutil.copytree(studio.folder / "straight" / "cache", studio.folder / "halting" / "cache")
    loss = FinetuneTask.loss

    def interrupted_loss(self: FinetuneTask, step: int) -> Tensor:
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return loss(self, step)

    monkeypatch.setattr(FinetuneTask, "loss", interrupted_loss)
    code, out, err = pavdm(*studio.command("halting"))
    assert (code, out) == (130, ""), err
    assert err.splitlines()[-1].startswith("interrupted: the same command resumes from")
    assert "encoding" not in err
    result = torchrun(*studio.command("halting"))
    assert (result.returncode, result.stdout) == (0, f"{studio.folder / 'halting' / 'model'}\n"), result.stderr
    assert result.stderr.count("training in") == 1
    assert "Warning" not in result.stderr
    rows, halting = studio.log("straight"), studio.log("halting")
    assert [row["step"] for row in halting] == [STEPS, STEPS]  # the interrupt saved a checkpoint without validation
    assert halting[0] == pytest.approx(rows[1], rel=1e-5)
    stored = [torch.load(studio.folder / run / "checkpoint.pt") for run in ("straight", "halting")]
    assert stored[0]["step"] == stored[1]["step"] == STEPS
    assert_close(stored[0]["model"], stored[1]["model"])
    assert_close(stored[0]["average"], stored[1]["average"])
    moments = [checkpoint["optimizers"][0]["state"] for checkpoint in stored]
    assert moments[0].keys() == moments[1].keys()
    for index in moments[0]:
        assert moments[0][index].keys() == moments[1][index].keys()
        torch.testing.assert_close(moments[0][index]["exp_avg"], moments[1][index]["exp_avg"], rtol=1e-3, atol=1e-6)
    assert_close(
        *(
            load_file(studio.folder / run / "model" / "transformer" / "model.safetensors")
            for run in ("straight", "halting")
        )
    )


WRONG = {
    "no videos to train on": (["--data", "{folder}/tiny"], 3, "can be used for training: there is none"),
    "a folder that is none": (["--data", "{folder}/nowhere"], 3, "is not a folder"),
    "none that is long enough": (["--window", "50"], 3, "3 shorter than"),
    "a size it cannot make": (["--size", "100x60"], 2, "multiples of 8"),
    "another method": (["--method", "rn"], 2, "--method must be one of base, pa, rw, got 'rn'"),
    "no weights": (["--init", "./nowhere"], 5, "there is no folder ./nowhere"),
    "a name of nothing": (["--init", "opensora"], 5, "no model is called 'opensora'"),
    "pocket's weights": (["--init", "pocket"], 2, "--data needs a model to fine-tune"),
    "all held out": (["--validation-videos", "3"], 2, "--validation-videos 3 leaves none of 3 to train on"),
    "a file where the folder should be": (
        ["--output-dir", "{folder}/tiny/vae/config.json"],
        4,
        "cannot create the folder",
    ),
}
PROBED = ("none that is long enough", "all held out")  # the probes of the videos stay in the cache


@pytest.mark.parametrize("case", WRONG)
def test_invalid_options_are_one_error_line(case, studio):
    arguments, exit_code, message = WRONG[case]
    code, out, err = pavdm(*studio.command("wrong", *(word.format(folder=studio.folder) for word in arguments)))
    assert (code, out) == (exit_code, ""), err
    assert message in err
    assert "Traceback" not in err
    assert (studio.folder / "wrong" / "cache").exists() is (case in PROBED)
    shutil.rmtree(studio.folder / "wrong", ignore_errors=True)


def test_mismatched_parts_are_rejected_before_encoding(studio, tmp_path):
    shutil.copytree(studio.folder / "tiny", tmp_path / "tiny")
    config = tmp_path / "tiny" / "text_encoder" / "config.json"
    config.write_text(json.dumps(published.T5 | {"d_model": 48}))
    options = ["--init", tmp_path / "tiny", "--output-dir", tmp_path / "run"]
    code, out, err = pavdm(*studio.command("odd", *options))
    assert (code, out) == (5, ""), err
    assert "has hidden size 48 (d_model), but the transformer expects 32" in err
    assert not list(tmp_path.glob("run/cache/*"))
    shutil.rmtree(config.parent)
    code, out, err = pavdm(*studio.command("odd", *options))
    assert (code, out) == (5, ""), err
    assert f"{tmp_path / 'tiny'} has no text_encoder" in err


@pytest.mark.long
def test_several_processes_report_an_error_once(studio):
    result = torchrun(*studio.command("straight", "--batch-size", "3"))
    counts = [result.stderr.count(words) for words in ("--batch-size must be a multiple of the 2 processes", "hint: ")]
    assert counts == [1, 1], result.stderr
    # torchrun ends (-15) whichever is a moment later than the first, and may name that one as the cause.
    codes = set(re.findall(r"exitcode  : (-?\d+)", result.stderr))
    assert codes in ({"2"}, {"2", "-15"}), result.stderr


@pytest.mark.integration
def test_an_error_of_one_process_is_reported_by_it(monkeypatch, capsys):
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setattr(distributed, "ERROR_TIMEOUT", timedelta(seconds=1))
    distributed.report_once("its own", lambda: print("its own"), ("localhost", store.port), world_size=2)
    distributed.report_once("its own", lambda: print("its own"), ("localhost", store.port), world_size=2)
    distributed.report_once("no store", lambda: print("no store"), ("localhost", 1), world_size=2)
    assert capsys.readouterr().out == "its own\nno store\n"


def test_unsupported_combinations_are_rejected(studio, monkeypatch):
    code, _, err = pavdm("train", "denoiser", "--init", str(studio.folder / "tiny"))
    assert code == 2
    assert "add --data FOLDER" in err
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = pavdm("train", "vae")
    assert code == 2
    assert "pocket trains in one process" in err


def test_missing_distributed_support_is_one_error_line(studio, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    code, _, err = pavdm(*studio.command("straight"))
    assert code == 6
    assert "this build of torch does not support several processes" in err
