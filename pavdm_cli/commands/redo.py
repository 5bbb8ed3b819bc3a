"""`pavdm redo`: regenerate a span of a finished video."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pavdm_cli import ui
from pavdm_cli.commands import common, execution_options, options, output_options, torchrun
from pavdm_cli.commands.result_report import report
from pavdm_cli.commands.run import open_model, pick_seed, with_threads
from pavdm_cli.errors import ModelError
from pavdm_cli.generation.request import Output, RedoOptions, Request
from pavdm_cli.runtime.threads import Load

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig
    from pavdm_cli.generation.redo import GeneratedVideo, Span

From = Annotated[
    str,
    typer.Option(
        "--from", metavar="TIME", help="Start of the span: 12, 12s, 12.5s or 1:02. Default: the start of the video."
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="TIME",
        help="End of the span; the new frames lead into the ones that follow. Default: the end of the video.",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt", "-p", help="Text prompt of the span, or - to read it from standard input; default: FILE's."
    ),
]
Device = Annotated[str | None, typer.Option(help="Default: the device that FILE was generated on.")]
Threads = Annotated[
    int | None, typer.Option(min=0, max=execution_options.MAX_THREADS, help="CPU threads; default: the same as FILE.")
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        "-f",
        help="Overwrite an existing output; with -o FILE, replace the input once the new video is complete.",
    ),
]


def redo(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A complete mp4, mkv or webm that pavdm made.")],
    start: From = "0s",
    end: To = None,
    prompt: Prompt = None,
    seed: options.Seed = None,
    output: output_options.Out = None,
    device: Device = None,
    threads: Threads = None,
    force: Force = False,
    as_json: output_options.Json = False,
) -> None:
    """Regenerate a span of a video with another seed or prompt; all other frames stay bit-identical.

    The span is extended to whole segments of the file. With --to, its last chunks are conditioned on the chunk after
    it, so that the motion leads into it. Latents stored by `generate --keep-state` are used if available; otherwise
    the frames around the span are encoded. Audio and other tracks are copied. The output is NAME-redo, unless -o is
    used.
    """
    from pavdm_cli.generation.redo import build_redo_request, check_times, choose_output, open_generated_video
    from pavdm_cli.generation.timeline import parse_time

    begin, stop = parse_time(start), None if end is None else parse_time(end)
    original = open_generated_video(file)
    redo_options = RedoOptions(file, begin, stop)
    check_times(original, redo_options)
    path, in_place = choose_output(original, Output(output, force=force))
    text = None if prompt is None else common.read_prompt(prompt)
    changes = {"prompt": text, "seed": pick_seed(seed), "device": device, "threads": threads}
    request = build_redo_request(original, replace(redo_options, in_place=in_place), changes)
    ui.info(f"seed {request.seed}")
    if not begin and stop is None:
        ui.note("no --from or --to: the whole video is regenerated")
    _regenerate(original, request, Output(path, original.metadata["crf"], force and not in_place), as_json)


def _regenerate(original: GeneratedVideo, request: Request, output: Output, as_json: bool) -> None:
    from pavdm_cli.generation.redo import RedoTask, build_original_config, build_span_config, find_span
    from pavdm_cli.generation.write import RunControl
    from pavdm_cli.generation.write_redo import write_redo

    start_time, redo_options = time.monotonic(), request.redo
    assert redo_options
    assert output.path
    full_config = build_original_config(original, with_threads(request, Load()))
    _check_weights(full_config, original)
    span = find_span(full_config, original, redo_options)
    config = torchrun.for_all_ranks(build_span_config(original, full_config, span))
    _print_span(original, span)
    for line in config.notes:
        ui.note(line)
    model = open_model(config)
    total = span.splice.end - span.splice.first
    with torchrun.stop_requested() as stop:
        with ui.progress(output.path.name, total) as advance:
            control = RunControl(advance, stop, stop.interruptible)
            result = write_redo(config, model, RedoTask(original, span, redo_options), output, control)
        seconds, wall = result.frames / float(original.video.rate), time.monotonic() - start_time
        report(result, video_seconds=seconds, wall_seconds=wall, as_json=as_json, exit_code=stop.exit_code)


def _print_span(original: GeneratedVideo, span: Span) -> None:
    """Print the span after rounding to whole segments."""
    first, end = span.splice.first, span.splice.end
    times = [time - original.video.start for time in [*original.video.times, original.video.end]]
    ui.info(f"regenerating {float(times[first]):g} s to {float(times[end]):g} s, frames {first} to {end - 1}")


def _check_weights(config: GenerationConfig, original: GeneratedVideo) -> None:
    """Reject weights other than those that generated the video, before loading them. Raises: ModelError."""
    from pavdm_cli.models.lora_file import parse_lora
    from pavdm_cli.models.open_runner import placement_for, weights_digest

    placement = replace(placement_for(config.execution, config.text_device), lora=tuple(map(parse_lora, config.lora)))
    current, original_digest = weights_digest(config.video_model, placement), original.metadata["weights"]
    if current != original_digest:
        raise ModelError(
            f"{original.video.path} was generated with different weights of {config.spec.name}: {original_digest}, "
            f"not {current}",
            "use the model version or weights folder that generated it",
        )
