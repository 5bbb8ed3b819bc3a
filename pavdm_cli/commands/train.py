"""`pavdm train`: train the bundled model, or fine-tune a video model on your own videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pavdm_cli.commands import torchrun
from pavdm_cli.commands import train_options as options
from pavdm_cli.commands.common import App, command_line_options
from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.generation.request import parse_size
from pavdm_cli.models.adapter import VideoModel
from pavdm_cli.models.pocket.model import DENOISER_FILE
from pavdm_cli.models.pocket.model import SPEC as POCKET
from pavdm_cli.models.registry import MODELS, find
from pavdm_cli.runtime.allocator import keep_freed_memory
from pavdm_cli.runtime.interrupt import INTERRUPTED, Interrupted
from pavdm_cli.runtime.signals import stop_requested

if TYPE_CHECKING:
    from pavdm_cli.models.distributed import ProcessGroup
    from pavdm_cli.training.finetune.runs import Reporter
    from pavdm_cli.training.loop import StepReport, Task
    from pavdm_cli.training.pocket.runs import TrainOptions

FINETUNE_FIELDS = (  # options that are fields of a FinetuneConfig as they are
    *("data", "fps", "window", "chunk", "lora_rank", "warmup"),
    *("gradient_checkpointing", "gradient_accumulation", "checkpoint_every", "validation_videos"),
)

app = App(help="Train the bundled model on its procedural world, or fine-tune a video model on your videos.")


@app.command()
def vae(
    output_dir: options.OutputDir = Path("runs/vae"),
    steps: options.StepCount = 4000,
    learning_rate: options.LearningRate = 0.0015,
    batch_size: options.BatchSize = 16,
    detail: options.Detail = 0.3,
    init: options.VaeInit = None,
    freeze_encoder: options.FreezeEncoder = False,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    sheet_minutes: options.ContactSheetMinutes = 10.0,
    precision: options.Precision = None,
) -> None:
    """Train the VAE on pairs of frames; prints the path of vae.safetensors."""
    from pavdm_cli.training.pocket import runs

    train_options = runs.TrainOptions(
        output_dir, steps, learning_rate, batch_size, detail, init, device, threads, sheet_minutes, precision
    )
    _train_pocket(train_options, lambda: runs.vae_task(train_options, freeze_encoder))


@app.command()
def denoiser(
    context: typer.Context,
    output_dir: options.OutputDir = Path("runs/denoiser"),
    init: options.Init = None,
    method: options.Method = "pa",
    steps: options.StepCount = 4000,
    learning_rate: options.DenoiserLearningRate = None,
    batch_size: options.DenoiserBatchSize = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    precision: options.Precision = None,
    window: options.Window = None,
    vae: options.VaeWeights = None,
    clips: options.Clips = 2400,
    detail: options.WorldDetail = 0.3,
    distill_guidance: options.DistillGuidance = None,
    teacher: options.Teacher = None,
    shift: options.Shift = 1.0,
    object_weight: options.ObjectWeight = 0.0,
    max_context: options.MaxContext = 1,
    fill_batches: options.FillBatches = False,
    oversample: options.Oversample = None,
    sheet_minutes: options.Sheets = 20.0,
    data: options.Data = None,
    size: options.Size = None,
    fps: options.Fps = None,
    chunk: options.Chunk = None,
    lora_rank: options.LoraRank = 0,
    gradient_checkpointing: options.GradientCheckpointing = True,
    gradient_accumulation: options.GradientAccumulation = 1,
    warmup: options.Warmup = 1000,
    checkpoint_every: options.CheckpointEvery = 250,
    validation_videos: options.ValidationVideos = None,
    aesthetic_score: options.Score = 6.5,
) -> None:
    """Train a transformer for progressive levels (paper section 3.5); prints the path of the weights.

    Pocket, from scratch: first --method base, like Open-Sora; then --method pa with --init; then, to halve the cost of
    a step, guidance distillation: --init with those weights, --distill-guidance 3.3 and a low --learning-rate.

    Other models, on your own videos, which are encoded once:
    pavdm train denoiser --init opensora-v1.2 --data VIDEOS -d runs/mine, then
    pavdm generate PROMPT --model runs/mine/model.

    A LoRA of a Wan model: add --init wan2.1-t2v-1.3b --lora-rank 32; then pavdm generate PROMPT
    --model wan2.1-t2v-1.3b --lora runs/mine/lora.safetensors.

    On 8 GPUs: torchrun --nproc-per-node 8 -m pavdm_cli train denoiser ... trains with the same losses; each GPU holds
    a shard of the weights and of every batch. A run resumes from its checkpoint, on any number of GPUs.
    """
    from pavdm_cli.training.pocket import runs

    model = _model_to_finetune(init, data)
    _check_options(context, trains_pocket=model is None)
    train_options = _train_options(context.params, model)
    if model and data:
        _finetune(train_options, _finetune_fields(context.params, model), model, method)
        return
    objective = runs.Objective(**{field.name: context.params[field.name] for field in fields(runs.Objective)})
    _train_pocket(train_options, lambda: runs.denoiser_task(train_options, objective, vae, clips, _clip_progress()))


@app.command()
def export(
    vae: options.ExportedVae,
    denoiser: options.ExportedDenoiser,
    output_dir: options.ExportFolder = None,
) -> None:
    """Write the weights of pocket as they ship: in 16 bits, in files of at most 15 MB; prints the folder."""
    from pavdm_cli.training.pocket.export import export

    export(vae, denoiser, output_dir or POCKET.folder)
    print(output_dir or POCKET.folder)


def _train_options(params: dict[str, Any], model: VideoModel | None) -> TrainOptions:
    """The options that all runs share, from the command's parameters; model: to fine-tune."""
    from pavdm_cli.training.pocket import runs

    rate, batch_size = (0.0001, 2) if model else (0.0015, 16)
    shared = {name: params[name] for name in ("steps", "detail", "device", "threads", "precision")}
    return runs.TrainOptions(
        **shared,
        folder=params["output_dir"],
        sheet_minutes=params["sheet_minutes"],
        learning_rate=rate if params["learning_rate"] is None else params["learning_rate"],
        batch_size=params["batch_size"] or batch_size,
        init=_weights_path(params["init"]),
    )


def _finetune_fields(params: dict[str, Any], model: VideoModel) -> dict[str, Any]:
    """The fields of a FinetuneConfig, from the command's parameters. Raises: UsageError."""
    own_options = {option.key: params[option.key] for option in model.options if option.key in params}
    size = parse_size(params["size"]) if params["size"] else None
    fields = {name: params[name] for name in FINETUNE_FIELDS}
    precision = params["precision"] or "bf16"
    return fields | {"size": size, "precision": precision, "options": own_options}


def _model_to_finetune(init: str | None, data: Path | None) -> VideoModel | None:
    """The model to fine-tune on videos, or None where pocket is trained. Raises: ModelError, UsageError."""
    finetunes = (
        data is not None or (init != POCKET.name and init in MODELS) or (init is not None and Path(init).is_dir())
    )
    model = find(init or POCKET.name if finetunes else POCKET.name)
    if model.published_spec.name == POCKET.name:
        if data is None:
            return None
        raise UsageError(
            "pocket renders its own clips: --data needs a model to fine-tune", "add --init MODEL, a name or a folder"
        )
    if data is None:
        raise UsageError(f"{model.spec.name} is trained on your videos, so --data is required", "add --data FOLDER")
    return model


def _check_options(context: typer.Context, trains_pocket: bool) -> None:
    """Reject options of the other model's training. Raises: UsageError."""
    panel, other_panel = (options.POCKET_PANEL, options.FINETUNE_PANEL)[:: 1 if trains_pocket else -1]
    if misplaced := [name for name, its_panel in command_line_options(context).items() if its_panel == other_panel]:
        raise UsageError(
            f"{misplaced[0]} only applies to: {other_panel}. This run trains: {panel}",
            f"omit {misplaced[0]}",
        )


def _train_pocket(train_options: TrainOptions, make_task: Callable[[], Task]) -> None:
    """Train pocket, in one process."""
    from pavdm_cli.training.pocket import runs

    if torchrun.ranks()[2] > 1:
        raise UsageError("pocket trains in one process", "start `pavdm train` without torchrun, or with --init MODEL")

    def run(group: ProcessGroup) -> Path:
        task = make_task()
        with _step_reporter(train_options, group) as report:
            return runs.run(task, train_options, report)

    _run(train_options, run)


def _finetune(train_options: TrainOptions, fields: dict[str, Any], model: VideoModel, method: str) -> None:
    """Fine-tune on videos, in as many processes as torchrun started; fields: of a FinetuneConfig."""
    from pavdm_cli.training.finetune import runs
    from pavdm_cli.training.finetune.task import FinetuneConfig

    finetune_run = runs.FinetuneRun(train_options, FinetuneConfig(**fields), model, method)

    def run(group: ProcessGroup) -> Path:
        task = runs.prepare_task(finetune_run, _reporter(group), group)
        with _step_reporter(train_options, group) as report:
            return runs.finetune(task, finetune_run, report)

    _run(train_options, run)


def _weights_path(init: str | None) -> Path | None:
    """The path of pocket's weights, by name or path."""
    return POCKET.folder / DENOISER_FILE if init == POCKET.name else Path(init) if init else None


def _clip_progress() -> Callable[[str, int], AbstractContextManager[Callable[[int], None]]]:
    from pavdm_cli import ui

    return partial(ui.progress, unit="clips")


def _run(train_options: TrainOptions, run: Callable[[ProcessGroup], Path]) -> None:
    """Train in all processes; the main one prints messages and the path of the weights."""
    import torch

    from pavdm_cli import ui
    from pavdm_cli.models import distributed
    from pavdm_cli.models.devices import pick_device

    keep_freed_memory()
    if train_options.threads:
        torch.set_num_threads(train_options.threads)
    with distributed.init_distributed(torchrun.ranks(), pick_device(train_options.device)) as group:
        say = ui.info if group.is_main else _ignore
        say(f"training in {train_options.folder}; Ctrl-C saves a checkpoint; rerun the same command to resume")
        try:
            path = run(group)
        except KeyboardInterrupt as interrupt:
            say(f"interrupted: {_resume_note(train_options.folder)}")
            raise typer.Exit(getattr(interrupt, "exit_code", INTERRUPTED)) from None
        except OSError as error:
            raise OutputError(
                f"cannot write in {train_options.folder}: {error}", "free some space, or move the folder"
            ) from error
        if group.is_main:
            print(path)


def _reporter(group: ProcessGroup) -> Reporter:
    from pavdm_cli import ui
    from pavdm_cli.training.finetune.runs import Reporter

    return Reporter(ui.progress, ui.note) if group.is_main else Reporter(_no_progress, _ignore)


def _ignore(*arguments: object) -> None:
    pass


@contextmanager
def _no_progress(description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    yield _ignore


@contextmanager
def _step_reporter(train_options: TrainOptions, group: ProcessGroup) -> Iterator[StepReport]:
    """A step report that updates the progress bar and stops after a step in which any process received a signal."""
    from pavdm_cli import ui

    with (
        stop_requested(interruptible=group.world_size == 1) as stop,
        ui.training_progress(train_options.steps) as update,
    ):

        def report(step: int, metrics: dict[str, float]) -> None:
            if group.is_main:
                update(step, metrics)
            if group.any(stop()):
                raise Interrupted(stop.exit_code)

        yield report


def _resume_note(folder: Path) -> str:
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        return f"the same command resumes from {checkpoint}"
    return "no checkpoint was saved; the same command starts over"
