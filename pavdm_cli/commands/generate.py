"""`pavdm generate`: generate a video from a prompt."""

from __future__ import annotations

import typer

from pavdm_cli.commands import (
    common,
    execution_options,
    length_options,
    options,
    output_options,
    timeline_options,
    torchrun,
)
from pavdm_cli.commands.flags import request_from_params
from pavdm_cli.commands.option_sources import option_sources
from pavdm_cli.commands.run import generate_videos
from pavdm_cli.generation.request import Request


@common.with_model_options
def generate(
    ctx: typer.Context,
    prompt: options.Prompt,
    seconds: length_options.Seconds = None,
    frames: length_options.FrameCount = None,
    at: timeline_options.At = None,
    timeline: timeline_options.Timeline = None,
    blend: timeline_options.Blend = 0.0,
    loop: length_options.Loop = False,
    image: options.Image = None,
    output: output_options.StreamOrFile = None,
    model: options.Model = "pocket",
    seed: options.Seed = None,
    count: options.Count = 1,
    device: execution_options.Device = "auto",
    threads: execution_options.Threads = 0,
    precision: execution_options.Precision = "auto",
    plan: execution_options.Plan = False,
    method: options.Method = "pa",
    steps: options.Steps = None,
    window: options.Window = None,
    chunk: options.Chunk = None,
    context: options.Context = None,
    sink: options.Sink = None,
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
    warmup: options.Warmup = None,
    attention: execution_options.Attention = "auto",
    context_cache: execution_options.ContextCache = "auto",
    cuda_graphs: execution_options.CudaGraphs = "auto",
    overlap_decode: execution_options.OverlapDecode = "auto",
    compile: execution_options.Compile = False,
    offload: execution_options.Offload = "none",
    vae_tiling: execution_options.VaeTiling = "auto",
    vae_batch_size: execution_options.VaeBatchSize = 0,
    cfg_batching: execution_options.CfgBatching = "auto",
    shard_weights: torchrun.ShardWeights = "auto",
    stream_format: output_options.StreamFormat = "",
    crf: output_options.Crf = 18,
    encoder: output_options.Encoder = "",
    scale: output_options.Scale = None,
    scale_filter: output_options.ScaleFilter = "lanczos",
    as_json: output_options.Json = False,
    force: output_options.Force = False,
    keep_state: output_options.KeepState = False,
) -> None:
    """Make a video of any length from a PROMPT.

    The file can be played while it is being written. Ctrl-C stops after the current chunk; `pavdm resume` continues.
    """
    generate_videos(_build_request(ctx), as_json, plan, count, option_sources(ctx))


def _build_request(ctx: typer.Context) -> Request:
    common.check_model_options(ctx, ctx.params["model"])
    return request_from_params(ctx.params, prompt=common.read_prompt(ctx.params["prompt"], ctx.args))
