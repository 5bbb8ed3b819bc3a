"""`pavdm train`: make the embedded model's weights, or fine-tune Open-Sora on one's own videos."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pavdm_cli.commands import train_options as options
from pavdm_cli.commands.common import App, typed
from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.generation.request import parse_size
from pavdm_cli.models.execution import Reading
from pavdm_cli.models.specs import POCKET, ModelSpec, find
from pavdm_cli.runtime.interrupt import INTERRUPTED
from pavdm_cli.runtime.signals import stop_requested

if TYPE_CHECKING:
    from pavdm_cli.training.distributed import Processes
    from pavdm_cli.training.finetune.runs import Talk
    from pavdm_cli.training.loop import Report, Task
    from pavdm_cli.training.pocket.runs import Settings

app = App(help="Train the embedded model on its painted world, or fine-tune Open-Sora on your videos.")


@app.command()
def codec(
    folder: options.Folder = Path("runs/codec"),
    steps: options.StepCount = 4000,
    rate: options.Rate = 0.0015,
    batch: options.Batch = 16,
    detail: options.Detail = 0.3,
    init: options.CodecInit = None,
    keep_latents: options.KeepLatents = False,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    sheet_minutes: options.SheetMinutes = 10.0,
) -> None:
    """Train the codec on pairs of frames; prints the path of codec.safetensors."""
    from pavdm_cli.training.pocket import runs

    settings = runs.Settings(folder, steps, rate, batch, detail, init, device, threads, sheet_minutes)
    _paint(settings, lambda: runs.codec_task(settings, keep_latents))


@app.command()
def denoiser(
    context: typer.Context,
    folder: options.Folder = Path("runs/denoiser"),
    init: options.Init = None,
    method: options.Method = "pa",
    steps: options.StepCount = 4000,
    rate: options.OwnRate = None,
    batch: options.OwnBatch = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    codec: options.Codec = None,
    clips: options.Clips = 2400,
    detail: options.WorldDetail = 0.3,
    distil: options.Distil = None,
    sheet_minutes: options.Sheets = 20.0,
    data: options.Data = None,
    size: options.Size = None,
    fps: options.Fps = None,
    window: options.Window = None,
    chunk: options.Chunk = None,
    precision: options.Precision = "bf16",
    checkpointing: options.Checkpointing = True,
    accumulate: options.Accumulate = 1,
    warmup: options.Warmup = 1000,
    every: options.Every = 250,
    held_out: options.HeldOut = None,
    aesthetic_score: options.Score = 6.5,
) -> None:
    """Train a transformer for progressive levels (paper section 3.5); prints where its weights are.

    Pocket, from nothing: first --method base, as Open-Sora was; then --method pa with --init; then, for half
    the work a step, --init those weights with --distil 1.5 and a low --rate.

    Open-Sora, on videos of yours, which are encoded once:
    pavdm train denoiser --init opensora-v1.2 --data VIDEOS --folder runs/mine, then
    pavdm generate PROMPT --model runs/mine/model.

    On 8 GPUs: torchrun --nproc-per-node 8 -m pavdm_cli train denoiser ... gives the same losses; each GPU holds
    a part of the weights and of every batch. A run goes on from its checkpoint, with another number of GPUs too.
    """
    from pavdm_cli.training.pocket import runs

    spec = _published(init, data)
    _heed(context, spec or POCKET)
    own_rate, own_batch = (0.0001, 2) if spec else (0.0015, 16)
    paced = (folder, steps, own_rate if rate is None else rate, batch or own_batch)
    settings = runs.Settings(*paced, detail, _file(init), device, threads, sheet_minutes)
    if spec is None or data is None:
        _paint(settings, lambda: runs.denoiser_task(settings, runs.Lesson(method, distil), codec, clips, _bars()))
        return
    wide = (parse_size(size) if size else None, fps, window, chunk)
    often = (accumulate, warmup, every, held_out)
    _tune(settings, (data, *wide, precision, checkpointing, *often, Reading(aesthetic_score or None)), spec, method)


def _published(init: str | None, data: Path | None) -> ModelSpec | None:
    """The model to fine-tune on videos, or None where pocket is trained. Raises: ModelError, UsageError."""
    named = data is not None or init == "opensora-v1.2" or (init is not None and Path(init).is_dir())
    spec = find(init or POCKET.name) if named else POCKET
    if spec.family == POCKET.family:
        if data is None:
            return None
        raise UsageError(
            "pocket paints its own clips, --data is for Open-Sora", "give --init opensora-v1.2, or a folder"
        )
    if data is None:
        raise UsageError(f"{spec.name} is trained on your videos, and there are none", "give --data FOLDER")
    return spec


def _heed(context: typer.Context, spec: ModelSpec) -> None:
    """Refuse an option that is for the training of the other model. Raises: UsageError."""
    own, other = (options.PAINTED, options.TUNED)[:: 1 if spec is POCKET else -1]
    if misplaced := [option for option, panel in typed(context).items() if panel == other]:
        raise UsageError(f"{misplaced[0]} is for {other}; this trains {own}", "leave it out")


def _paint(settings: Settings, make: Callable[[], Task]) -> None:
    """Train pocket, in one process."""
    from pavdm_cli.training.pocket import runs

    if _place()[2] > 1:
        raise UsageError(
            "pocket trains in one process", "start `pavdm train` without torchrun, or with --init opensora-v1.2"
        )

    def run(among: Processes) -> Path:
        task = make()
        with _watched(settings, among) as report:
            return runs.run(task, settings, report)

    _run(settings, run)


def _tune(settings: Settings, asked: tuple[Any, ...], spec: ModelSpec, method: str) -> None:
    """Fine-tune on videos, in as many processes as torchrun started; asked: what a Tuning holds."""
    from pavdm_cli.training.finetune import runs as tune_runs
    from pavdm_cli.training.finetune import task as tune

    wanted = tune_runs.Wanted(settings, tune.Tuning(*asked), spec, method)

    def run(among: Processes) -> Path:
        task = tune_runs.tune_task(wanted, _talk(among), among)
        with _watched(settings, among) as report:
            return tune_runs.tune(task, wanted, report)

    _run(settings, run)


def _file(init: str | None) -> Path | None:
    """The weights of pocket that a name or a path stands for."""
    return POCKET.denoiser if init == POCKET.name else Path(init) if init else None


def _bars() -> Callable[[str, int], AbstractContextManager[Callable[[int], None]]]:
    from pavdm_cli import ui

    return partial(ui.progress, unit="clips")


def _run(settings: Settings, run: Callable[[Processes], Path]) -> None:
    """Run a training among its processes; the first one speaks, and prints where the weights are."""
    import torch

    from pavdm_cli import ui
    from pavdm_cli.models.load import pick_device
    from pavdm_cli.training import distributed

    if settings.threads:
        torch.set_num_threads(settings.threads)
    with distributed.joined(_place(), pick_device(settings.device)) as among:
        say = ui.note if among.first else _nothing
        say(f"training in {settings.folder}; Ctrl-C keeps the step, the same command goes on")
        try:
            path = run(among)
        except KeyboardInterrupt:
            say(f"interrupted: {_kept(settings.folder)}")
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            raise OutputError(
                f"cannot write in {settings.folder}: {error}", "free some space, or move the folder"
            ) from error
        if among.first:
            print(path)


def once(line: str, say: Callable[[], None]) -> None:
    """Say a line that ends this process; of several that torchrun started, in the first that comes to it alone."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or _place()[2] == 1:
        say()
        return
    from pavdm_cli.training import distributed

    distributed.once(line, say, (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), _place()[2])


def _place() -> tuple[int, int, int]:
    """What torchrun says of this process: its rank, its rank on this machine, how many there are."""
    rank, local, count = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    return int(rank or 0), int(local or 0), int(count or 1)


def _talk(among: Processes) -> Talk:
    from pavdm_cli import ui
    from pavdm_cli.training.finetune.runs import Talk

    return Talk(ui.progress, ui.warn) if among.first else Talk(_no_progress, _nothing)


def _nothing(*given: object) -> None:
    pass


@contextmanager
def _no_progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    yield _nothing


@contextmanager
def _watched(settings: Settings, among: Processes) -> Iterator[Report]:
    """A report with a bar, that stops training after the step in which a signal came to any process."""
    from pavdm_cli import ui

    with stop_requested(interruptible=among.count == 1) as stopped, ui.training(settings.steps) as show:

        def report(step: int, figures: dict[str, float]) -> None:
            if among.first:
                show(step, figures)
            if among.any(stopped()):
                raise KeyboardInterrupt

        yield report


def _kept(folder: Path) -> str:
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        return f"the same command goes on from {checkpoint}"
    return "no step was kept, the same command starts again"
