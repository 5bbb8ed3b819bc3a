"""`pavdm train` from the command line: only the path on stdout, and runs that resume after an interrupt."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.command import CommandResult, pavdm
from support.tiny import POCKET, VAE_CONFIG, randomized
from torch import Tensor

from pavdm_cli import ui
from pavdm_cli.errors import UsageError
from pavdm_cli.models.pocket import checkpoint as store
from pavdm_cli.models.pocket.transformer import Pocket
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.training.pocket import runs, tasks
from pavdm_cli.training.pocket.latent_pool import Clips, Pool
from pavdm_cli.training.pocket.preview import preview

TINY = ["--steps", "3", "--batch-size", "1", "--device", "cpu"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with weights of a tiny VAE and a tiny denoiser."""
    store.save(randomized(PocketVAE(VAE_CONFIG)), tmp_path / "vae.safetensors", {})
    store.save(randomized(Pocket(POCKET)), tmp_path / "denoiser.safetensors", {})
    return tmp_path


@pytest.fixture
def command(files: Path, monkeypatch: pytest.MonkeyPatch):
    """`pavdm train` with tiny models, few clips, few frames for validation, and short previews."""
    held_out = tasks.VAETask._held_out
    monkeypatch.setattr(tasks.VAETask, "_held_out", lambda task, count=64: held_out(task, 2))
    monkeypatch.setattr(tasks, "preview", partial(preview, chunks=1))
    parts = {
        "vae": ["--init", str(files / "vae.safetensors")],
        "denoiser": [
            "--init",
            str(files / "denoiser.safetensors"),
            "--vae",
            str(files / "vae.safetensors"),
            "--clips",
            "2",
        ],
    }

    def run(part: str, *more: str) -> CommandResult:
        return pavdm("train", part, "--output-dir", files / "run", *TINY, *parts[part], *more)

    return run


@pytest.mark.parametrize("part", ["vae", "denoiser"])
def test_training_prints_only_the_path_of_the_weights(part, command, files):
    code, out, err = command(part)
    path = files / "run" / f"{part}.safetensors"
    assert (code, out) == (0, f"{path}\n")
    assert f"training in {files / 'run'}" in err
    assert "Traceback" not in err
    load = store.load_vae if part == "vae" else store.load_denoiser
    assert load(path).config == load(files / f"{part}.safetensors").config
    trained_on = {"world"} if part == "vae" else {"world", "vocabulary", "latents"}
    assert store.training_metadata(path)["steps"] == 3
    assert trained_on <= store.training_metadata(path).keys()
    assert (files / "run" / "sheet-0000003.png").stat().st_size > 1000


@pytest.mark.parametrize("method", ["base", "rw"])
def test_every_method_trains(method, command, files):
    code, out, _ = command("denoiser", "--method", method)
    assert code == 0
    assert store.training_metadata(Path(out.strip()))["method"] == method


def test_single_images_train_with_a_shift_and_an_object_weight(command, files):
    options = {"window": 1, "shift": 3.0, "object_weight": 2.0, "fill_batches": True}
    code, out, err = command(
        *("denoiser", "--method", "base", "--window", "1", "--shift", "3", "--object-weight", "2", "--fill-batches")
    )
    assert code == 0, err
    metadata = store.training_metadata(Path(out.strip()))
    assert {name: metadata[name] for name in options} == options
    plain = command("denoiser", "--method", "rw", "--output-dir", str(files / "plain"))[1]
    assert not options.keys() & store.training_metadata(Path(plain.strip())).keys()


@pytest.mark.parametrize("native", [False, True])
def test_matmuls_are_in_bfloat16_where_that_is_fast(native, files, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "has_native_bf16", lambda device: native)
    options = runs.TrainOptions(tmp_path / "run", steps=1, learning_rate=0.1, batch_size=1, device="cpu")
    assert runs.vae_task(options).precision == ("bf16" if native else "fp32")
    assert runs.vae_task(replace(options, precision="bf16")).precision == "bf16"
    assert runs.vae_task(replace(options, precision="fp32")).precision == "fp32"


def test_distilled_weights_record_their_guidance(command, files):
    code, out, _ = command("denoiser", "--distill-guidance", "1.5")
    assert code == 0
    assert store.training_metadata(Path(out.strip()))["guided"] == 1.5
    code, out, err = command(
        "denoiser", "--output-dir", str(files / "again"), "--init", out.strip(), "--distill-guidance", "2"
    )
    assert (code, out) == (2, "")
    assert "is already distilled, for a guidance scale of 1.5" in err
    assert "hint: pass its teacher with --teacher" in err


def test_a_student_continues_with_another_teacher(command, files):
    student = command("denoiser", "--distill-guidance", "1.5")[1].strip()
    words = ("--teacher", str(files / "denoiser.safetensors"), "--distill-guidance", "2", "--learning-rate", "0")
    code, out, err = command("denoiser", "--output-dir", str(files / "again"), "--init", student, *words)
    assert code == 0, err
    assert store.training_metadata(Path(out.strip()))["guided"] == 2
    before, after = load_file(student), load_file(out.strip())
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # at a learning rate of zero


def test_a_student_starts_from_its_teacher_by_default(command, files):
    words = ("--teacher", str(files / "denoiser.safetensors"), "--distill-guidance", "2", "--learning-rate", "0")
    code, out, err = command("denoiser", "--init", "", *words)
    assert code == 0, err
    teacher, student = load_file(files / "denoiser.safetensors"), load_file(out.strip())
    assert all(torch.equal(value, student[name]) for name, value in teacher.items())


def send_signals(monkeypatch: pytest.MonkeyPatch, numbers: list[signal.Signals]) -> None:
    """Raise signals in the second step of the VAE's training."""
    loss = tasks.VAETask.loss

    def loss_with_signals(self: tasks.VAETask, step: int) -> Tensor:
        while step == 1 and numbers:
            signal.raise_signal(numbers.pop())
        return loss(self, step)

    monkeypatch.setattr(tasks.VAETask, "loss", loss_with_signals)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_an_interrupted_run_resumes_bit_for_bit(number, exit_code, command, files, monkeypatch):
    send_signals(monkeypatch, [number])
    code, out, err = command("vae")
    checkpoint = files / "run" / "checkpoint.pt"
    assert (code, out) == (exit_code, "")
    assert err.splitlines()[-1] == f"interrupted: the same command resumes from {checkpoint}"
    assert torch.load(checkpoint, weights_only=True)["step"] == 2
    code, out, _ = command("vae")
    assert code == 0
    straight = Path(command("vae", "--output-dir", str(files / "straight"))[1].strip())
    left, right = load_file(out.strip()), load_file(straight)
    assert all(torch.equal(left[name], right[name]) for name in left.keys() | right.keys())


def test_a_second_signal_stops_at_once(command, files, monkeypatch):
    send_signals(monkeypatch, [signal.SIGINT, signal.SIGINT])
    code, out, err = command("vae")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted: no checkpoint was saved; the same command starts over"
    assert not (files / "run" / "checkpoint.pt").exists()


def test_an_interrupt_while_rendering_is_one_line(command, monkeypatch):
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "load_or_encode", interrupted)
    code, out, err = command("denoiser")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1].startswith("interrupted: ")


def test_init_weights_are_trained_except_rope_frequencies(files, tmp_path):
    settings = runs.TrainOptions(
        tmp_path / "run", steps=1, learning_rate=0.1, batch_size=1, init=files / "denoiser.safetensors"
    )
    state = torch.get_rng_state()
    task = runs.denoiser_task(settings, runs.Objective("pa"), files / "vae.safetensors", 1, ui.progress)
    assert torch.equal(torch.get_rng_state(), state)
    initial = store.load_denoiser(files / "denoiser.safetensors").state_dict()
    assert all(torch.equal(value, initial[name]) for name, value in task.model.state_dict().items())
    assert [name for name, p in task.model.named_parameters() if not p.requires_grad] == ["stdit.rope.freqs"]


@pytest.mark.parametrize(("clips", "held_out"), [(1, 1), (128, 128), (4000, 128)])
def test_up_to_128_clips_are_used_for_validation(clips, held_out, files, tmp_path, monkeypatch):
    rendered: dict[str, int] = {}

    def count_clips(path: Path, clips: Clips, *args: object) -> Pool:
        rendered[path.stem] = clips.count
        return Pool(torch.zeros(1))

    monkeypatch.setattr(runs, "load_or_encode", count_clips)
    settings = runs.TrainOptions(
        tmp_path / "run", steps=1, learning_rate=0.1, batch_size=1, init=files / "denoiser.safetensors"
    )
    runs.denoiser_task(settings, runs.Objective("pa"), files / "vae.safetensors", clips, ui.progress)
    assert rendered == {"clips": clips, "held-out": held_out}


def test_a_full_disk_is_one_error_line(command, monkeypatch):
    def full(self: tasks.VAETask, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tasks.VAETask, "write_sheet", full)
    code, out, err = command("vae")
    assert (code, out) == (4, "")
    assert "No space left on device" in err
    assert "Traceback" not in err


def test_a_resumed_run_reports_its_own_speed(monkeypatch, capsys):
    clock = iter(range(100))
    monkeypatch.setattr(ui.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(ui, "SECONDS_BETWEEN_LINES", 2.0)
    with ui.training_progress(1000) as report:
        for step in (901, 902, 903, 904):
            report(step, {"loss": 0.5})
    lines = [
        "training: 902/1000 steps, 1.0 steps/s, 98 s left loss 0.5000",
        "training: 904/1000 steps, 1.0 steps/s, 96 s left loss 0.5000",
    ]
    assert capsys.readouterr().err.splitlines() == lines


def test_freeze_encoder_needs_init(tmp_path):
    with pytest.raises(UsageError, match="--freeze-encoder needs a trained encoder"):
        runs.vae_task(
            runs.TrainOptions(tmp_path / "run", steps=1, learning_rate=0.1, batch_size=1), freeze_encoder=True
        )
    assert not list(tmp_path.iterdir())


WRONG = {
    "an unknown method": (["denoiser", "--method", "fast"], 2, "--method must be one of base, pa, rw, got 'fast'"),
    "the length of progressive windows": (["denoiser", "--window", "1"], 2, "--window needs --method base or rw"),
    "windows longer than a clip": (
        ["denoiser", "--method", "base", "--window", "21"],
        2,
        "--window must be at most 20, got 21",
    ),
    "a shift of progressive levels": (["denoiser", "--shift", "2"], 2, "--shift only applies to --method base"),
    "an unknown precision": (["denoiser", "--precision", "fp8"], 2, "--precision must be one of bf16, fp32, got 'fp8'"),
    "no such weights": (["vae", "--init", "nothing.safetensors"], 5, "no weights at nothing.safetensors"),
    "no such vae": (["denoiser", "--vae", "nothing.safetensors"], 5, "no weights at nothing.safetensors"),
    "no teacher": (["denoiser", "--init", "", "--distill-guidance", "2"], 2, "--distill-guidance needs a teacher"),
    "a teacher of nothing": (["denoiser", "--teacher", "x.safetensors"], 2, "--teacher needs --distill-guidance"),
    "no such teacher": (
        ["denoiser", "--teacher", "x.safetensors", "--distill-guidance", "2"],
        5,
        "no weights at x.safetensors",
    ),
    "an unknown device": (["vae", "--device", "tpu"], 2, "--device must be one of auto, cpu, cuda, mps, got 'tpu'"),
    "a rate below zero": (["vae", "--learning-rate", "-1"], 2, "Invalid value for '--learning-rate'"),
    "no steps": (["vae", "--steps", "0"], 2, "Invalid value for '--steps'"),
    "another part's weights": (
        ["vae", "--init", "{files}/denoiser.safetensors"],
        5,
        "does not describe a model of this kind",
    ),
    "a file where the folder should be": (
        ["vae", "--output-dir", "{files}/vae.safetensors"],
        4,
        "cannot create the folder",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_options_are_one_error_line(case, command, files):
    words, exit_code, message = WRONG[case]
    code, out, err = command(*(word.format(files=files) for word in words))
    assert (code, out) == (exit_code, "")
    assert message in err
    assert "Traceback" not in err
    assert not (files / "run").exists()


def test_a_damaged_checkpoint_is_one_error_line(command, files):
    (files / "run").mkdir()
    (files / "run" / "checkpoint.pt").write_bytes(b"damaged")
    code, out, err = command("vae")
    assert (code, out) == (5, "")
    assert "is damaged" in err
    assert "hint: choose another --output-dir" in err
    assert "Traceback" not in err
