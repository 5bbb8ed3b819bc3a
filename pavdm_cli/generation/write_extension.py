"""Write a video and its continuation, or the continuation alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import Any

from pavdm_cli.generation.checkpoint import Checkpoint
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import RenderedChunk
from pavdm_cli.generation.device_errors import report_device_errors
from pavdm_cli.generation.extend import Source, frames_to_read, stored_fields
from pavdm_cli.generation.pipeline import choose_graph_capturer, render_chunks, state_after_clip
from pavdm_cli.generation.prompt_ranges import extended_ranges
from pavdm_cli.generation.provenance import collect_metadata
from pavdm_cli.generation.request import Output
from pavdm_cli.generation.stored_request import build_resolved_request
from pavdm_cli.generation.write import (
    Run,
    RunControl,
    WriteResult,
    close_and_describe,
    finish,
    make_recovery,
    open_checkpoint_writer,
    remaining_chunks,
    run_until_stopped,
    scale_metadata,
    write_chunks,
)
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.video import EncoderOptions, ExtensionOptions, LastFrames
from pavdm_cli.video.write.extend import ExtensionWriter


def write_extension(
    config: GenerationConfig,
    model: ModelRunner,
    source: Source,
    output: Output,
    control: RunControl,
    checkpoint: Checkpoint | None = None,
) -> WriteResult:
    """Write a video and its continuation, or the continuation alone. Raises: InputError, OutputError, UsageError.

    checkpoint: continue this interrupted run.
    """
    assert output.path
    metadata = dict(checkpoint.run.metadata) if checkpoint else extension_metadata(config, model, source, output)
    encoding = EncoderOptions(crf=output.crf, ffmpeg=output.ffmpeg, resume=checkpoint.file if checkpoint else None)
    extension, total = source.extension, source.num_copied + source.frames
    plan = ExtensionOptions(extension.audio, extension.only_new, metadata, encoding, output.force, source.scale)
    with report_device_errors(config):
        end, graph_capturer = last_frames(config, source), choose_graph_capturer(config, model)
    with ExtensionWriter(source.video, output.path, plan) as file:
        request = replace(build_resolved_request(config, model, output), frames=source.frames, extension=extension)
        run = Run(file, config, model, graph_capturer, make_recovery(model, checkpoint), control)
        with (
            open_checkpoint_writer(run, request, metadata, total, checkpoint) as checkpoint_writer,
            report_device_errors(config, partial(close_and_describe, file)),
        ):
            copy = checkpoint is None or not checkpoint.file.written
            copy_counts = (1 for _ in file.copy_input(end.add)) if copy else iter(())
            chunks = remaining_chunks(run, checkpoint) if checkpoint else _extension_chunks(run, source, end)
            new_counts = write_chunks(run, chunks, checkpoint_writer, source)
            is_complete = run_until_stopped(chain(copy_counts, new_counts), lambda: file.frames < total, control)
        return finish(run, output, metadata, is_complete, source.num_copied)


def extension_metadata(config: GenerationConfig, model: ModelRunner, source: Source, output: Output) -> dict[str, Any]:
    extension, fields = source.extension, collect_metadata(config, model)
    stored, _ = stored_fields(source.video.path)
    ranges = extended_ranges(stored, fields, float(source.video.duration), extension.only_new)
    return fields | {
        **({"prompt_ranges": [prompt_range.to_json() for prompt_range in ranges]} if ranges else {}),
        "crf": output.crf,
        **({} if source.endless else {"frames": source.frames}),
        "source": str(source.video.path),
        "copied": source.num_copied,
        **{name: getattr(extension, name) for name in ("start", "audio", "only_new")},
        **scale_metadata(source.scale),
    }


def last_frames(config: GenerationConfig, source: Source) -> LastFrames:
    """The last frames of the video, which condition the model."""
    count = frames_to_read(config, source)
    return LastFrames(source.video, Fraction(config.spec.fps), count, config.spec.size, source.scale)


def _extension_chunks(run: Run, source: Source, end: LastFrames) -> Iterator[RenderedChunk]:
    """Generated frames. `end` is complete only after the input was copied, so it is read lazily."""
    start = state_after_clip(run.config, run.model, from_bytes(end.frames()), source.extension.start == "noised")
    yield from render_chunks(run.config, run.model, start, run.graph_capturer, run.recovery)
