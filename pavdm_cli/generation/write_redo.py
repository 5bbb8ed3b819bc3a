"""Regenerate a span of a video and write the result to a new file or over the old one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.generation.checkpoint import Checkpoint
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import RenderedChunk, RenderState
from pavdm_cli.generation.device_errors import report_device_errors
from pavdm_cli.generation.extend import Source
from pavdm_cli.generation.pipeline import (
    choose_graph_capturer,
    make_levels,
    render_chunks,
    render_from,
    sample_all_chunks,
)
from pavdm_cli.generation.prompt_ranges import prompt_ranges, redone_ranges
from pavdm_cli.generation.provenance import collect_metadata
from pavdm_cli.generation.redo import GeneratedVideo, RedoTask, Span, changes_prompts
from pavdm_cli.generation.request import Extension, Output
from pavdm_cli.generation.span_context import LatentsReader, SpanContext, find_stored_latents, span_context
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
    write_chunks,
)
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.runtime.durable import sync_folder
from pavdm_cli.sampling.loop import empty_state, state_from_clip
from pavdm_cli.sampling.noise import seeded_noise
from pavdm_cli.video.paths import checkpoint_path, latents_path, partial_path
from pavdm_cli.video.write.splice import SpliceWriter

SHARED_FIELDS = ("pavdm", "frames", "attention_reason", "versions", "model", "lora")  # that redo records omit
ENCODED_NOTE = "no stored latents: conditioning on re-encoded frames (generate with --keep-state to store latents)"


def write_redo(
    config: GenerationConfig,
    model: ModelRunner,
    task: RedoTask,
    output: Output,
    control: RunControl,
    checkpoint: Checkpoint | None = None,
) -> WriteResult:
    """Write the video with a regenerated span. Raises: OutputError.

    config: of the video until the span's end; checkpoint: continue this interrupted run.
    """
    assert output.path
    original, span = task.original, task.span
    store = None if checkpoint else find_stored_latents(config, task)
    metadata = dict(checkpoint.run.metadata) if checkpoint else redo_metadata(config, model, task, store is not None)
    encoding = replace(original.encoder, ffmpeg=output.ffmpeg, resume=checkpoint.file if checkpoint else None)
    total = span.splice.end - span.splice.first
    with SpliceWriter(span.splice, output.path, metadata, encoding, output.force) as writer:
        frames = original.metadata["frames"]
        request = replace(build_resolved_request(config, model, output), frames=frames, seconds=None, redo=task.options)
        run = Run(
            writer, config, model, choose_graph_capturer(config, model), make_recovery(model, checkpoint), control
        )
        with (
            open_checkpoint_writer(run, request, metadata, total, checkpoint) as checkpoint_writer,
            report_device_errors(config, partial(close_and_describe, writer)),
        ):
            chunks = remaining_chunks(run, checkpoint) if checkpoint else _span_chunks(run, task, store)
            counts = write_chunks(run, chunks, checkpoint_writer, _source(original) if span.is_resampled else None)
            is_complete = run_until_stopped(counts, lambda: writer.frames < total, control)
        result = finish(run, output, metadata, is_complete)
    if is_complete and task.options.in_place:
        return replace(result, path=_replace(result.path, task.options.source))
    return result


def redo_metadata(
    config: GenerationConfig, model: ModelRunner, task: RedoTask, uses_stored_latents: bool
) -> dict[str, Any]:
    """The video's metadata with a record of this redo appended."""
    original, span = task.original, task.span
    fields = collect_metadata(config, model)
    changes = {name: value for name, value in fields.items() if original.metadata.get(name) != value}
    changes = {name: value for name, value in changes.items() if name not in SHARED_FIELDS}
    location = {"source": str(original.video.path), "first": span.splice.first, "end": span.splice.end}
    location |= {"new_end": span.new_end} if span.num_kept_chunks else {}
    location |= {"stored_latents": True} if uses_stored_latents else {}
    location |= {"timeline": []} if "timeline" in original.metadata and not config.timeline else {}
    record = location | {"seed": config.seed, "prompt": config.prompt} | changes
    redo_records = {"redo": [*original.metadata.get("redo", []), record]}
    return dict(original.metadata) | redo_records | _changed_ranges(task, fields)


def _changed_ranges(task: RedoTask, fields: dict[str, Any]) -> dict[str, Any]:
    """What the parts of the video show after the redo, unless that is still what they showed before."""
    original, span = task.original, task.span
    video, before = original.video, prompt_ranges(original.metadata)
    first, end = (
        float(video.times[frame] - video.start) if frame < video.frames else inf
        for frame in (span.splice.first, span.new_end)
    )
    after = redone_ranges(before, fields, first, end, float(span.origin - video.start))
    return {} if after == before else {"prompt_ranges": [part.to_json() for part in after]}


def _span_chunks(run: Run, task: RedoTask, store: LatentsReader | None) -> Iterator[RenderedChunk]:
    config, model, span = run.config, run.model, task.span
    context = span_context(config, model, task, store)
    if store is None and (context.before.shape[1] or context.after is not None):
        run.recovery.notes.append(ENCODED_NOTE)
    if not span.chunks.start and continues_warmup(config, task):
        context = replace(context, before=sample_original_warmup(run, task.original))
    elif not span.chunks.start and not task.original.starts_from_frames:
        yield from _chunks_from_noise(run, context)
        return
    yield from render_from(
        config, model, state_before_span(config, model, span, context), run.graph_capturer, run.recovery
    )


def continues_warmup(config: GenerationConfig, task: RedoTask) -> bool:
    """Whether a span from the start continues the warm-up of the original instead of one of its own.

    Another warm-up would begin another scene, which cannot become that of the frames after the span.
    """
    if not config.warmup or task.original.starts_from_frames or task.span.reaches_end:
        return False
    return not changes_prompts(task.original, config)


def sample_original_warmup(run: Run, original: GeneratedVideo) -> Tensor:
    """The latents before the first frame of a video, which its file does not hold: sampled again with its seed."""
    config = run.config
    seed, frames = original.metadata["seed"], original.metadata["frames"]
    config = replace(config, schedule=config.schedule.without_right_context, seed=seed, frames=frames)
    chunks, run.recovery.warmup = [], config.warmup
    for chunk in islice(sample_all_chunks(config, run.model, None, run.graph_capturer, run.recovery), config.warmup):
        chunks.append(chunk.latents)
        run.control.on_warmup(int(config.frames_per_chunk))
    return torch.cat(chunks, dim=1)


def _chunks_from_noise(run: Run, context: SpanContext) -> Iterator[RenderedChunk]:
    config, model = run.config, run.model
    noise = seeded_noise(config.seed, model.noise_shape())
    start = empty_state(noise, make_levels(config).sigmas.to(model.device))
    after = None if context.after is None else context.after.to(start.window)
    on_warmup = partial(run.control.on_warmup, int(config.frames_per_chunk))
    start = replace(start, right_context=after)
    yield from render_chunks(config, model, start, run.graph_capturer, run.recovery, on_warmup=on_warmup)


def state_before_span(config: GenerationConfig, model: ModelRunner, span: Span, context: SpanContext) -> RenderState:
    """The render state right before the span, as if everything before it had just been sampled."""
    first = config.warmup + span.chunks.start
    state = state_from_clip(config.schedule, context.before, make_levels(config).sigmas.to(model.device), first)
    after = None if context.after is None else context.after.to(state.window)
    state = replace(state, right_context=after)
    replay = context.before if config.layout.unit == 1 and context.before.shape[1] else None
    return RenderState(state, None, replay, config.latents_before(span.chunks.start), span.frames.start)


def _source(original: GeneratedVideo) -> Source:
    """The source whose frame rate the span is resampled to."""
    return Source(original.video, Extension(original.video.path), original.metadata["frames"])


def _replace(path: Path, old: Path) -> Path:
    """Move the new file over the old one and delete the old one's stored latents."""
    os.replace(path, old)
    partial = partial_path(old)
    for file in (latents_path(partial), checkpoint_path(partial)):
        file.unlink(missing_ok=True)
    sync_folder(old.parent)
    return old
