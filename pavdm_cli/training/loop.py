"""The training loop: resumable to the step, with averaged weights, clipped gradients and contact sheets."""

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
from pavdm_cli.models.pocket.checkpoint import in_place_of
from pavdm_cli.runtime.untrusted import is_regular
from pavdm_cli.training.distributed import ALONE, Processes, gathered, placed
from pavdm_cli.training.optimizer import Build, optimisers


class Task(Protocol):
    """What is trained: a model, its loss at a step, and how to judge, show and keep it.

    Several processes call all of it together, the sheet aside; the first alone writes.
    """

    @property
    def name(self) -> str:
        """What kind of run it is: a checkpoint of another kind is refused."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    def loss(self, step: int) -> Tensor:
        """The loss of one batch: a function of the weights and the batch's number alone, a step's where it is one."""

    def judge(self) -> dict[str, float]:
        """Held-out figures of the model as it is."""

    def sheet(self, path: Path) -> None:
        """A picture of what the model makes."""

    def export(self, folder: Path) -> Path:
        """Write the model in 16 bits; returns the file."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast: a warm-up, a plateau, then a straight line to zero over the last `decay` of the steps."""

    steps: int
    rate: float
    warmup: int = 100
    decay: float = 0.35
    clip: float = 1.0
    average: float = 0.999
    judge_every: float = 120.0  # seconds
    sheet_every: float = 600.0
    every: int = 0  # steps between judgements, instead of seconds
    accumulate: int = 1  # batches whose gradients make one step
    build: Build = optimisers

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.rate * min(1.0, (step + 1) / self.warmup, left)


@dataclass(slots=True)
class State:
    """All that changes while training."""

    task: Task
    optimisers: list[torch.optim.Optimizer]
    average: dict[str, Tensor]
    among: Processes = ALONE
    step: int = 0
    losses: list[float] = field(default_factory=list)  # since the last row of the log
    judged: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)


Report = Callable[[int, dict[str, float]], None]
ANOTHER = "give another --folder, or remove the checkpoint"


def train(task: Task, plan: Plan, folder: Path, report: Report, among: Processes = ALONE) -> Path:
    """Train from the folder's checkpoint, or the model as given, to the plan's end.

    What stops the report, such as an interrupt, keeps the step; of several processes it has to stop all. What cuts a
    step short may leave weights half-way, so then the last checkpoint stands. Raises: ModelError, OutputError.
    """
    checkpoint = folder / "checkpoint.pt"
    state = begin(task, checkpoint, plan.build, among)
    while state.step < plan.steps:
        figures = advance(state, plan)
        try:
            report(state.step, figures)
            watch(state, plan, folder)
        except BaseException as stop:
            if among.count == 1 or isinstance(stop, KeyboardInterrupt):  # else the others are not here to save with
                save(state, checkpoint)
            raise
    save(state, checkpoint)
    return finish(state, folder)


def begin(task: Task, checkpoint: Path, build: Build = optimisers, among: Processes = ALONE) -> State:
    """A fresh state, or the one a checkpoint holds. Raises: ModelError."""
    state = State(task, build(task.model), _copy(task.model), among)
    if checkpoint.exists():
        resume(state, checkpoint)
    return state


def resume(state: State, checkpoint: Path) -> None:
    """Take up the state that a checkpoint holds, whoever many processes wrote it. Raises: ModelError."""
    stored, name = _stored(checkpoint, mapped=state.among.count > 1), state.task.name
    if stored.get("name", name) != name:
        raise ModelError(f"{checkpoint} is of a run of the {stored['name']}, not of the {name}", ANOTHER)
    try:
        own, kept = state.task.model.state_dict(), stored["model"]
        state.task.model.load_state_dict({name: placed(value, own.get(name, value)) for name, value in kept.items()})
        for optimiser, moments in zip(state.optimisers, stored["optimisers"], strict=True):
            optimiser.load_state_dict(_moments(moments, optimiser))
        state.average = {name: placed(stored["average"][name].to(v), v) for name, v in state.average.items()}
        state.step = int(stored["step"])
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{checkpoint} holds another model", ANOTHER) from error


def advance(state: State, plan: Plan) -> dict[str, float]:
    """One step of gradient descent. Raises: PavdmError where the numbers have left what a float holds."""
    state.task.model.train()
    loss = sum(_backward(state, plan, part) for part in range(plan.accumulate))
    norm = gathered(nn.utils.clip_grad_norm_(state.task.model.parameters(), plan.clip), keep=True)
    if not norm.isfinite():
        raise PavdmError(f"training broke at step {state.step}: the loss is {loss:g}", "try a lower --rate")
    for optimiser in state.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate_at(state.step)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    state.step += 1
    _average(state, min(plan.average, (1 + state.step) / (10 + state.step)))
    state.losses.append(state.among.mean(loss))
    return {"loss": state.losses[-1], "gradient": norm.item()}


def watch(state: State, plan: Plan, folder: Path) -> None:
    """Every so often: judge the averaged weights, keep a checkpoint and an export, paint a sheet."""
    now = time.monotonic()
    if state.step % plan.every if plan.every else now - state.judged < plan.judge_every:
        return
    state.judged = now
    save(state, folder / "checkpoint.pt")
    with averaged(state):
        _judge(state, folder)
        state.task.export(folder)
        if now - state.shown >= plan.sheet_every and state.among.first:
            state.shown = now
            state.task.sheet(folder / f"sheet-{state.step:07d}.png")


def finish(state: State, folder: Path) -> Path:
    """Judge, show and export the averaged weights once more."""
    with averaged(state):
        _judge(state, folder)
        if state.among.first:
            state.task.sheet(folder / f"sheet-{state.step:07d}.png")
        return state.task.export(folder)


@contextmanager
def averaged(state: State) -> Iterator[None]:
    """The model wears its averaged weights inside the block."""
    model = state.task.model
    own = _copy(model)
    model.load_state_dict(state.average)
    model.eval()
    try:
        yield
    finally:
        model.load_state_dict(own)


def save(state: State, path: Path) -> None:
    """The whole state, in one file, written by the first process. Raises: OutputError."""
    parts = {
        "name": state.task.name,
        "model": state.task.model.state_dict(),
        "average": state.average,
        "optimisers": [o.state_dict() for o in state.optimisers],
        "step": state.step,
    }
    stored = gathered(parts, keep=state.among.first)
    if state.among.first:
        with in_place_of(path) as beside:
            torch.save(stored, beside)


def _backward(state: State, plan: Plan, part: int) -> float:
    """Adds the gradients of one batch of a step; returns its part of the step's loss."""
    loss = state.task.loss(state.step * plan.accumulate + part) / plan.accumulate
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def _judge(state: State, folder: Path) -> None:
    """A row of the log: held-out figures, beside the mean loss since the row before."""
    figures, seen = state.task.judge(), len(state.losses)
    if state.among.first:
        mean = {"loss": sum(state.losses) / seen} if seen else {}
        _note(folder, {"step": state.step, **mean, **figures})
    state.losses.clear()


def _moments(kept: dict[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state, each of its tensors in parts where its weight is."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]

    def split(value: Any, weight: Tensor) -> Any:
        return placed(value, weight) if isinstance(value, Tensor) else value

    rows = kept["state"].items()
    return kept | {"state": {at: {name: split(v, weights[at]) for name, v in row.items()} for at, row in rows}}


def _stored(checkpoint: Path, mapped: bool) -> dict[str, Any]:
    """What a checkpoint holds; mapped, so that several processes do not each read all of it into memory."""
    if not is_regular(checkpoint):
        raise ModelError(f"{checkpoint} is not a regular file", ANOTHER)
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # pickle, zip and tensors each fail in their own ways
        raise ModelError(f"{checkpoint} is damaged, or no checkpoint", ANOTHER) from error
    if not isinstance(stored, dict):
        raise ModelError(f"{checkpoint} is no checkpoint", ANOTHER)
    return stored


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def _average(state: State, keep: float) -> None:
    for name, value in state.task.model.state_dict().items():
        mean = state.average[name]
        if value.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


def _note(folder: Path, row: dict[str, float]) -> None:
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(row) + "\n")
