"""The training loop: resumable at every step, with EMA weights, gradient clipping, validation and contact sheets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pavdm_cli.errors import ModelError, PavdmError
from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.models.distributed import SINGLE_PROCESS, ProcessGroup, full_tensors, shard_like
from pavdm_cli.runtime.untrusted import is_regular
from pavdm_cli.training.optimizer import OptimizerFactory, muon_and_adamw


class Task(Protocol):
    """A model to train, its loss, and how it is validated and exported.

    All processes call every method except `write_sheet`; only the main process writes files.
    """

    @property
    def name(self) -> str:
        """The kind of run; checkpoints of other kinds are rejected."""

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""

    def loss(self, step: int) -> Tensor:
        """The loss of one batch, which depends only on the weights and the number of the batch."""

    def validate(self) -> dict[str, float]:
        """Metrics of the current weights on held-out data."""

    def write_sheet(self, path: Path) -> None:
        """Write a contact sheet of what the model generates."""

    def export(self, folder: Path) -> Path:
        """Write the model in 16 bits; returns the file."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Length, learning rate and intervals of a run."""

    steps: int
    lr: float
    warmup: int = 100  # steps
    decay: float = 0.35  # fraction of the steps over which the learning rate falls linearly to zero
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    validate_seconds: float = 120.0  # between validations, unless `validate_steps` is set
    validate_steps: int = 0
    sheet_seconds: float = 600.0  # between contact sheets
    gradient_accumulation: int = 1  # batches per step
    make_optimizers: OptimizerFactory = muon_and_adamw

    def lr_at(self, step: int) -> float:
        """Linear warm-up, constant, linear decay to zero."""
        decay = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.lr * min(1.0, (step + 1) / self.warmup, decay)


@dataclass(slots=True)
class TrainState:
    """Everything that changes during training."""

    task: Task
    optimizers: list[torch.optim.Optimizer]
    ema: dict[str, Tensor]
    processes: ProcessGroup = SINGLE_PROCESS
    step: int = 0
    losses: list[float] = field(default_factory=list)  # since the last row of the log
    validated_at: float = field(default_factory=time.monotonic)
    sheet_at: float = field(default_factory=time.monotonic)


StepReport = Callable[[int, dict[str, float]], None]
HINT = "choose another --output-dir, or remove the checkpoint"


def train(
    task: Task, config: TrainConfig, folder: Path, report: StepReport, processes: ProcessGroup = SINGLE_PROCESS
) -> Path:
    """Train until `config.steps`, resuming from the folder's checkpoint; returns the exported file.

    An exception in `report`, such as an interrupt, saves a checkpoint first; with several processes, it must occur in
    all of them. An exception within a step leaves the last checkpoint, since weights may be half updated.
    Raises: ModelError, OutputError.
    """
    checkpoint = folder / "checkpoint.pt"
    state = init_state(task, checkpoint, config.make_optimizers, processes)
    while state.step < config.steps:
        metrics = train_step(state, config)
        try:
            report(state.step, metrics)
            validate_if_due(state, config, folder)
        except BaseException as error:
            if processes.world_size == 1 or isinstance(error, KeyboardInterrupt):  # else others do not save with us
                save_checkpoint(state, checkpoint)
            raise
    save_checkpoint(state, checkpoint)
    with ema_weights(state):
        _validate(state, folder)
        if processes.is_main:
            task.write_sheet(folder / f"sheet-{state.step:07d}.png")
        return task.export(folder)


def init_state(
    task: Task,
    checkpoint: Path,
    make_optimizers: OptimizerFactory = muon_and_adamw,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> TrainState:
    """A new state, or that of an existing checkpoint. Raises: ModelError."""
    state = TrainState(task, make_optimizers(task.model), _copy_trained(task.model), processes)
    if checkpoint.exists():
        load_checkpoint(state, checkpoint)
    return state


def load_checkpoint(state: TrainState, checkpoint: Path) -> None:
    """Restore a state, written by any number of processes. Raises: ModelError."""
    stored, name = _read_checkpoint(checkpoint, mmap=state.processes.world_size > 1), state.task.name
    if stored.get("name", name) != name:
        raise ModelError(f"{checkpoint} belongs to a run of the {stored['name']}, not the {name}", HINT)
    try:
        current, weights = state.task.model.state_dict(), stored["model"]
        _load_trained(state.task.model, {n: shard_like(value, current.get(n, value)) for n, value in weights.items()})
        for optimizer, optimizer_state in zip(state.optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(_shard_optimizer_state(optimizer_state, optimizer))
        state.ema = {name: shard_like(stored["average"][name].to(v), v) for name, v in state.ema.items()}
        state.step = int(stored["step"])
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{checkpoint} holds another model", HINT) from error


def train_step(state: TrainState, config: TrainConfig) -> dict[str, float]:
    """One optimizer step; returns metrics. Raises: PavdmError if gradients are not finite."""
    state.task.model.train()
    loss = sum(_backward(state, config, part) for part in range(config.gradient_accumulation))
    norm = full_tensors(nn.utils.clip_grad_norm_(state.task.model.parameters(), config.max_grad_norm), keep=True)
    if not norm.isfinite():
        raise PavdmError(f"training diverged at step {state.step}: the loss is {loss:g}", "try a lower --learning-rate")
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = config.lr_at(state.step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    state.step += 1
    _update_ema(state, min(config.ema_decay, (1 + state.step) / (10 + state.step)))
    state.losses.append(state.processes.mean(loss))
    return {"loss": state.losses[-1], "gradient": norm.item()}


def validate_if_due(state: TrainState, config: TrainConfig, folder: Path) -> None:
    """At the configured interval, save a checkpoint, validate and export the EMA weights, and write a sheet."""
    now = time.monotonic()
    if config.validate_steps:
        due = state.step % config.validate_steps == 0
    else:
        due = now - state.validated_at >= config.validate_seconds
    if not due:
        return
    state.validated_at = now
    save_checkpoint(state, folder / "checkpoint.pt")
    with ema_weights(state):
        _validate(state, folder)
        state.task.export(folder)
        if now - state.sheet_at >= config.sheet_seconds and state.processes.is_main:
            state.sheet_at = now
            state.task.write_sheet(folder / f"sheet-{state.step:07d}.png")


@contextmanager
def ema_weights(state: TrainState) -> Iterator[None]:
    """Use the EMA weights inside the block, in evaluation mode."""
    model = state.task.model
    weights = _copy_trained(model)
    _load_trained(model, state.ema)
    model.eval()
    try:
        yield
    finally:
        _load_trained(model, weights)


def save_checkpoint(state: TrainState, path: Path) -> None:
    """Write the whole state to one file, from the main process. Raises: OutputError."""
    parts = {
        "name": state.task.name,
        "model": trained_weights(state.task.model),
        "average": state.ema,
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "step": state.step,
    }
    stored = full_tensors(parts, keep=state.processes.is_main)
    if state.processes.is_main:
        with atomic_write(path) as temporary:
            torch.save(stored, temporary)


def _backward(state: TrainState, config: TrainConfig, part: int) -> float:
    """Accumulate the gradients of one batch; returns its share of the step's loss."""
    loss = state.task.loss(state.step * config.gradient_accumulation + part) / config.gradient_accumulation
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def _validate(state: TrainState, folder: Path) -> None:
    """Append validation metrics and the mean training loss since the last row to log.jsonl."""
    metrics, count = state.task.validate(), len(state.losses)
    if state.processes.is_main:
        mean = {"loss": sum(state.losses) / count} if count else {}
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": state.step, **mean, **metrics}) + "\n")
    state.losses.clear()


def _shard_optimizer_state(stored: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Shard each tensor of an optimizer's state like its weight."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def shard(value: Any, weight: Tensor) -> Any:
        return shard_like(value, weight) if isinstance(value, Tensor) else value

    rows = stored["state"].items()
    return stored | {"state": {i: {name: shard(v, weights[i]) for name, v in row.items()} for i, row in rows}}


def _read_checkpoint(checkpoint: Path, mmap: bool) -> dict[str, Any]:
    """mmap: map the file, so that several processes do not each read all of it into memory. Raises: ModelError."""
    if not is_regular(checkpoint):
        raise ModelError(f"{checkpoint} is not a regular file", HINT)
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # pickle, zip and tensors raise many kinds of errors
        raise ModelError(f"{checkpoint} is damaged or not a checkpoint", HINT) from error
    if not isinstance(stored, dict):
        raise ModelError(f"{checkpoint} is not a checkpoint", HINT)
    return stored


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's state without its frozen weights."""
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def _copy_trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trained_weights(model).items()}


def _load_trained(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load all trained weights. Raises: KeyError if one is missing, RuntimeError."""
    if missing := trained_weights(model).keys() - weights.keys():
        raise KeyError(*missing)
    model.load_state_dict(model.state_dict() | weights)


@torch.no_grad()
def _update_ema(state: TrainState, decay: float) -> None:
    weights = trained_weights(state.task.model)
    floats = [name for name, value in weights.items() if value.is_floating_point()]
    for is_sharded in (False, True):  # a call takes either plain tensors or those of FSDP
        if names := [name for name in floats if (type(weights[name]) is not Tensor) == is_sharded]:
            torch._foreach_lerp_([state.ema[name] for name in names], [weights[name] for name in names], 1 - decay)
    for name in weights.keys() - floats:
        state.ema[name].copy_(weights[name])
