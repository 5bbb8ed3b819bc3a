"""A new prompt for a video that is being rendered, stored where a crash cannot lose it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pavdm_cli.batch.render import ModelCache
from pavdm_cli.errors import UsageError
from pavdm_cli.generation import checkpoint as checkpoints
from pavdm_cli.generation import resume
from pavdm_cli.generation.checkpoint import Checkpoint
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.extend import Source
from pavdm_cli.generation.implied_changes import explicit_changes
from pavdm_cli.generation.redo import RedoTask
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.timeline import PromptChange
from pavdm_cli.generation.write import build_metadata
from pavdm_cli.generation.write_extension import extension_metadata
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.video import read_image
from pavdm_cli.video.paths import checkpoint_path, partial_path

TOO_LATE = "the rest of the video is already being denoised"


def steer(request: Request, prompt: str, models: ModelCache) -> tuple[Request, float]:
    """The request with a prompt that takes effect at the next shift, and when that is in seconds of the video.

    The video must not be rendered meanwhile; its checkpoint is given the new timeline, so that the rest of the file is
    what `generate --at` with this timeline would write. Repeating the call changes nothing. Raises: UsageError.
    """
    assert request.output.path
    if not checkpoint_path(partial_path(request.output.path)).exists():
        return replace(request, prompt=prompt), 0.0
    interrupted_video = resume.find_interrupted(request.output.path)
    assert interrupted_video
    checkpoint, run = interrupted_video.checkpoint, interrupted_video.checkpoint.run
    at = next_shift(resume.resolve_stored_request(run.request)[0], checkpoint)
    before = [change for change in run.request.timeline if change.at < at]
    after = [change for change in explicit_changes(run.request) if change.at > at]
    new_request = replace(run.request, timeline=(*before, PromptChange(at, prompt), *after))
    config, source = resume.resolve_stored_request(new_request)
    config, model = models.open(config)
    changed_run = replace(run, request=new_request, metadata=_metadata(config, model, new_request, source))
    checkpoints.write_checkpoint(checkpoint_path(interrupted_video.partial), replace(checkpoint, run=changed_run))
    return replace(request, timeline=new_request.timeline), at


def next_shift(config: GenerationConfig, checkpoint: Checkpoint) -> float:
    """When the chunk begins that enters the window next, in seconds, rounded down to milliseconds.

    Raises: UsageError if none will.
    """
    state, schedule = checkpoint.render.sampler, config.schedule
    window = schedule.active_chunks(state.now, state.chunks.start, config.chunks_to_sample)
    before = schedule.newest(state.chunks, state.now - 1) if state.chunks else -1
    newest = schedule.newest(window, state.now) if window else before
    if newest <= before:
        raise UsageError(f"a new prompt would have no effect: {TOO_LATE}", "extend the video instead")
    return int(config.chunk_start(newest) * 1000) / 1000


def _metadata(
    config: GenerationConfig, model: ModelRunner, request: Request, source: Source | RedoTask | None
) -> dict[str, Any]:
    """What a run of the request stores in its file."""
    assert not isinstance(source, RedoTask), "a redo has no timeline of its own"
    if source:
        return extension_metadata(config, model, source, request.output)
    return build_metadata(config, model, request.output, read_image(request.image) if request.image else None)
