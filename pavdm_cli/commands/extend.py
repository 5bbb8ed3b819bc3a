"""`pavdm extend`: continue a video file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pavdm_cli.commands import common, execution_options, options, output_options, timeline_options, torchrun
from pavdm_cli.commands.flags import request_from_params
from pavdm_cli.commands.length_options import parse_seconds
from pavdm_cli.commands.option_sources import option_sources
from pavdm_cli.commands.run import extend_video
from pavdm_cli.generation.request import Extension

Prompt = Annotated[
    str | None,
    typer.Option("--prompt", "-p", help="What to show, or - to read it from standard input; default: INPUT's prompt."),
]
NewSeconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        "-s",
        parser=parse_seconds,
        metavar="SECONDS|forever",
        help="Seconds to add, default 10, or 'forever' to run until Ctrl-C, which finishes the file.",
        rich_help_panel=options.VIDEO_PANEL,
    ),
]
NewFrames = Annotated[
    int | None,
    typer.Option(
        help="Frames to add, at INPUT's frame rate, instead of --seconds.", rich_help_panel=options.VIDEO_PANEL
    ),
]
Start = Annotated[
    Literal["clip", "noised"],
    typer.Option(
        help="clip: condition on the clean last chunk. noised: re-noise the last window (algorithm 1).",
        rich_help_panel=options.VIDEO_PANEL,
    ),
]
OnlyNew = Annotated[
    bool, typer.Option("--only-new", help="Write only the continuation.", rich_help_panel=options.VIDEO_PANEL)
]
Audio = Annotated[
    Literal["keep", "silence", "drop"],
    typer.Option(
        help="INPUT's audio: keep: copy it; silence: copy it and pad with silence; drop: none.",
        rich_help_panel=options.VIDEO_PANEL,
    ),
]


@common.with_model_options
def extend(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="The video to continue; it is never changed.")],
    prompt: Prompt = None,
    seconds: NewSeconds = None,
    frames: NewFrames = None,
    at: timeline_options.At = None,
    timeline: timeline_options.Timeline = None,
    blend: timeline_options.Blend = 0.0,
    output: output_options.Out = None,
    start: Start = "clip",
    only_new: OnlyNew = False,
    audio: Audio = "keep",
    model: options.ModelOfInput = None,
    seed: options.Seed = None,
    device: execution_options.Device = "auto",
    threads: execution_options.Threads = 0,
    precision: execution_options.Precision = "auto",
    plan: execution_options.Plan = False,
    method: options.Method = "pa",
    steps: options.Steps = None,
    window: options.Window = None,
    chunk: options.Chunk = None,
    context: options.Context = None,
    ramp_up: options.RampUp = "grow",
    stride: options.Stride = 0,
    guidance: options.Guidance = None,
    solver: options.Solver = None,
    lora: options.Lora = None,
    size: options.Size = None,
    aspect: options.Aspect = "",
    fps: options.Fps = None,
    reencode: options.Reencode = None,
    edit_ratio: options.EditRatio = 0.0,
    attention: execution_options.Attention = "auto",
    context_cache: execution_options.ContextCache = "auto",
    cuda_graphs: execution_options.CudaGraphs = "auto",
    overlap_decode: execution_options.OverlapDecode = "auto",
    compile: execution_options.Compile = False,
    offload: execution_options.Offload = "none",
    vae_tiling: execution_options.VaeTiling = "auto",
    decode_batch: execution_options.DecodeBatch = 0,
    cfg_batching: execution_options.CfgBatching = "auto",
    shard_weights: torchrun.ShardWeights = "auto",
    crf: output_options.Crf = 16,
    as_json: output_options.Json = False,
    force: output_options.Force = False,
    keep_state: output_options.KeepState = False,
) -> None:
    """Extend the video INPUT from its last frames; writes both as one file.

    The model reads the end of INPUT at its own size and rate; new frames are scaled and resampled to those of INPUT.
    A video that pavdm made is continued by its model at the size and rate that it was made at.
    """
    _inherit_settings(ctx, source)
    extension = Extension(source, start, only_new, audio)
    request = request_from_params(ctx.params, prompt=common.read_prompt(prompt or ""), extension=extension)
    extend_video(request, as_json, plan, option_sources(ctx))


def _inherit_settings(ctx: typer.Context, source: Path) -> None:
    """Fill in the options that are not set as INPUT was made, then check them. Raises: UsageError, ModelError."""
    from pavdm_cli.generation.extend import inherit_settings

    ctx.params.update(inherit_settings(ctx.params, source))
    common.check_model_options(ctx, ctx.params["model"])
