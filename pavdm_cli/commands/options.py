"""Options for what to generate and how to sample it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from pavdm_cli.commands.common import complete
from pavdm_cli.errors import UsageError
from pavdm_cli.generation.request import MAX_CONTEXT, SIZES
from pavdm_cli.generation.timeline import parse_duration
from pavdm_cli.models.registry import MODELS
from pavdm_cli.sampling.schedule import METHODS, SOLVERS

# Panels of the help, everyday options first.
VIDEO_PANEL, FILE_PANEL, RUN_PANEL = "Video", "File", "Run"
SAMPLING_PANEL, SPEED_PANEL = "Sampling (advanced)", "Performance (advanced)"


def check_finite(parameter: typer.CallbackParam, value: float | None) -> float | None:
    """Reject NaN and infinity, which pass Typer's bounds. Raises: UsageError."""
    if value is not None and not math.isfinite(value):
        raise UsageError(f"{parameter.opts[-1]} must be a number, got {value}", "omit it for its default")
    return value


Prompt = Annotated[
    str,
    typer.Argument(
        metavar="PROMPT",
        help="Text prompt, or - to read it from standard input. `pavdm models show pocket` lists the words that pocket "
        "knows.",
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete(SIZES),
        help="Size in pixels as WIDTHxHEIGHT, or a name from 144p to 720p; default: the model's own.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
Aspect = Annotated[
    str,
    typer.Option(
        help="WIDTH:HEIGHT, such as 9:16 or 1:1, for a named --size (default 240p).", rich_help_panel=VIDEO_PANEL
    ),
]
Fps = Annotated[
    float | None, typer.Option(help="Frames per second; default: the model's own.", rich_help_panel=VIDEO_PANEL)
]
ExtendSize = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete(SIZES),
        help="Size in pixels at which the model works, as WIDTHxHEIGHT or a name from 144p to 720p; default: the size "
        "at which it made INPUT, otherwise the model's own. The file keeps INPUT's size.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
ExtendFps = Annotated[
    float | None,
    typer.Option(
        help="Frame rate at which the model works; default: the rate at which it made INPUT, otherwise the model's. "
        "The file keeps INPUT's frame rate.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
Image = Annotated[
    Path | None,
    typer.Option(
        help="PNG, JPEG, WebP, AVIF or HEIC image as the first frame, scaled and cropped to the size; the model "
        "continues from it, pocket in its own style.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="Random seed: the same seed gives the same video. Default: a random one.", rich_help_panel=VIDEO_PANEL
    ),
]
Count = Annotated[
    int,
    typer.Option(
        "--count",
        "-n",
        min=1,
        max=10_000,
        help="Number of videos, with seeds SEED, SEED + 1, ... With -o NAME.mp4 the files are NAME-SEED.mp4.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
BenchSeconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        "-s",
        parser=lambda text: parse_duration(text, "--seconds"),
        metavar="TIME",
        help="Length of the video: a number of seconds or a time such as 90s or 1:30.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
BenchSeed = Annotated[
    int | None, typer.Option(help="Random seed, for reproducible results.", rich_help_panel=VIDEO_PANEL)
]
MODEL_HELP = "A name in `pavdm models list`, or a folder of weights"
Model = Annotated[
    str, typer.Option(autocompletion=complete(MODELS), help=f"{MODEL_HELP}.", rich_help_panel=VIDEO_PANEL)
]
ExtendModel = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete(MODELS),
        help=f"{MODEL_HELP}; default: the model that made INPUT, else pocket.",
        rich_help_panel=VIDEO_PANEL,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        autocompletion=complete(METHODS),
        help="pa: progressive noise levels. rn, rw (replacement without and with noise): one clip after another, "
        "conditioned on the end of the previous clip, kept clean (rn) or noised again at every step (rw). fifo: "
        "FIFO-Diffusion, one latent frame per step. windows: one window after another, conditioned on the last latent "
        "frames of the previous one.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Steps = Annotated[int | None, typer.Option(help="Denoising steps per chunk.", rich_help_panel=SAMPLING_PANEL)]
Window = Annotated[int | None, typer.Option(help="Window size, in latent frames.", rich_help_panel=SAMPLING_PANEL)]
Chunk = Annotated[
    int | None, typer.Option(help="Chunk size: latent frames that share a noise level.", rich_help_panel=SAMPLING_PANEL)
]
Context = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MAX_CONTEXT,
        help="Clean chunks in front of the window (overlapped conditioning); 0 disables it. Default: the model's.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Sink = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MAX_CONTEXT,
        help="First chunks of the video that stay in front of the context (attention sink). Default: the model's.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE[:SCALE]",
        help="LoRA to merge into the transformer, as safetensors; may be given several times.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
RampUp = Annotated[
    Literal["grow", "full"],
    typer.Option(
        help="grow: the window starts with one chunk (paper 3.2). full: the window always has its full length, with "
        "pure noise in place of chunks that have not started.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Stride = Annotated[
    int,
    typer.Option(
        min=0,
        help="With --method windows: steps from one chunk's start to the next one's; 0: one level per window.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Solver = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete(SOLVERS),
        help="euler, or unipc (second order). Default: the model's.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Warmup = Annotated[
    int | None,
    typer.Option(
        help="Number of lower-quality first chunks to generate and discard. Default: the model's.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Reencode = Annotated[
    bool | None,
    typer.Option(
        "--reencode/--no-reencode",
        help="rn: condition a clip on the re-encoded last frames of the previous one (Open-Sora's default), "
        "or on their latents.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
EditRatio = Annotated[
    float,
    typer.Option(
        help="rn: noise fraction (sigma, 0 to 1) at and below which the conditioning frames are denoised too; 0 keeps "
        "them fixed.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Classifier-free guidance scale; 1 disables it. pocket's default, 3.3, is distilled and needs a single "
        "forward pass.",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
