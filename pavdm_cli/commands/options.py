"""The command-line options."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from pavdm_cli.commands.common import complete
from pavdm_cli.errors import UsageError
from pavdm_cli.generation.request import SIZES
from pavdm_cli.models.execution import ATTENTION, DEVICES
from pavdm_cli.models.registry import MODELS
from pavdm_cli.sampling.schedule import METHODS, SOLVERS

# Panels of the help, everyday options first.
WHAT, FILE, RUN = "Video", "File", "Run"
HOW, SPEED = "Sampling, for experiments", "Speed and memory, rarely needed"


def check_finite(parameter: typer.CallbackParam, value: float | None) -> float | None:
    """Reject NaN and infinity, which pass Typer's bounds. Raises: UsageError."""
    if value is not None and not math.isfinite(value):
        raise UsageError(f"{parameter.opts[-1]} must be a number, got {value}", "omit it for its default")
    return value


Prompt = Annotated[
    str,
    typer.Argument(
        metavar="PROMPT",
        help="What to show, in words, or - to read it from standard input. `pavdm models show pocket` lists the words "
        "that pocket knows.",
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete(SIZES),
        help="Size in pixels as WIDTHxHEIGHT, or a name from 144p to 720p; default: the model's own.",
        rich_help_panel=WHAT,
    ),
]
Aspect = Annotated[
    str,
    typer.Option(help="WIDTH:HEIGHT, such as 9:16 or 1:1, for a named --size (default 240p).", rich_help_panel=WHAT),
]
Fps = Annotated[float | None, typer.Option(help="Frames per second; default: the model's own.", rich_help_panel=WHAT)]
Image = Annotated[
    Path | None,
    typer.Option(
        help="PNG, JPEG, WebP, AVIF or HEIC image as the first frame, scaled and cropped to the size; the model "
        "continues from it, pocket in its own style.",
        rich_help_panel=WHAT,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Random seed: the same seed gives the same video. Default: a random one.", rich_help_panel=WHAT),
]
Count = Annotated[
    int,
    typer.Option(
        "--count",
        "-n",
        min=1,
        max=10_000,
        help="Number of videos, with seeds SEED, SEED + 1, ... With -o NAME.mp4 the files are NAME-SEED.mp4.",
        rich_help_panel=WHAT,
    ),
]
BenchSeconds = Annotated[
    float | None, typer.Option("--seconds", "-s", help="Length of the video.", rich_help_panel=WHAT)
]
TimedSeed = Annotated[int | None, typer.Option(help="Random seed, for reproducible results.", rich_help_panel=WHAT)]
Model = Annotated[
    str,
    typer.Option(
        autocompletion=complete(MODELS),
        help="A name in `pavdm models list`, or a folder of weights.",
        rich_help_panel=WHAT,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        autocompletion=complete(name for name in METHODS if name != "one"),
        help="pa: progressive noise levels. rn, rw: clip by clip with replacement, on a clean or noised context. "
        "fifo: FIFO-Diffusion, one latent per step. windows: each window conditioned on the end of the previous one.",
        rich_help_panel=HOW,
    ),
]
Steps = Annotated[int | None, typer.Option(help="Denoising steps per chunk.", rich_help_panel=HOW)]
Window = Annotated[int | None, typer.Option(help="Window size, in latent frames.", rich_help_panel=HOW)]
Chunk = Annotated[
    int | None, typer.Option(help="Chunk size: latent frames that share a noise level.", rich_help_panel=HOW)
]
Context = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=1,
        help="Clean chunks in front of the window (overlapped conditioning); 0 disables it. Default: the model's.",
        rich_help_panel=HOW,
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE[:SCALE]",
        help="LoRA to merge into the transformer, as safetensors; may be given several times.",
        rich_help_panel=HOW,
    ),
]
RampUp = Annotated[
    Literal["grow", "full"],
    typer.Option(
        help="grow: the window begins with one chunk (paper 3.2). full: it always has its full length; chunks that "
        "have not started are shown as noise.",
        rich_help_panel=HOW,
    ),
]
Stride = Annotated[
    int,
    typer.Option(
        min=0,
        help="With --method windows: steps from one chunk's start to the next one's; 0: one level per window.",
        rich_help_panel=HOW,
    ),
]
Solver = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete(SOLVERS),
        help="euler, or unipc (second order). Default: the model's.",
        rich_help_panel=HOW,
    ),
]
Warmup = Annotated[
    int | None,
    typer.Option(
        help="Number of lower-quality first chunks to generate and discard. Default: the model's.", rich_help_panel=HOW
    ),
]
Reencode = Annotated[
    bool | None,
    typer.Option(
        "--reencode/--keep-latents",
        help="rn: condition a clip on the re-encoded last frames of the previous one (Open-Sora's default), "
        "or on their latents.",
        rich_help_panel=HOW,
    ),
]
EditRatio = Annotated[
    float,
    typer.Option(
        help="rn: noise level (0 to 1) below which the conditioning frames are denoised too; 0 keeps them fixed.",
        rich_help_panel=HOW,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Classifier-free guidance scale; 1 disables it. pocket's default, 1.5, is distilled and needs a single "
        "forward pass.",
        rich_help_panel=HOW,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        autocompletion=complete(DEVICES), help="auto (a GPU if available), cpu, cuda or mps.", rich_help_panel=RUN
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16"],
    typer.Option(
        help="Matmul precision. bf16 is faster for pocket on CPUs with native bfloat16; auto: the model's default.",
        rich_help_panel=RUN,
    ),
]
Attention = Annotated[
    str,
    typer.Option(
        autocompletion=complete(ATTENTION), help="auto, or a backend that `pavdm doctor` lists.", rich_help_panel=SPEED
    ),
]
ContextCache = Annotated[
    Literal["auto", "reuse", "recompute"],
    typer.Option(
        help="reuse: cache the keys and values of the clean context until the window shifts. recompute: compute them "
        "at every step. auto: whichever matches the model's training.",
        rich_help_panel=SPEED,
    ),
]
MAX_THREADS = 1024  # far more threads than cores are very slow
Threads = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_THREADS,
        help="CPU threads; 0: one for each idle core (bench: torch's default).",
        rich_help_panel=RUN,
    ),
]
CudaGraphs = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        help="Capture steps as CUDA graphs and replay them; auto: only when launch-bound.", rich_help_panel=SPEED
    ),
]
OverlapDecode = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        help="Overlap decoding with denoising of the next chunk; auto: on GPUs only.",
        rich_help_panel=SPEED,
    ),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile the network's blocks with torch.compile.", rich_help_panel=SPEED),
]
Offload = Annotated[
    Literal["none", "model", "sequential"],
    typer.Option(
        help="CPU offload: model keeps each part on the host until it is used, sequential also each transformer block.",
        rich_help_panel=SPEED,
    ),
]
VaeTiling = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        help="Encode and decode in overlapping tiles: less memory, slightly different frames; auto: only if needed.",
        rich_help_panel=SPEED,
    ),
]
CfgBatching = Annotated[
    Literal["auto", "batched", "sequential"],
    typer.Option(
        help="Classifier-free guidance in one batch, or in two forward passes; auto: what fits in memory.",
        rich_help_panel=SPEED,
    ),
]
Plan = Annotated[
    bool,
    typer.Option("--plan", help="Estimate memory and time, and exit without loading the model.", rich_help_panel=RUN),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File (mp4, mkv, webm or gif) or folder; default: named after prompt or input. generate: - for stdout.",
        rich_help_panel=FILE,
    ),
]
StreamFormat = Annotated[
    Literal["", "mp4", "y4m", "rawvideo"],
    typer.Option(
        metavar="mp4|y4m|rawvideo",
        show_default=False,
        help="With -o -: fragmented MP4 (the default), YUV4MPEG2, or raw RGB frames: "
        "pavdm generate PROMPT -o - | ffplay -",
        rich_help_panel=FILE,
    ),
]
Crf = Annotated[int, typer.Option(help="Constant rate factor, 0 best to 51 smallest.", rich_help_panel=FILE)]
Scale = Annotated[
    int | None,
    typer.Option(help="Integer upscaling factor, 1 to 8. Default: the model's (4 for pocket).", rich_help_panel=FILE),
]
ScaleFilter = Annotated[
    Literal["lanczos", "nearest"], typer.Option(help="lanczos: smooth. nearest: blocky pixels.", rich_help_panel=FILE)
]
Encoder = Annotated[
    str, typer.Option(help="Encoder of ffmpeg (from PAVDM_FFMPEG or PATH), such as h264_nvenc.", rich_help_panel=FILE)
]
Json = Annotated[
    bool,
    typer.Option("--json", help='Print the result as JSON, and an error as {"error": ...}.', rich_help_panel=FILE),
]
KeepState = Annotated[
    bool,
    typer.Option(
        "--keep-state",
        help="Keep the checkpoint and all latents of a complete video, for `redo`.",
        rich_help_panel=FILE,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        "-f",
        help="Replace an existing file of that name, or a partial one left by an interrupted run.",
        rich_help_panel=FILE,
    ),
]
