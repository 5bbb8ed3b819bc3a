"""Frames to a file as they are finished; a stop between chunks keeps what is done."""

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
    """How the work tells of its progress, and asks whether to continue."""

    advance: Callable[[int], None]
    stopped: Callable[[], bool]
    interruptible: Callable[[], AbstractContextManager[None]] = nullcontext  # inside, a second signal interrupts
    warmed_up: Callable[[int], None] = lambda frames: None  # by as many frames as the chunk dropped would be
    stopped_by_user: Callable[[], bool] = lambda: False  # not by a scheduler: what has no end is complete then


@dataclass(frozen=True, slots=True)
class Made:
    """A video file: whole under its name, or cut short under its partial one."""

    path: Path
    frames: int
    whole: bool
    metadata: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    resume: str = ""  # the command that continues a video that was cut short, if there is a checkpoint
    stopped: bool = False  # it has no other end than where it was stopped


def record(
    config: GenerationConfig,
    model: ModelRunner,
    output: Output,
    watch: Watch,
    still: StillImage | None = None,
    checkpoint: Checkpoint | None = None,
) -> Made:
    """Sample, decode and write a video, which begins with the image `still`. Raises: OutputError.

    checkpoint: of an interrupted run, which is continued.
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
    """A video that is being made."""

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
    """What follows a checkpoint; before it, for a file that is written again, what was made already."""
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
    """copied: frames of an input; a video without an end is complete where its user stops it."""
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
    """How frames are encoded."""
    scale = Scale(output.scale_of(config.spec), output.scale_filter)
    return EncoderOptions(output.crf, encoder=output.encoder, ffmpeg=output.ffmpeg, scale=scale)


def stored(scale: Scale) -> dict[str, Any]:
    """What a file says of its frames' enlargement, by which `extend.scale_of` knows it."""
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

    checkpoint: of an interrupted run, which is continued.
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
    """The end of the video that the model is given."""
    count = frames_to_read(config, source)
    return LastFrames(source.video, Fraction(config.spec.fps), count, config.spec.size, source.scale)


def _continued(run: Run, source: Source, end: LastFrames) -> Iterator[Rendered]:
    """The model's frames after the video's end, which is whole once the video has been copied."""
    start = start_from(run.config, run.model, from_bytes(end.frames()), source.extension.start == "noised")
    yield from rendered(run.config, run.model, start, run.graphs, run.recovery)


def start_notes(config: GenerationConfig, source: Source) -> list[str]:
    """One line where `--start noised` noises less of the video's end than of a full window, or nothing."""
    schedule, spec = config.schedule, config.spec
    given, wanted = frames_to_read(config, source), config.schedule.capacity - 1
    noised = schedule.num_renoised(config.layout.filled_by(given))
    if source.extension.start != "noised" or noised == wanted > 0:
        return []
    if not wanted:
        return [f"--start noised is as --start clip here: --method {config.method} has one chunk in its window"]
    full = config.layout.count(schedule.context + wanted * schedule.chunk)
    short = f"the video's end has {given} of the {full} frames of a full window, at {spec.fps} a second"
    what = (
        f"{noised} of {wanted} chunks are noised again" if noised else "nothing is noised again, as with --start clip"
    )
    return [f"{short}: {what}"]


def frames_to_read(config: GenerationConfig, source: Source) -> int:
    """Frames of the video's end that the model is given: its last chunk, or as much of its last window as there is."""
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
    """Write chunks as they are made, at the rate of `source`; yields how many more frames are safe.

    A frame is safe once a checkpoint has it: on the disk, in the file or in the checkpoint. Raises: OutputError.
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
    """Run the work to its end, or to the stop that is asked for: False. A second Ctrl-C stops it anywhere."""
    with suppress(KeyboardInterrupt), watch.interruptible():
        for count in counts:
            watch.advance(count)
            if watch.stopped() and unfinished():
                return False
        return True
    return False


def keep(file: Writer) -> str:
    """Close what there is of a file as a playable part, and say so, with the command that continues it."""
    path = file.close_partial()
    kept = f"kept {path}, {pluralize(file.frames, 'frame')}" if path else "nothing was finished, nothing kept"
    return f"{kept}; `{file.resume_command}` continues it" if file.resume_command else kept
