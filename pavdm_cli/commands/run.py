"""Shared by all commands that generate videos: seed, checks, notes, progress bar, result."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pavdm_cli import ui
from pavdm_cli.commands import torchrun
from pavdm_cli.commands.plan import OptionSources, plan_and_report, print_plan, print_settings, request_settings
from pavdm_cli.commands.progress import extension_progress, video_progress
from pavdm_cli.commands.result_report import report, report_interrupt
from pavdm_cli.commands.stream_output import check_stream
from pavdm_cli.errors import UsageError
from pavdm_cli.generation.checks import check, check_forever
from pavdm_cli.generation.request import Request
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.runtime.signals import Stop
from pavdm_cli.runtime.threads import Load, choose_threads

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig
    from pavdm_cli.generation.write import WriteResult
    from pavdm_cli.models.runner import ModelRunner
    from pavdm_cli.video.io.image import StillImage


def pick_seed(seed: int | None) -> int:
    """The given seed, or a random one of up to nine digits. Raises: UsageError."""
    if seed is None:
        return int.from_bytes(os.urandom(4), "little") % 1_000_000_000
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed must be 0 to 2^63 - 1, got {seed}", "for example --seed 7")
    return seed


def generate_videos(
    request: Request, as_json: bool, only_plan: bool = False, count: int = 1, sources: OptionSources | None = None
) -> None:
    """Generate `count` videos with consecutive seeds and print their paths.

    Invalid options fail before torch is imported.
    only_plan: print the resource estimate of one video instead; sources: where each option's value comes from.
    """
    check(request)
    check_forever(request, request.output.path, count)
    check_stream(request, as_json, count)
    requests, still = with_seeds(request, count), _read_start_image(request)
    _check_devices(request)
    _check_encoder(requests[0])
    ui.info(f"seed {requests[0].seed}" if count == 1 else f"seeds {requests[0].seed} to {requests[-1].seed}")
    start_time, load = time.monotonic(), Load()
    from pavdm_cli.generation import image_start
    from pavdm_cli.generation.resolve import resolve

    config = torchrun.for_all_ranks(resolve(with_threads(request, load)))
    sources = request_settings(requests[0], sources or {})
    for line in image_start.notes(config, still) if still else ():
        ui.note(line)
    config = replace(config, num_conditioning_frames=image_start.num_image_frames(config) if still else 0)
    if only_plan:
        minute = replace(config, frames=60 * config.spec.fps) if config.endless else config
        pixels = minute.frames * math.prod(config.spec.size) * request.output.resolve_scale(config.spec) ** 2
        print_plan(minute, pixels, as_json, count, sources, endless=config.endless)
        return
    print_settings(config, sources)
    config = plan_and_report(config)
    model = open_model(config)
    with torchrun.stop_requested() as stop:
        for number, video_request in enumerate(requests):
            num_frames = config.num_conditioning_frames
            current = replace(resolve(video_request), execution=config.execution, num_conditioning_frames=num_frames)
            for line in current.notes:
                if line not in config.notes:
                    ui.note(line)
            result = _generate_one(current, model, video_request, stop, still)
            remaining = requests[number + bool(result.is_complete or result.frames) :] if count > 1 else []
            missing = [later.seed for later in remaining]
            length, start_time, wall = result.frames / config.spec.fps, time.monotonic(), time.monotonic() - start_time
            code = stop.exit_code
            report(result, video_seconds=length, wall_seconds=wall, as_json=as_json, missing=missing, exit_code=code)
            if stop() and missing:
                report_interrupt("interrupted", "", as_json, missing, exit_code=code)
                raise typer.Exit(code)


def with_seeds(request: Request, count: int) -> list[Request]:
    """Requests with consecutive seeds and their output paths. Raises: OutputError, UsageError."""
    first, path = request.seed, request.output.path
    requests = []
    for seed in range(first, first + count):
        single = count == 1 or path is None or path.is_dir()
        path_for_seed = path if single or path is None else path.with_name(f"{path.stem}-{seed}{path.suffix}")
        seed_request = replace(request, seed=pick_seed(seed), output=replace(request.output, path=path_for_seed))
        requests.append(replace(seed_request, output=replace(seed_request.output, path=_target(seed_request))))
    return requests


def _generate_one(
    config: GenerationConfig, model: ModelRunner, request: Request, stop: Stop, still: StillImage | None
) -> WriteResult:
    """Generate one video with a progress bar. Raises: OutputError, DeviceError."""
    from pavdm_cli.generation.write import RunControl, write_video
    from pavdm_cli.generation.write_stream import write_stream

    assert request.output.path
    name = "standard output" if request.output.is_stdout else request.output.path.name
    with video_progress(config, name) as advance:

        def count_warm_up(frames: int) -> None:  # warm-up frames do not count towards an endless video's length
            advance(0 if config.endless else frames, label="warm-up")

        control = RunControl(advance, stop, stop.interruptible, count_warm_up, stop.by_user)
        write_output = write_stream if request.output.is_stdout else write_video
        return write_output(config, model, request.output, control, still)


def open_model(config: GenerationConfig) -> ModelRunner:
    """Load the model; prints details with --verbose. Raises: DeviceError, ModelError."""
    import torch

    from pavdm_cli.generation import pipeline
    from pavdm_cli.generation.device_errors import report_device_errors

    with report_device_errors(config):
        model = pipeline.open_model(config)
    ui.detail(f"device {model.device}, attention {model.attention.name}: {model.attention.reason}")
    threads = pluralize(torch.get_num_threads(), "thread")
    ui.detail(f"weights {model.digest}, {threads}, {pluralize(config.total_steps, 'step')}, {config.execution}")
    return model


def with_threads(request: Request, load: Load) -> Request:
    """Set the number of CPU threads if neither the request nor the environment does."""
    import torch

    from pavdm_cli.models.devices import pick_device

    has_fixed_threads = request.execution.threads or "OMP_NUM_THREADS" in os.environ
    if has_fixed_threads or pick_device(request.execution.device).type != "cpu":
        return request
    max_threads = torch.get_num_threads()
    threads = choose_threads(max_threads, load.other_busy_cores())
    if threads < max_threads:
        reason = "(other cores are busy or unavailable)"
        ui.info(f"using {threads} of {max_threads} CPU threads {reason}; --threads {max_threads} uses all")
    return replace(request, execution=replace(request.execution, threads=threads))


def extend_video(
    request: Request, as_json: bool, only_plan: bool = False, sources: OptionSources | None = None
) -> None:
    """Extend the request's video and print the path; only_plan: print the resource estimate instead."""
    assert request.extension
    if request.output.is_stdout:
        raise UsageError("-o - is only supported by generate", "name a file, or omit -o")
    check_stream(request, as_json)
    from pavdm_cli.generation import extend as continuation

    check(request)
    source = continuation.open_source(request)
    request, notes = continuation.inherit_prompt(request, source)
    check(request)
    path = continuation.choose_output(request, source)
    check_forever(request, path)
    _check_devices(request)
    ui.info(f"seed {request.seed}")
    start_time, load = time.monotonic(), Load()
    from pavdm_cli.generation.resolve import resolve
    from pavdm_cli.generation.write import RunControl
    from pavdm_cli.generation.write_extension import write_extension

    request = replace(request, seconds=None, frames=source.frames_to_generate(request.spec.fps))
    config = torchrun.for_all_ranks(resolve(with_threads(request, load)))
    notes += continuation.suffix_notes(request, source, path) + continuation.shape_notes(config, source)
    for line in (*notes, *continuation.start_notes(config, source)):
        ui.note(line)
    config = replace(config, num_conditioning_frames=continuation.frames_to_read(config, source))
    sources = request_settings(replace(request, output=replace(request.output, path=path)), sources or {})
    if only_plan:
        minute = replace(config, frames=60 * config.spec.fps) if source.endless else config
        num_new = round(60 * source.video.rate) if source.endless else source.frames
        pixels = (source.num_copied + num_new) * source.video.width * source.video.height
        print_plan(minute, pixels, as_json, sources=sources, endless=source.endless)
        return
    print_settings(config, sources)
    config = plan_and_report(config)
    model = open_model(config)
    with torchrun.stop_requested() as stop:
        with extension_progress(source, path.name) as advance:
            control = RunControl(advance, stop, stop.interruptible, stopped_by_user=stop.by_user)
            result = write_extension(config, model, source, replace(request.output, path=path), control)
        length = float(result.frames / source.video.rate if result.was_stopped else source.new_duration)
        wall, before, code = time.monotonic() - start_time, source.num_copied, stop.exit_code
        report(result, video_seconds=length, wall_seconds=wall, as_json=as_json, exit_code=code, num_before=before)


def _read_start_image(request: Request) -> StillImage | None:
    """The start image. Raises: InputError."""
    if request.image is None:
        return None
    from pavdm_cli.video.io.image import read_image

    return read_image(request.image)


def _target(request: Request) -> Path:
    """Where the video goes. Raises: OutputError, UsageError."""
    from pavdm_cli.video.write.output import check_output, default_output_path, resolve_output

    if request.output.path and request.output.is_stdout:
        return request.output.path
    make_default = partial(default_output_path, request.prompt, request.seed)
    return check_output(resolve_output(request.output.path, make_default), request.output.force)


def _check_devices(request: Request) -> None:
    """Reject an unavailable GPU. Imports torch only if a GPU is named. Raises: DeviceError."""
    devices = {"--device": request.execution.device, "--text-device": request.options.get("text_device", "")}
    for option, name in devices.items():
        if name not in ("", "auto", "cpu"):
            from pavdm_cli.models.devices import pick_device

            pick_device(name, option)


def _check_encoder(request: Request) -> None:
    """Reject a missing external ffmpeg, or one that cannot encode a test frame. Raises: UsageError."""
    from pavdm_cli.video.write.encode import EncoderOptions
    from pavdm_cli.video.write.external import probe_encoder, require_ffmpeg

    output, spec = request.output, request.spec
    encoding = EncoderOptions(output.crf, encoder=output.encoder, ffmpeg=output.ffmpeg)
    if output.encoder or output.ffmpeg:
        require_ffmpeg(encoding)
    if output.encoder and output.path and output.path.suffix.lower() != ".gif":
        height, width = (side * output.resolve_scale(spec) for side in spec.size)
        probe_encoder(encoding, (width, height), output.path.suffix)
