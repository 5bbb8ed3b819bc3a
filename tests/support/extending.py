"""Extend a video in one call, as `pavdm extend` does without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pavdm_cli.video import ExtensionOptions, ExtensionWriter, Frame, VideoInfo


def write_extension(
    video: VideoInfo,
    path: Path | str,
    new_frames: Iterable[Frame],
    options: ExtensionOptions | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Write the video and new frames to `path`; `progress` gets the number of input frames written; returns notes."""
    with ExtensionWriter(video, path, options) as writer:
        for count in writer.copy_input():
            progress(count)
        writer.write(new_frames)
    return writer.notes
