"""Write frames to a file as they are generated; stopping between chunks keeps the finished ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pavdm_cli.generation import image_start
from pavdm_cli.generation.checkpoint import Checkpoint, RunInfo
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import Rendered
from pavdm_cli.generation.extend import Source, at_rate
from pavdm_cli.generation.latents_file import rendered_again
from pavdm_cli.generation.memory_plan import told
from pavdm_cli.generation.pipeline import continued, graphs_of, rendered, start_from
from pavdm_cli.generation.provenance import metadata_of
from pavdm_cli.generation.recovery import Recovery
from pavdm_cli.generation.request import Output, Request
from pavdm_cli.generation.saver import Saver, Writer, machine_name, open_saver
from pavdm_cli.generation.stored_request import decided_request
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.sampling.cuda_graphs import GraphPolicy
from pavdm_cli.video import (
    EncoderOptions,
    ExtensionOptions,
    Frame,
    LastFrames,
    StillImage,
    VideoWriter,
    scale_to_cover,
)
from pavdm_cli.video.upscale import Scale
from pavdm_cli.video.write.extend import ExtensionWriter


@dataclass(frozen=True, slots=True)
class Watch:
    """Callbacks of a run: progress reports, and whether to stop."""

    advance: Callable[[int], None]
    stopped: Callable[[], bool]
    interruptible: Callable[[], AbstractContextManager[None]] = nullcontext  # here a second Ctrl-C interrupts
    warmed_up: Callable[[int], None] = lambda frames: None  # frames of a dropped warm-up chunk
    stopped_by_user: Callable[[], bool] = lambda: False  # not by a scheduler; an endless video is then complete


@dataclass(frozen=True, slots=True)
class Made:
    """A written video: complete, or interrupted and stored under its partial name."""

    path: Path
    frames: int
    whole: bool
    metadata: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    resume: str = ""  # command that resumes an interrupted video; empty without a checkpoint
    stopped: bool = False  # an endless video that the user stopped


def record(
    config: GenerationConfig,
    model: ModelRunner,
    output: Output,
    watch: Watch,
    still: StillImage | None = None,
    checkpoint: Checkpoint | None = None,
) -> Made:
    """Sample, decode and write a video, optionally starting from an image. Raises: OutputError.

    checkpoint: continue this interrupted run.
    """
    assert output.path
    height, width = config.spec.size
    encoding = replace(encoding_of(config, output), resume=checkpoint.file if checkpoint else None)
    metadata = dict(checkpoint.run.metadata) if checkpoint else new_metadata(config, model, output, still)
    with VideoWriter(output.path, width, height, config.spec.fps, metadata, encoding, output.force) as writer:
        request = replace(decided_request(config, model, output), image=still.path if still else None)
        run = Run(writer, config, model, graphs_of(config, model), recovery_of(model, checkpoint), watch)
        with saver_of(run, request, metadata, config.frames, checkpoint) as saver, told(config, partial(keep, writer)):
            chunks = rest_of(run, checkpoint, still) if checkpoint else _from_start(run, still)
            whole = follow(write_chunks(run, chunks, saver), lambda: writer.frames < config.frames, watch)
        return finish(run, output, metadata, whole)


def new_metadata(
    config: GenerationConfig, model: ModelRunner, output: Output, still: StillImage | None
) -> dict[str, Any]:
    scale = stored(encoding_of(config, output).scale)
    image = image_start.metadata_of_image(still) if still else {}
    return metadata_of(config, model) | {"crf": output.crf} | scale | image


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a running generation needs."""

    writer: Writer
    config: GenerationConfig
    model: ModelRunner
    graphs: GraphPolicy | None
    recovery: Recovery
    watch: Watch


def recovery_of(model: ModelRunner, checkpoint: Checkpoint | None) -> Recovery:
    return Recovery(model, [*checkpoint.notes] if checkpoint else [])


def saver_of(
    run: Run, request: Request, metadata: Mapping[str, Any], total: int, checkpoint: Checkpoint | None
) -> AbstractContextManager[Saver]:
    extension, redo = request.extension, request.redo
    inputs = [request.image, extension.source if extension else None, redo.source if redo else None]
    digests = {str(path.absolute()): "" for path in inputs if path}
    info = RunInfo(run.writer.path.name, request, metadata, machine_name(run.model.device), total, digests)
    return open_saver(run.writer, checkpoint.run if checkpoint else info, run.recovery.notes, checkpoint)


def _from_start(run: Run, still: StillImage | None) -> Iterator[Rendered]:
    config, model = run.config, run.model
    if still:
        return image_start.rendered_from(config, model, still, run.graphs, run.recovery)
    warmed_up = partial(run.watch.warmed_up, int(config.frames_per_chunk))
    return rendered(config, model, graphs=run.graphs, recovery=run.recovery, on_warmup=warmed_up)


def rest_of(run: Run, checkpoint: Checkpoint, still: StillImage | None = None) -> Iterator[Rendered]:
    """The chunks after a checkpoint; for files that are rewritten, also those before it."""
    config = image_start.model_config(run.config) if still else run.config
    if checkpoint.rewrites:
        stored_latents = run.writer.latents, checkpoint.latents[0]
        made = rendered_again(config, run.model, checkpoint.render, stored_latents, run.recovery, run.graphs)
    else:
        made = continued(config, run.model, checkpoint.render, run.graphs, run.recovery)
    if still is None:
        return made
    image = scale_to_cover(still.frame, config.spec.size)[None]
    if run.config.holds_image:
        return image_start.with_first_frame(image, made)
    return chain([Rendered(image, None, None)], made) if checkpoint.rewrites else made


def finish(run: Run, output: Output, metadata: dict[str, Any], whole: bool, copied: int = 0) -> Made:
    """Close the file; an endless video is complete when the user stops it. copied: frames taken from an input."""
    writer, new = run.writer, run.writer.frames - copied
    stopped = not whole and run.config.endless and run.watch.stopped_by_user() and new > 0
    if not whole and not stopped:
        assert output.path
        kept = writer.close_partial()
        return Made(kept or output.path, writer.frames if kept else 0, False, metadata, resume=writer.resume_command)
    if stopped:
        writer.replace_metadata(metadata := metadata | {"frames": new})
    notes = (*getattr(writer, "notes", ()), *run.recovery.notes, *([run.graphs.note] if run.graphs else []))
    return Made(writer.finish(output.keep_state), writer.frames, True, metadata, notes, stopped=stopped)


def encoding_of(config: GenerationConfig, output: Output) -> EncoderOptions:
    """The encoder options of an output."""
    scale = Scale(output.scale_of(config.spec), output.scale_filter)
    return EncoderOptions(output.crf, encoder=output.encoder, ffmpeg=output.ffmpeg, scale=scale)


def stored(scale: Scale) -> dict[str, Any]:
    """Metadata of the upscaling, read back by `extend.scale_of`."""
    return {"scale": scale.factor, "scale_filter": scale.filter}


def extend(
    config: GenerationConfig,
    model: ModelRunner,
    source: Source,
    output: Output,
    watch: Watch,
    checkpoint: Checkpoint | None = None,
) -> Made:
    """Write a video and its continuation, or the continuation alone. Raises: InputError, OutputError, UsageError.

    checkpoint: continue this interrupted run.
    """
    assert output.path
    metadata = dict(checkpoint.run.metadata) if checkpoint else _extension_metadata(config, model, source, output)
    encoding = EncoderOptions(crf=output.crf, ffmpeg=output.ffmpeg, resume=checkpoint.file if checkpoint else None)
    extension, total = source.extension, source.copied + source.frames
    plan = ExtensionOptions(extension.audio, extension.only_new, metadata, encoding, output.force, source.scale)
    with told(config):
        end, graphs = end_of(config, source), graphs_of(config, model)
    with ExtensionWriter(source.video, output.path, plan) as file:
        request = replace(decided_request(config, model, output), frames=source.frames, extension=extension)
        run = Run(file, config, model, graphs, recovery_of(model, checkpoint), watch)
        with saver_of(run, request, metadata, total, checkpoint) as saver, told(config, partial(keep, file)):
            copy = checkpoint is None or not checkpoint.file.written
            copied = (1 for _ in file.copy_input(end.add)) if copy else iter(())
            chunks = rest_of(run, checkpoint) if checkpoint else _continued(run, source, end)
            made = write_chunks(run, chunks, saver, source)
            whole = follow(chain(copied, made), lambda: file.frames < total, watch)
        return finish(run, output, metadata, whole, source.copied)


def _extension_metadata(config: GenerationConfig, model: ModelRunner, source: Source, output: Output) -> dict[str, Any]:
    extension = source.extension
    return metadata_of(config, model) | {
        "crf": output.crf,
        **({} if source.endless else {"frames": source.frames}),
        "source": str(source.video.path),
        "copied": source.copied,
        **{name: getattr(extension, name) for name in ("start", "audio", "only_new")},
        **stored(source.scale),
    }


def end_of(config: GenerationConfig, source: Source) -> LastFrames:
    """The last frames of the video, which condition the model."""
    count = frames_to_read(config, source)
    return LastFrames(source.video, Fraction(config.spec.fps), count, config.spec.size, source.scale)


def _continued(run: Run, source: Source, end: LastFrames) -> Iterator[Rendered]:
    """Generated frames. `end` is complete only after the input was copied, so it is read lazily."""
    start = start_from(run.config, run.model, from_bytes(end.frames()), source.extension.start == "noised")
    yield from rendered(run.config, run.model, start, run.graphs, run.recovery)


def start_notes(config: GenerationConfig, source: Source) -> list[str]:
    """A note if the video is too short for `--start noised` to re-noise a full window."""
    schedule, spec = config.schedule, config.spec
    given, wanted = frames_to_read(config, source), config.schedule.capacity - 1
    noised = schedule.num_renoised(config.layout.filled_by(given))
    if source.extension.start != "noised" or noised == wanted > 0:
        return []
    if not wanted:
        return [f"--start noised equals --start clip here: --method {config.method} has one chunk in its window"]
    full = config.layout.count(schedule.context + wanted * schedule.chunk)
    short = f"the video's end has {given} of the {full} frames of a full window, at {spec.fps} a second"
    what = f"{noised} of {wanted} chunks are re-noised" if noised else "nothing is re-noised, as with --start clip"
    return [f"{short}: {what}"]


def frames_to_read(config: GenerationConfig, source: Source) -> int:
    """Frames at the video's end to condition on: its last chunk or, with `--start noised`, up to a whole window."""
    layout, schedule = config.layout, config.schedule
    least = layout.count(max(schedule.context, schedule.chunk))
    if source.extension.start != "noised":
        return least
    at_hand, chunks = int(source.video.duration * config.spec.fps), 0
    full = -(-schedule.context // schedule.chunk) + schedule.capacity - 1
    while chunks < full and layout.count((chunks + 1) * schedule.chunk) <= at_hand:
        chunks += 1
    wanted = layout.count(schedule.context + (schedule.capacity - 1) * schedule.chunk)
    return max(least, min(wanted, layout.count(chunks * schedule.chunk)))


def write_chunks(run: Run, chunks: Iterable[Rendered], saver: Saver, source: Source | None = None) -> Iterator[int]:
    """Write chunks as they are made, at the rate of `source`; yields the number of newly durable frames.

    A frame is durable once a checkpoint covers it: in the file or in the checkpoint itself. Raises: OutputError.
    """
    writer, counted = run.writer, run.writer.frames
    for chunk in chunks:
        writer.write(_at_rate(chunk, run, source) if source else chunk.frames)
        writer.check()
        saver.save(chunk)
        yield max(0, writer.durable_frames - counted)
        counted = max(counted, writer.durable_frames)
    writer.flush()
    yield max(0, writer.frames - counted)


def _at_rate(chunk: Rendered, run: Run, source: Source) -> list[Frame]:
    assert chunk.state
    before = chunk.state.frames - len(chunk.frames)
    (frames,) = at_rate([chunk.frames], run.config.spec.fps, source, before)
    return frames


def follow(counts: Iterable[int], unfinished: Callable[[], bool], watch: Watch) -> bool:
    """Consume the iterator; returns False if stopped early. A second Ctrl-C interrupts mid-chunk."""
    with suppress(KeyboardInterrupt), watch.interruptible():
        for count in counts:
            watch.advance(count)
            if watch.stopped() and unfinished():
                return False
        return True
    return False


def keep(file: Writer) -> str:
    """Close the partial file so that it plays, and return a message with the command that continues it."""
    path = file.close_partial()
    kept = f"kept {path}, {pluralize(file.frames, 'frame')}" if path else "no frame was finished, nothing was saved"
    return f"{kept}; `{file.resume_command}` continues it" if file.resume_command else kept
