"""`pavdm train`: make the embedded model's weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pavdm_cli.commands.run import INTERRUPTED
from pavdm_cli.errors import OutputError
from pavdm_cli.stop import stop_requested

if TYPE_CHECKING:
    from pavdm_cli.train.loop import Report, Task
    from pavdm_cli.train.runs import Settings

app = typer.Typer(no_args_is_help=True, help="Train the embedded model on its painted world.")

Folder = Annotated[Path, typer.Option(help="Checkpoints, log, sheets and weights; a run goes on from what is there.")]
StepCount = Annotated[int, typer.Option(min=1, help="Steps in all; the rate falls to zero over the last third.")]
Rate = Annotated[float, typer.Option(min=0, help="Learning rate.")]
Batch = Annotated[int, typer.Option(min=1, help="Pairs of frames (codec) or windows (denoiser) a step.")]
Detail = Annotated[float, typer.Option(min=0, max=1, help="How rich the painted world is: 0.3 suits a CPU.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch likes.")]
SheetMinutes = Annotated[float, typer.Option(min=0, help="Minutes between contact sheets.")]


@app.command()
def codec(
    folder: Folder = Path("runs/codec"),
    steps: StepCount = 4000,
    rate: Rate = 0.0015,
    batch: Batch = 16,
    detail: Detail = 0.3,
    init: Annotated[Path | None, typer.Option(help="Weights to start from: a codec.safetensors.")] = None,
    keep_latents: Annotated[
        bool, typer.Option("--keep-latents", help="Train the decoder alone: denoisers made for --init still fit.")
    ] = False,
    device: Device = "auto",
    threads: Threads = 0,
    sheet_minutes: SheetMinutes = 10.0,
) -> None:
    """Train the codec on pairs of frames; prints the path of codec.safetensors."""
    from pavdm_cli.train import runs

    settings = runs.Settings(folder, steps, rate, batch, detail, init, device, threads, sheet_minutes)
    _run(lambda: runs.codec_task(settings, keep_latents), settings)


@app.command()
def denoiser(
    folder: Folder = Path("runs/denoiser"),
    codec: Annotated[Path | None, typer.Option(help="The codec to train over; the embedded one unless given.")] = None,
    method: Annotated[str, typer.Option(help="base: one level for all. pa: progressive. rw: with noise.")] = "pa",
    clips: Annotated[int, typer.Option(min=1, help="Clips to render and keep as latents.")] = 2400,
    steps: StepCount = 4000,
    rate: Rate = 0.0015,
    batch: Batch = 16,
    detail: Detail = 0.3,
    init: Annotated[Path | None, typer.Option(help="Weights to start from: a denoiser.safetensors.")] = None,
    device: Device = "auto",
    threads: Threads = 0,
    sheet_minutes: SheetMinutes = 20.0,
) -> None:
    """Train the text encoder and the transformer; prints the path of denoiser.safetensors.

    First --method base, as Open-Sora was; then --method pa with --init (paper section 3.5).
    """
    from pavdm_cli import ui
    from pavdm_cli.train import runs

    settings = runs.Settings(folder, steps, rate, batch, detail, init, device, threads, sheet_minutes)
    _run(lambda: runs.denoiser_task(settings, method, codec, clips, ui.progress), settings)


def _run(task: Callable[[], Task], settings: Settings) -> None:
    from pavdm_cli import ui
    from pavdm_cli.train import runs

    ui.note(f"training in {settings.folder}; Ctrl-C keeps the step, the same command goes on")
    runs.prepare(settings)
    try:
        made = task()
        with stop_requested() as stopped, ui.training(settings.steps) as report:
            path = runs.run(made, settings, _until(stopped, report))
    except KeyboardInterrupt:
        ui.note(f"interrupted: {_kept(settings.folder)}")
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        raise OutputError(
            f"cannot write in {settings.folder}: {error}", "free some space, or move the folder"
        ) from error
    print(path)


def _until(stopped: Callable[[], bool], report: Report) -> Report:
    """The same report, that stops training after the step in which a signal came."""

    def reporting(step: int, figures: dict[str, float]) -> None:
        report(step, figures)
        if stopped():
            raise KeyboardInterrupt

    return reporting


def _kept(folder: Path) -> str:
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        return f"the same command goes on from {checkpoint}"
    return "no step was kept, the same command starts again"
