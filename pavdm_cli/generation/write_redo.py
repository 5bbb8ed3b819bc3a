"""Regenerate a span of a video and write the result to a new file or over the old one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pavdm_cli.generation.checkpoint import Checkpoint
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import Rendered, RenderState
from pavdm_cli.generation.extend import Source
from pavdm_cli.generation.kept_latents import Surroundings, surroundings
from pavdm_cli.generation.memory_plan import told
from pavdm_cli.generation.pipeline import continued, graphs_of, levels_of, rendered
from pavdm_cli.generation.provenance import metadata_of
from pavdm_cli.generation.redo import MadeVideo, Span, Task
from pavdm_cli.generation.request import Extension, Output
from pavdm_cli.generation.stored_request import decided_request
from pavdm_cli.generation.write import (
    Made,
    Run,
    Watch,
    finish,
    follow,
    keep,
    recovery_of,
    rest_of,
    saver_of,
    write_chunks,
)
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.runtime.durable import sync_folder
from pavdm_cli.sampling.loop import empty_state, state_from_clip
from pavdm_cli.sampling.noise import seeded_noise
from pavdm_cli.video.write.output import checkpoint_path, latents_path, partial_path
from pavdm_cli.video.write.splice import SpliceWriter

UNCHANGED = ("pavdm", "frames", "attention_reason", "versions", "model", "lora")  # that redo records omit
ENCODED = "no stored latents: conditioning on re-encoded frames (generate with --keep-state to store latents)"


def redo(
    config: GenerationConfig,
    model: ModelRunner,
    task: Task,
    output: Output,
    watch: Watch,
    checkpoint: Checkpoint | None = None,
) -> Made:
    """Write the video with a regenerated span. Raises: OutputError.

    config: of the video until the span's end; checkpoint: of an interrupted run, which is continued.
    """
    assert output.path
    made, span, asked = task
    metadata = dict(checkpoint.run.metadata) if checkpoint else record_of(config, model, task)
    encoding = replace(made.encoder, ffmpeg=output.ffmpeg, resume=checkpoint.file if checkpoint else None)
    total = span.splice.end - span.splice.first
    with SpliceWriter(span.splice, output.path, metadata, encoding, output.force) as writer:
        frames = made.metadata["frames"]
        request = replace(decided_request(config, model, output), frames=frames, seconds=None, redo=asked)
        run = Run(writer, config, model, graphs_of(config, model), recovery_of(model, checkpoint), watch)
        with saver_of(run, request, metadata, total, checkpoint) as saver, told(config, partial(keep, writer)):
            chunks = rest_of(run, checkpoint) if checkpoint else _from_span(run, made, span)
            counts = write_chunks(run, chunks, saver, _source(made) if span.held else None)
            whole = follow(counts, lambda: writer.frames < total, watch)
        result = finish(run, output, metadata, whole)
    return replace(result, path=_replace(result.path, asked.source)) if whole and asked.in_place else result


def record_of(config: GenerationConfig, model: ModelRunner, task: Task) -> dict[str, Any]:
    """The video's metadata with a record of this redo appended."""
    made, span, _ = task
    now = metadata_of(config, model)
    changes = {name: value for name, value in now.items() if made.metadata.get(name) != value}
    changes = {name: value for name, value in changes.items() if name not in UNCHANGED}
    place = {"source": str(made.video.path), "first": span.splice.first, "end": span.splice.end}
    record = place | {"seed": config.seed, "prompt": config.prompt} | changes
    return dict(made.metadata) | {"redo": [*made.metadata.get("redo", []), record]}


def _from_span(run: Run, made: MadeVideo, span: Span) -> Iterator[Rendered]:
    config, model = run.config, run.model
    around = surroundings(config, model, made, span)
    if not around.sampled and (around.before.shape[1] or around.after is not None):
        run.recovery.notes.append(ENCODED)
    if not span.chunks.start and not made.continues:
        noise = seeded_noise(config.seed, model.noise_shape())
        start = empty_state(noise, levels_of(config).sigmas.to(model.device))
        after = None if around.after is None else around.after.to(start.window)
        warmed_up = partial(run.watch.warmed_up, int(config.frames_per_chunk))
        yield from rendered(
            config, model, replace(start, right_context=after), run.graphs, run.recovery, on_warmup=warmed_up
        )
    else:
        yield from continued(config, model, start_of(config, model, span, around), run.graphs, run.recovery)


def start_of(config: GenerationConfig, model: ModelRunner, span: Span, around: Surroundings) -> RenderState:
    """The render state right before the span, as if everything before it had just been sampled."""
    first = config.warmup + span.chunks.start
    state = state_from_clip(config.schedule, around.before, levels_of(config).sigmas.to(model.device), first)
    after = None if around.after is None else around.after.to(state.window)
    replay = around.before if config.layout.unit == 1 and around.before.shape[1] else None
    latents = len(config.schedule.latents(range(config.warmup, first)))
    return RenderState(replace(state, right_context=after), None, replay, latents, span.frames.start)


def _source(made: MadeVideo) -> Source:
    """The source whose frame rate the span is resampled to."""
    return Source(made.video, Extension(made.video.path), made.metadata["frames"])


def _replace(path: Path, old: Path) -> Path:
    """Move the new file over the old one and delete the old one's stored latents."""
    os.replace(path, old)
    partial = partial_path(old)
    for file in (latents_path(partial), checkpoint_path(partial)):
        file.unlink(missing_ok=True)
    sync_folder(old.parent)
    return old
