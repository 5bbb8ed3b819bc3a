"""Progress bars and the speed of videos; an endless one shows its current length."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pavdm_cli import ui
from pavdm_cli.runtime.printable import pluralize

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig
    from pavdm_cli.generation.extend import Source
    from pavdm_cli.generation.write import WriteResult


def video_progress(config: GenerationConfig, name: str) -> AbstractContextManager[ui.Advance]:
    """The progress of a video and its warm-up."""
    if config.endless:
        return ui.endless_progress(name, config.spec.fps)
    return ui.progress(name, config.frames, warmup=config.warmup_frames)


def extension_progress(source: Source, name: str, done_before: int = 0) -> AbstractContextManager[ui.Advance]:
    """The progress of a video and its continuation; `done_before`: frames of an earlier run."""
    if source.endless:
        return ui.endless_progress(name, float(source.video.rate), done_before)
    return ui.progress(name, source.num_copied + source.frames, done=done_before)


def print_speed(result: WriteResult, video_seconds: float, wall_seconds: float, num_before: int = 0) -> None:
    """Print the speed of a finished video, and its length if it was stopped.

    num_before: frames that were copied, or written by an earlier run.
    """
    if result.was_stopped:
        ui.info(f"stopped after {video_seconds:.1f} s of video")
    num_new = max(0, result.frames - num_before)
    new = f", {num_new} of them new," if num_before else ""
    ui.info(f"{pluralize(result.frames, 'frame')}{new} in {wall_seconds:.1f} s, {num_new / wall_seconds:.1f} frames/s")
