"""Frames to a file as they are finished; a stop between chunks keeps what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pavdm_cli.generation import image_start
from pavdm_cli.generation.extend import Source, at_rate
from pavdm_cli.generation.memory_plan import told
from pavdm_cli.generation.pipeline import Job, Pixels, frames, graphs_of, start_from
from pavdm_cli.generation.provenance import recipe
from pavdm_cli.generation.recovery import Recovery
from pavdm_cli.generation.request import Output
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.sampling.cuda_graphs import GraphPolicy
from pavdm_cli.video import EncoderOptions, ExtensionOptions, Frame, LastFrames, StillImage, VideoWriter
from pavdm_cli.video.upscale import Scale
from pavdm_cli.video.write.extend import ExtensionWriter


@dataclass(frozen=True, slots=True)
class Watch:
    """How the work tells of its progress, and asks whether to go on."""

    advance: Callable[[int], None]
    stopped: Callable[[], bool]
    interruptible: Callable[[], AbstractContextManager[None]] = (
        nullcontext  # inside, a second signal interrupts the work
    )
    warmed_up: Callable[[int], None] = lambda frames: None  # by as many frames as the chunk dropped would be


@dataclass(frozen=True, slots=True)
class Made:
    """A video file: whole under its name, or cut short under its partial one."""

    path: Path
    frames: int
    whole: bool
    recipe: dict[str, Any]
    notes: tuple[str, ...] = ()


def record(job: Job, model: ModelRunner, output: Output, watch: Watch, still: StillImage | None = None) -> Made:
    """Sample, decode and write a job's video, which begins with the picture `still`. Raises: OutputError."""
    assert output.path
    encoding, (height, width) = encoding_of(job, output), job.spec.size
    about = recipe(job, model) | {"crf": output.crf} | stored(encoding.scale)
    about |= image_start.about(still) if still else {}
    graphs, recovery = graphs_of(job, model), Recovery(model)
    warmed_up = partial(watch.warmed_up, int(job.frames_per_chunk))
    with VideoWriter(output.path, width, height, job.spec.fps, about, encoding, output.force) as writer:
        with told(job, partial(_keep, writer)):
            if still:
                made = image_start.frames_from(job, model, still, graphs, recovery)
            else:
                made = frames(job, model, graphs=graphs, recovery=recovery, on_warmup=warmed_up)
            whole = _follow(_written(writer, made), lambda: writer.frames < job.frames, watch)
        if not whole:
            return _cut_short(writer, output.path, about)
        return Made(writer.finish(), writer.frames, True, about, (*recovery.notes, *_notes(graphs)))


def encoding_of(job: Job, output: Output) -> EncoderOptions:
    """How a job's frames are encoded, from one chunk of them to the next."""
    scale = Scale(output.scale_of(job.spec), output.scale_filter)
    return EncoderOptions(output.crf, encoder=output.encoder, ffmpeg=output.ffmpeg, scale=scale)


def stored(scale: Scale) -> dict[str, Any]:
    """What a file says of its frames' enlargement, by which `extend.scale_of` knows it."""
    return {"scale": scale.factor, "scale_filter": scale.filter}


def extend(job: Job, model: ModelRunner, source: Source, output: Output, watch: Watch) -> Made:
    """Write a video and its continuation, or the continuation alone. Raises: InputError, OutputError, UsageError."""
    assert output.path
    extension = source.extension
    about = recipe(job, model) | {
        "crf": output.crf,
        "frames": source.frames,
        "source": str(source.video.path),
        "copied": source.copied,
        **{name: getattr(extension, name) for name in ("start", "audio", "only_new")},
        **stored(source.scale),
    }
    encoding = EncoderOptions(crf=output.crf, ffmpeg=output.ffmpeg)
    plan = ExtensionOptions(extension.audio, extension.only_new, about, encoding, output.force, source.scale)
    with told(job):
        end, graphs, recovery = end_of(job, source), graphs_of(job, model), Recovery(model)
    with ExtensionWriter(source.video, output.path, plan) as file:
        with told(job, partial(_keep, file)):
            copied = (1 for _ in file.copy_input(end.add))
            new = _continued(job, model, source, end, graphs, recovery)
            made = _written(file, at_rate(new, job.spec.fps, source))
            whole = _follow(chain(copied, made), lambda: file.frames < source.copied + source.frames, watch)
        if not whole:
            return _cut_short(file, output.path, about)
        return Made(file.finish(), file.frames, True, about, (*file.notes, *recovery.notes, *_notes(graphs)))


def end_of(job: Job, source: Source) -> LastFrames:
    """The end of the video that the model is given."""
    count = frames_to_read(job, source)
    return LastFrames(source.video, Fraction(job.spec.fps), count, job.spec.size, source.scale)


def _continued(
    job: Job, model: ModelRunner, source: Source, end: LastFrames, graphs: GraphPolicy | None, recovery: Recovery
) -> Iterator[Pixels]:
    """The model's frames after the video's end, which is whole once the video has been copied."""
    start = start_from(job, model, from_bytes(end.frames()), source.extension.start == "noised")
    yield from frames(job, model, start, graphs, recovery)


def start_notes(job: Job, source: Source) -> list[str]:
    """One line where `--start noised` noises less of the video's end than of a full window, or nothing."""
    schedule, spec = job.schedule, job.spec
    given, wanted = frames_to_read(job, source), job.schedule.capacity - 1
    noised = schedule.num_renoised(job.layout.fitting(given))
    if source.extension.start != "noised" or noised == wanted > 0:
        return []
    if not wanted:
        return [f"--start noised is as --start clip here: --method {job.settings.method} has one chunk in its window"]
    full = job.layout.count(schedule.context + wanted * schedule.chunk)
    short = f"the video's end has {given} of the {full} frames of a full window, at {spec.fps} a second"
    what = (
        f"{noised} of {wanted} chunks are noised again" if noised else "nothing is noised again, as with --start clip"
    )
    return [f"{short}: {what}"]


def frames_to_read(job: Job, source: Source) -> int:
    """Frames of the video's end that the model is given: its last chunk, or as much of its last window as there is."""
    layout, schedule = job.layout, job.schedule
    least = layout.count(max(schedule.context, schedule.chunk))
    if source.extension.start != "noised":
        return least
    at_hand, chunks = int(source.video.duration * job.spec.fps), 0
    full = -(-schedule.context // schedule.chunk) + schedule.capacity - 1
    while chunks < full and layout.count((chunks + 1) * schedule.chunk) <= at_hand:
        chunks += 1
    wanted = layout.count(schedule.context + (schedule.capacity - 1) * schedule.chunk)
    return max(least, min(wanted, layout.count(chunks * schedule.chunk)))


def _written(file: VideoWriter | ExtensionWriter, made: Iterable[Frame | Sequence[Frame]]) -> Iterator[int]:
    """Write frames as they are made; yields how many at a time. Raises: OutputError."""
    for shown in made:
        file.write(shown)
        file.check()
        yield len(shown)


def _follow(counts: Iterable[int], unfinished: Callable[[], bool], watch: Watch) -> bool:
    """Run the work to its end, or to the stop that is asked for: False. A second Ctrl-C stops it anywhere."""
    with suppress(KeyboardInterrupt), watch.interruptible():
        for count in counts:
            watch.advance(count)
            if watch.stopped() and unfinished():
                return False
        return True
    return False


def _notes(graphs: GraphPolicy | None) -> tuple[str, ...]:
    return (graphs.note,) if graphs else ()


def _keep(file: VideoWriter | ExtensionWriter) -> str:
    """Close what there is of a file as a playable part, and say so."""
    path = file.close_partial()
    return f"kept {path}, {pluralize(file.frames, 'frame')}" if path else "nothing was finished, nothing kept"


def _cut_short(file: VideoWriter | ExtensionWriter, path: Path, about: dict[str, Any]) -> Made:
    kept = file.close_partial()
    return Made(kept or path, file.frames if kept else 0, False, about)
