"""The training loop: an interrupted run continues bit for bit, and errors are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiers import integration
from support.tiny_training import TinyVAETask, denoiser_task, vae_task
from torch import Tensor, nn

from pavdm_cli.errors import ModelError, OutputError, PavdmError
from pavdm_cli.training import loop
from pavdm_cli.training import optimizer as optimizer_module
from pavdm_cli.training.loop import TrainConfig, TrainState, ema_weights, init_state, muon_and_adamw, train, train_step
from pavdm_cli.training.pocket.tasks import VAETask

STEPS = 6
PLAN = TrainConfig(STEPS, lr=0.01, warmup=2)
SHORT = TrainConfig(3, lr=0.01)
FREQUENT = TrainConfig(3, lr=0.01, validate_seconds=0.0, sheet_seconds=0.0)
TASKS: dict[str, Callable[[], Any]] = {
    "vae": vae_task,
    **{method: partial(denoiser_task, method) for method in ("base", "pa", "rw")},
    "distilled": partial(denoiser_task, guidance=1.5),
    "images": partial(denoiser_task, "base", latents=1, timestep_shift=3.0, fill_batches=True, object_weight=2.0),
    "bf16": partial(denoiser_task, precision="bf16"),
}
every_task = pytest.mark.parametrize("make", TASKS.values(), ids=TASKS.keys())


def ignore(step: int, metrics: dict[str, float]) -> None:
    pass


def stop_after(last: int) -> loop.StepReport:
    """A report that is interrupted after a step."""

    def report(step: int, metrics: dict[str, float]) -> None:
        if step == last:
            raise KeyboardInterrupt

    return report


def interrupted(*args: object) -> None:
    raise KeyboardInterrupt


def checkpoint(folder: Path) -> dict[str, Any]:
    stored: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return stored


def assert_identical(left: Any, right: Any, at: str = "") -> None:
    """Equal bit for bit, through dictionaries and lists."""
    assert type(left) is type(right), at
    if isinstance(left, Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right), at
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), at
        for key in left:
            assert_identical(left[key], right[key], f"{at}/{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), at
        for index, pair in enumerate(zip(left, right, strict=True)):
            assert_identical(*pair, f"{at}/{index}")
    else:
        assert left == right, at


@pytest.mark.parametrize("task", ["vae", "pa", "images", *integration("base", "rw", "distilled")])
def test_a_run_interrupted_twice_equals_an_uninterrupted_one(task, tmp_path):
    (straight := tmp_path / "straight").mkdir()
    (halting := tmp_path / "halting").mkdir()
    train(TASKS[task](), PLAN, straight, ignore)
    for last in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            train(TASKS[task](), PLAN, halting, stop_after(last))
        assert checkpoint(halting)["step"] == last
    train(TASKS[task](), PLAN, halting, ignore)
    assert_identical(checkpoint(halting), checkpoint(straight))
    (name,) = (path.name for path in straight.glob("*.safetensors"))
    assert_identical(load_file(halting / name), load_file(straight / name))


@every_task
def test_steps_change_weights_but_not_global_random_state(make, tmp_path):
    state = init_state(make(), tmp_path / "none.pt")
    before, random_state = {n: w.clone() for n, w in state.task.model.state_dict().items()}, torch.get_rng_state()
    train_step(state, PLAN)
    assert torch.equal(torch.get_rng_state(), random_state)
    trained = {name for name, p in state.task.model.named_parameters() if p.requires_grad}
    changed = {name for name in trained if not torch.equal(state.task.model.state_dict()[name], before[name])}
    assert len(changed) > 0.9 * len(trained)
    frozen = before.keys() - trained - {name for name in before if "normalise" in name}
    assert all(torch.equal(state.task.model.state_dict()[name], before[name]) for name in frozen)


def test_an_interrupt_inside_a_step_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    """Weights are half updated then, here after the first of two optimizers."""
    straight, halting = tmp_path / "straight", tmp_path / "halting"
    for folder in (straight, halting):
        folder.mkdir()
    train(denoiser_task(), PLAN, straight, ignore)
    with pytest.raises(KeyboardInterrupt):
        train(denoiser_task(), PLAN, halting, stop_after(3))
    whole = optimizer_module.Muon.step
    monkeypatch.setattr(optimizer_module.Muon, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(denoiser_task(), PLAN, halting, ignore)
    monkeypatch.setattr(optimizer_module.Muon, "step", whole)
    assert checkpoint(halting)["step"] == 3
    train(denoiser_task(), PLAN, halting, ignore)
    assert_identical(checkpoint(halting), checkpoint(straight))


def test_a_finished_run_is_not_continued(tmp_path):
    train(vae_task(), PLAN, tmp_path, ignore)
    before = checkpoint(tmp_path)
    steps: list[int] = []
    train(vae_task(), PLAN, tmp_path, lambda step, metrics: steps.append(step))
    assert steps == []
    assert_identical(checkpoint(tmp_path), before)


def damaged(whole: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "text": b"this is no checkpoint\n" * 20,
        "cut short": whole[: len(whole) // 2],
        "its last bytes missing": whole[:-10],
        "zeros": bytes(len(whole)),
    }


@pytest.mark.parametrize("kind", damaged(b"").keys())
def test_a_damaged_checkpoint_is_one_error_line(kind, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(vae_task(), PLAN, tmp_path, stop_after(1))
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damaged(path.read_bytes())[kind])
    with pytest.raises(ModelError, match=r"checkpoint\.pt is damaged") as caught:
        train(vae_task(), PLAN, tmp_path, ignore)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {}}, {"model": 3}, torch.zeros(2)])
def test_a_file_that_is_no_checkpoint_is_one_error_line(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match=r"checkpoint\.pt (holds another model|is not a checkpoint)"):
        train(vae_task(), PLAN, tmp_path, ignore)


def test_a_checkpoint_of_another_task_is_rejected(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(denoiser_task("base"), PLAN, tmp_path, stop_after(1))
    with pytest.raises(ModelError, match="run of the denoiser by method base, not the denoiser by method pa"):
        train(denoiser_task("pa"), PLAN, tmp_path, ignore)
    with pytest.raises(ModelError, match="not the VAE"):
        train(vae_task(), PLAN, tmp_path, ignore)
    other = denoiser_task("base")
    other.model.stdit.final_layer.linear = nn.Linear(32, 24)
    with pytest.raises(ModelError, match="holds another model"):
        train(other, PLAN, tmp_path, ignore)


def test_a_nan_loss_stops_training_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        train(vae_task(), PLAN, tmp_path, stop_after(2))
    before = checkpoint(tmp_path)
    monkeypatch.setattr(TinyVAETask, "loss", lambda self, step: VAETask.loss(self, step) * float("nan"))
    with pytest.raises(PavdmError, match="diverged at step 2: the loss is nan"):
        train(vae_task(), PLAN, tmp_path, ignore)
    assert_identical(checkpoint(tmp_path), before)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        train(vae_task(), PLAN, tmp_path, stop_after(2))
    before = checkpoint(tmp_path)

    def full(checkpoint: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"cannot write .*checkpoint\.pt"):
        train(vae_task(), PLAN, tmp_path, ignore)
    monkeypatch.undo()
    assert_identical(checkpoint(tmp_path), before)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt"}


def test_the_learning_rate_warms_up_and_decays_to_zero():
    plan = TrainConfig(1000, lr=0.5, warmup=100, decay=0.35)
    rates = [plan.lr_at(step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.005)
    assert rates[99:651] == pytest.approx([0.5] * 552)
    assert rates[825] == pytest.approx(0.25)
    assert rates[1000] == 0
    assert all(after < before for before, after in pairwise(rates[650:]))


def test_every_optimizer_uses_the_learning_rate_of_the_step(tmp_path):
    state = init_state(denoiser_task(), tmp_path / "none.pt")
    for step in range(2):
        train_step(state, PLAN)
        rates = [group["lr"] for optimizer in state.optimizers for group in optimizer.param_groups]
        assert rates == [PLAN.lr_at(step)] * 2


def test_gradients_are_clipped_before_the_optimizer_step(tmp_path):
    state, seen = init_state(vae_task(), tmp_path / "none.pt"), list[float]()
    parameters = list(state.task.model.parameters())
    for optimizer in state.optimizers:
        optimizer.register_step_pre_hook(
            lambda *_: seen.append(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm().item())
        )
    metrics = train_step(state, TrainConfig(STEPS, lr=0.01, max_grad_norm=0.001))
    assert metrics["gradient"] > 0.001
    assert seen == pytest.approx([0.001], rel=1e-3)


def test_every_trainable_weight_has_exactly_one_optimizer():
    model = denoiser_task().model
    ids = [id(p) for optimizer in muon_and_adamw(model) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert id(model.stdit.rope.freqs) not in ids
    muon = {id(p) for group in muon_and_adamw(model)[1].param_groups for p in group["params"]}
    kinds = {p.ndim for p in model.parameters() if id(p) in muon}
    assert kinds == {2}


def test_ema_weights_are_exported_and_raw_weights_trained(tmp_path):
    path = train(vae_task(), PLAN, tmp_path, ignore)
    stored = checkpoint(tmp_path)
    for name, value in load_file(path).items():
        assert torch.equal(value, stored["average"][name].to(value.dtype)), name
        assert value.dtype in (torch.float16, torch.int64)
    state: TrainState = init_state(vae_task(), tmp_path / "checkpoint.pt")
    with ema_weights(state):
        assert_identical(dict(state.task.model.state_dict()), stored["average"])
    assert_identical(dict(state.task.model.state_dict()), dict(stored["model"]))


def test_validation_and_sheets_change_nothing(tmp_path):
    often, never = tmp_path / "often", tmp_path / "never"
    for folder, plan in ((often, FREQUENT), (never, SHORT)):
        folder.mkdir()
        train(vae_task(), plan, folder, ignore)
    assert_identical(checkpoint(often), checkpoint(never))


def test_runs_are_validated_and_exported_regularly(tmp_path):
    train(vae_task(), FREQUENT, tmp_path, ignore)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 3]
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == [f"sheet-000000{step}.png" for step in (1, 2, 3)]
