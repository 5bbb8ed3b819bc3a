"""Write frames to a file as they are generated; stopping between chunks keeps the finished ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pavdm_cli.generation import image_start
from pavdm_cli.generation.checkpoint import Checkpoint, RunInfo
from pavdm_cli.generation.checkpoint_writer import CheckpointWriter, SavedFiles, Writer, machine_name, open_latents
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import RenderedChunk
from pavdm_cli.generation.device_errors import report_device_errors
from pavdm_cli.generation.extend import Source, resample_frames
from pavdm_cli.generation.latents_file import render_from_latents
from pavdm_cli.generation.pipeline import choose_graph_capturer, render_chunks, render_from
from pavdm_cli.generation.provenance import collect_metadata
from pavdm_cli.generation.recovery import Recovery
from pavdm_cli.generation.request import Output, Request
from pavdm_cli.generation.stored_request import build_resolved_request
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.sampling.cuda_graphs import GraphCapturer
from pavdm_cli.video import (
    EncoderOptions,
    Frame,
    StillImage,
    VideoWriter,
    scale_to_cover,
)
from pavdm_cli.video.upscale import Scale


@dataclass(frozen=True, slots=True)
class RunControl:
    """Callbacks of a run: progress reports, and whether to stop."""

    on_frames: Callable[[int], None]
    should_stop: Callable[[], bool]
    interruptible: Callable[[], AbstractContextManager[None]] = nullcontext  # here a second Ctrl-C interrupts
    on_warmup: Callable[[int], None] = lambda frames: None  # frames of a dropped warm-up chunk
    stopped_by_user: Callable[[], bool] = lambda: False  # not by a scheduler; an endless video is then complete
    on_chunk: Callable[[RenderedChunk], None] = lambda chunk: None  # before it is written
    on_saved: Callable[[SavedFiles], None] | None = None  # after every checkpoint, before the next chunk


@dataclass(frozen=True, slots=True)
class WriteResult:
    """A written video: complete, or interrupted and stored under its partial name."""

    path: Path
    frames: int
    is_complete: bool
    metadata: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    resume_command: str = ""  # command that resumes an interrupted video; empty without a checkpoint
    was_stopped: bool = False  # an endless video that the user stopped


def write_video(
    config: GenerationConfig,
    model: ModelRunner,
    output: Output,
    control: RunControl,
    still: StillImage | None = None,
    checkpoint: Checkpoint | None = None,
) -> WriteResult:
    """Sample, decode and write a video, optionally starting from an image. Raises: OutputError.

    checkpoint: continue this interrupted run.
    """
    assert output.path
    height, width = config.spec.size
    encoding = replace(encoder_options(config, output), resume=checkpoint.file if checkpoint else None)
    metadata = dict(checkpoint.run.metadata) if checkpoint else build_metadata(config, model, output, still)
    with VideoWriter(output.path, width, height, config.spec.fps, metadata, encoding, output.force) as writer:
        request = replace(build_resolved_request(config, model, output), image=still.path if still else None)
        run = Run(
            writer, config, model, choose_graph_capturer(config, model), make_recovery(model, checkpoint), control
        )
        with (
            open_checkpoint_writer(run, request, metadata, config.frames, checkpoint) as checkpoint_writer,
            report_device_errors(config, partial(close_and_describe, writer)),
        ):
            chunks = (
                remaining_chunks(run, checkpoint, still)
                if checkpoint
                else chunks_from_start(config, model, still, run.graph_capturer, run.recovery, control)
            )
            is_complete = run_until_stopped(
                write_chunks(run, chunks, checkpoint_writer), lambda: writer.frames < config.frames, control
            )
        return finish(run, output, metadata, is_complete)


def build_metadata(
    config: GenerationConfig, model: ModelRunner, output: Output, still: StillImage | None
) -> dict[str, Any]:
    scale = scale_metadata(encoder_options(config, output).scale)
    image = image_start.image_metadata(still) if still else {}
    return collect_metadata(config, model) | {"crf": output.crf} | scale | image


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a running generation needs."""

    writer: Writer
    config: GenerationConfig
    model: ModelRunner
    graph_capturer: GraphCapturer | None
    recovery: Recovery
    control: RunControl


def make_recovery(model: ModelRunner, checkpoint: Checkpoint | None) -> Recovery:
    return Recovery(model, [*checkpoint.notes] if checkpoint else [])


def open_checkpoint_writer(
    run: Run, request: Request, metadata: Mapping[str, Any], total: int, checkpoint: Checkpoint | None
) -> AbstractContextManager[CheckpointWriter]:
    extension, redo = request.extension, request.redo
    inputs = [request.image, extension.source if extension else None, redo.source if redo else None]
    digests = {str(path.absolute()): "" for path in inputs if path}
    info = RunInfo(run.writer.path.name, request, metadata, machine_name(run.model.device), total, digests)
    info = checkpoint.run if checkpoint else info
    latents = open_latents(run.writer, info, checkpoint)
    return CheckpointWriter(
        run.writer, info, run.recovery.notes, latents, is_resumed=checkpoint is not None, on_saved=run.control.on_saved
    )


def chunks_from_start(
    config: GenerationConfig,
    model: ModelRunner,
    still: StillImage | None,
    graph_capturer: GraphCapturer | None,
    recovery: Recovery,
    control: RunControl,
) -> Iterator[RenderedChunk]:
    """The chunks of a new video, which may start from an image."""
    if still:
        return image_start.render_from_image(config, model, still, graph_capturer, recovery)
    on_warmup = partial(control.on_warmup, int(config.frames_per_chunk))
    return render_chunks(config, model, graph_capturer=graph_capturer, recovery=recovery, on_warmup=on_warmup)


def remaining_chunks(run: Run, checkpoint: Checkpoint, still: StillImage | None = None) -> Iterator[RenderedChunk]:
    """The chunks after a checkpoint; for files that are rewritten, also those before it."""
    config = image_start.model_config(run.config) if still else run.config
    if checkpoint.needs_rewrite:
        stored_latents = run.writer.latents, checkpoint.latents.size
        chunks = render_from_latents(
            config, run.model, checkpoint.render, stored_latents, run.recovery, run.graph_capturer
        )
    else:
        chunks = render_from(config, run.model, checkpoint.render, run.graph_capturer, run.recovery)
    if still is None:
        return chunks
    image = scale_to_cover(still.frame, config.spec.size)[None]
    if run.config.image_is_first_latent:
        return image_start.with_first_frame(image, chunks)
    return chain([RenderedChunk(image, None, None)], chunks) if checkpoint.needs_rewrite else chunks


def finish(run: Run, output: Output, metadata: dict[str, Any], is_complete: bool, num_copied: int = 0) -> WriteResult:
    """Close the file; an endless video is complete when the user stops it. num_copied: frames taken from an input."""
    writer, new = run.writer, run.writer.frames - num_copied
    was_stopped = not is_complete and run.config.endless and run.control.stopped_by_user() and new > 0
    if not is_complete and not was_stopped:
        assert output.path
        path = writer.close_partial()
        num_frames, command = writer.frames if path else 0, writer.resume_command
        return WriteResult(path or output.path, num_frames, False, metadata, resume_command=command)
    if was_stopped:
        writer.replace_metadata(metadata := metadata | {"frames": new})
    notes = (
        *getattr(writer, "notes", ()),
        *run.recovery.notes,
        *([run.graph_capturer.note] if run.graph_capturer else []),
    )
    return WriteResult(writer.finish(output.keep_state), writer.frames, True, metadata, notes, was_stopped=was_stopped)


def encoder_options(config: GenerationConfig, output: Output) -> EncoderOptions:
    """The encoder options of an output."""
    scale = Scale(output.resolve_scale(config.spec), output.scale_filter)
    return EncoderOptions(output.crf, encoder=output.encoder, ffmpeg=output.ffmpeg, scale=scale)


def scale_metadata(scale: Scale) -> dict[str, Any]:
    """Metadata of the upscaling, read back by `extend.read_scale`."""
    return {"scale": scale.factor, "scale_filter": scale.filter}


def write_chunks(
    run: Run, chunks: Iterable[RenderedChunk], checkpoint_writer: CheckpointWriter, source: Source | None = None
) -> Iterator[int]:
    """Write chunks as they are made, at the rate of `source`; yields the number of newly durable frames.

    A frame is durable once a checkpoint covers it: in the file or in the checkpoint itself. Raises: OutputError.
    """
    writer, num_reported = run.writer, run.writer.frames
    for chunk in chunks:
        run.control.on_chunk(chunk)
        writer.write(_resample(chunk, run, source) if source else chunk.frames)
        writer.check()
        checkpoint_writer.save(chunk)
        yield max(0, writer.durable_frames - num_reported)
        num_reported = max(num_reported, writer.durable_frames)
    writer.flush()
    yield max(0, writer.frames - num_reported)


def _resample(chunk: RenderedChunk, run: Run, source: Source) -> list[Frame]:
    assert chunk.state
    num_earlier_frames = chunk.state.frames - len(chunk.frames)
    (frames,) = resample_frames([chunk.frames], run.config.spec.fps, source, num_earlier_frames)
    return frames


def run_until_stopped(counts: Iterable[int], is_unfinished: Callable[[], bool], control: RunControl) -> bool:
    """Consume the iterator; returns False if stopped early. A second Ctrl-C interrupts mid-chunk."""
    with suppress(KeyboardInterrupt), control.interruptible():
        for count in counts:
            control.on_frames(count)
            if control.should_stop() and is_unfinished():
                return False
        return True
    return False


def close_and_describe(file: Writer) -> str:
    """Close the partial file so that it plays, and return a message with the command that continues it."""
    path = file.close_partial()
    message = (
        f"kept {path}, {pluralize(file.frames, 'frame')}" if path else "no frame was finished, so nothing was saved"
    )
    return f"{message}; `{file.resume_command}` continues it" if file.resume_command else message
