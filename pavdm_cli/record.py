"""Frames to a file as they are finished; a stop between chunks keeps what is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pavdm_cli.models.load import Loaded
from pavdm_cli.pipeline import Job, frames, recipe
from pavdm_cli.request import Output
from pavdm_cli.video.encode import Encoding
from pavdm_cli.video.write import VideoWriter


@dataclass(frozen=True, slots=True)
class Watch:
    """How the work tells of its progress, and asks whether to go on."""

    advance: Callable[[int], None]
    stopped: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Made:
    """A video file: whole under its name, or cut short under its partial one."""

    path: Path
    frames: int
    whole: bool
    recipe: dict[str, Any]


def record(job: Job, model: Loaded, output: Output, watch: Watch) -> Made:
    """Sample, decode and write a job's video. Raises: OutputError."""
    assert output.path
    about = recipe(job, model)
    height, width = job.spec.size
    encoding = Encoding(crf=output.crf, gop=job.frames_per_chunk, ffmpeg=output.ffmpeg)
    with VideoWriter(output.path, width, height, job.spec.fps, about, encoding) as writer:
        for chunk in frames(job, model):
            writer.write(chunk)
            watch.advance(len(chunk))
            if watch.stopped() and writer.frames < job.frames:
                kept = writer.keep_partial()
                return Made(kept or output.path, writer.frames, False, about)
        return Made(writer.finish(), writer.frames, True, about)
