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
from pavdm_cli.models.store import in_place_of


class Task(Protocol):
    """What is trained: a model, its loss at a step, and how to judge, show and keep it."""

    @property
    def name(self) -> str:
        """What kind of run it is: a checkpoint of another kind is refused."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    def loss(self, step: int) -> Tensor:
        """The loss of one step: a function of the weights and the step alone."""

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
    step: int = 0
    judged: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)


Report = Callable[[int, dict[str, float]], None]
ANOTHER = "give another --folder, or remove the checkpoint"


def train(task: Task, plan: Plan, folder: Path, report: Report) -> Path:
    """Train from the folder's checkpoint, or the model as given, to the plan's end.

    What stops the report, such as an interrupt, keeps the step. What cuts a step short may leave weights half-way, so
    then the last checkpoint stands. Raises: ModelError, OutputError.
    """
    checkpoint = folder / "checkpoint.pt"
    state = begin(task, checkpoint)
    while state.step < plan.steps:
        figures = advance(state, plan)
        try:
            report(state.step, figures)
            watch(state, plan, folder)
        except BaseException:
            save(state, checkpoint)
            raise
    save(state, checkpoint)
    return finish(state, folder)


def begin(task: Task, checkpoint: Path) -> State:
    """A fresh state, or the one a checkpoint holds. Raises: ModelError."""
    state = State(task, optimisers(task.model), _copy(task.model))
    if checkpoint.exists():
        resume(state, checkpoint)
    return state


def resume(state: State, checkpoint: Path) -> None:
    """Take up the state that a checkpoint holds. Raises: ModelError."""
    stored, name = _stored(checkpoint), state.task.name
    if stored.get("name", name) != name:
        raise ModelError(f"{checkpoint} is of a run of the {stored['name']}, not of the {name}", ANOTHER)
    try:
        state.task.model.load_state_dict(stored["model"])
        for optimiser, kept in zip(state.optimisers, stored["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        state.average = {name: stored["average"][name].to(value) for name, value in state.average.items()}
        state.step = int(stored["step"])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{checkpoint} holds another model", ANOTHER) from error


def advance(state: State, plan: Plan) -> dict[str, float]:
    """One step of gradient descent. Raises: PavdmError where the numbers have left what a float holds."""
    state.task.model.train()
    loss = state.task.loss(state.step)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(state.task.model.parameters(), plan.clip)
    if not norm.isfinite():
        raise PavdmError(f"training broke at step {state.step}: the loss is {loss.item():g}", "try a lower --rate")
    for optimiser in state.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate_at(state.step)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    state.step += 1
    _average(state, min(plan.average, (1 + state.step) / (10 + state.step)))
    return {"loss": loss.item(), "gradient": norm.item()}


def watch(state: State, plan: Plan, folder: Path) -> None:
    """Every so often: judge the averaged weights, keep a checkpoint and an export, paint a sheet."""
    now = time.monotonic()
    if now - state.judged < plan.judge_every:
        return
    state.judged = now
    save(state, folder / "checkpoint.pt")
    with averaged(state):
        _note(folder, {"step": state.step, **state.task.judge()})
        state.task.export(folder)
        if now - state.shown >= plan.sheet_every:
            state.shown = now
            state.task.sheet(folder / f"sheet-{state.step:07d}.png")


def finish(state: State, folder: Path) -> Path:
    """Judge, show and export the averaged weights once more."""
    with averaged(state):
        _note(folder, {"step": state.step, **state.task.judge()})
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


def optimisers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of transformer blocks, AdamW for all else."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.dim() == 2 and "blocks." in name and "table" not in name]
    known = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in known]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=1e-4)]
    if matrices:
        found.append(torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return found


def save(state: State, path: Path) -> None:
    """The whole state. Raises: OutputError."""
    stored = {
        "name": state.task.name,
        "model": state.task.model.state_dict(),
        "average": state.average,
        "optimisers": [o.state_dict() for o in state.optimisers],
        "step": state.step,
    }
    with in_place_of(path) as beside:
        torch.save(stored, beside)


def _stored(checkpoint: Path) -> dict[str, Any]:
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
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
