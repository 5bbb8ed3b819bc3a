"""`pavdm resume`: continue an interrupted video."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pavdm_cli import ui
from pavdm_cli.commands import output_options, torchrun
from pavdm_cli.commands.progress import extension_progress
from pavdm_cli.commands.result_report import report
from pavdm_cli.commands.run import open_model
from pavdm_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig
    from pavdm_cli.generation.extend import Source
    from pavdm_cli.generation.resume import InterruptedVideo
    from pavdm_cli.models.runner import ModelRunner

Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Continue even if weights, versions or files changed; the result is then not bit-identical."
    ),
]


def resume(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="The video (NAME.mp4), its partial file (NAME.partial.mp4) or its checkpoint."
        ),
    ],
    force: Force = False,
    keep_state: output_options.KeepState = False,
    as_json: output_options.Json = False,
) -> None:
    """Continue an interrupted video where it stopped.

    The result is byte-identical to an uninterrupted run on the same machine and versions; for GIF and --encoder only
    the frames are identical. A complete video is left unchanged.
    """
    from pavdm_cli.generation.resume import find_interrupted, finish_if_complete

    interrupted_video = find_interrupted(file)
    if interrupted_video is None or finish_if_complete(interrupted_video):
        ui.info(f"{file} is complete: there is nothing to resume", always=True)
        path = str(interrupted_video.output if interrupted_video else file)
        print(json.dumps({"path": path, "complete": True}) if as_json else path)
        return
    _check_output(interrupted_video)
    _continue(interrupted_video, force, keep_state, as_json)


def _check_output(interrupted_video: InterruptedVideo) -> None:
    """Fail early if the output exists, or another run is writing it. Raises: OutputError."""
    from pavdm_cli.video import is_being_written

    run, output = interrupted_video.checkpoint.run, interrupted_video.output
    if is_being_written(interrupted_video.partial):
        hint = "wait for it to finish"
        raise OutputError(f"{interrupted_video.partial} is being written by another run", hint)
    complete = interrupted_video.checkpoint.file.written == run.total
    if output.exists() and not run.request.output.force and not complete:
        raise OutputError(f"{output} already exists", "rename it, then resume again")


def _continue(interrupted_video: InterruptedVideo, force: bool, keep_state: bool, as_json: bool) -> None:
    from pavdm_cli.generation.redo import RedoTask
    from pavdm_cli.generation.resume import changes_of_files, changes_of_run, resolve_stored_request
    from pavdm_cli.generation.write import RunControl
    from pavdm_cli.generation.write_request import write_request

    start_time, checkpoint = time.monotonic(), interrupted_video.checkpoint
    request = checkpoint.run.request
    _check_changes(changes_of_files(interrupted_video), force)
    config, source = resolve_stored_request(request)
    config = torchrun.for_all_ranks(config)
    model = open_model(config)
    _check_changes(changes_of_run(config, model, checkpoint.run), force)
    _notes(interrupted_video, model)
    output = replace(request.output, path=interrupted_video.output, keep_state=keep_state or request.output.keep_state)
    with torchrun.stop_requested() as stop:
        extension_source = None if isinstance(source, RedoTask) else source
        with _progress(interrupted_video, config, extension_source) as advance:
            control = RunControl(advance, stop, stop.interruptible, stopped_by_user=stop.by_user)
            result = write_request(config, model, source, request, output, control, checkpoint)
        video = source.original.video if isinstance(source, RedoTask) else source.video if source else None
        rate = video.rate if video else config.spec.fps
        length = float(
            extension_source.new_duration if extension_source and not result.was_stopped else result.frames / rate
        )
        wall = time.monotonic() - start_time
        before, code = checkpoint.file.written, stop.exit_code
        report(result, video_seconds=length, wall_seconds=wall, as_json=as_json, exit_code=code, num_before=before)


def _progress(
    interrupted_video: InterruptedVideo, config: GenerationConfig, source: Source | None
) -> AbstractContextManager[ui.Advance]:
    name, num_written = interrupted_video.output.name, interrupted_video.checkpoint.file.written
    if source:
        return extension_progress(source, name, num_written)
    if config.endless:
        return ui.endless_progress(name, config.spec.fps, num_written)
    return ui.progress(name, interrupted_video.checkpoint.run.total, done=num_written)


def _check_changes(changes: list[str], force: bool) -> None:
    """Raises: UsageError where something differs, unless it is forced."""
    if not changes:
        return
    if not force:
        hint = "restore the original, or use --force: the video is then not bit-identical to an uninterrupted one"
        raise UsageError(f"cannot continue bit for bit: {'; '.join(changes)}", hint)
    for line in changes:
        ui.note(f"continuing although {line}: the video is not bit-identical to an uninterrupted one")


def _notes(interrupted_video: InterruptedVideo, model: ModelRunner) -> None:
    from pavdm_cli.generation.checkpoint_writer import machine_name

    checkpoint = interrupted_video.checkpoint
    if checkpoint.run.machine != (machine := machine_name(model.device)):
        ui.note(f"started on {checkpoint.run.machine}, resumed on {machine}: new frames may not be bit-identical")
    if checkpoint.needs_rewrite:
        ui.note("this format must be rewritten from the start: frames are identical, bytes may differ")
    total = "" if checkpoint.run.request.endless else f" of {checkpoint.run.total}"
    ui.info(f"resuming after frame {checkpoint.file.written or checkpoint.render.frames}{total}")
