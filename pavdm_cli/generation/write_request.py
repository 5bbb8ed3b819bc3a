"""Writes a video of any kind: new, a continuation, or a redo."""

from __future__ import annotations

from pavdm_cli.generation.checkpoint import Checkpoint
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.extend import Source
from pavdm_cli.generation.redo import RedoTask
from pavdm_cli.generation.request import Output, Request
from pavdm_cli.generation.write import RunControl, WriteResult, write_video
from pavdm_cli.generation.write_extension import write_extension
from pavdm_cli.generation.write_redo import write_redo
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.video import read_image


def write_request(
    config: GenerationConfig,
    model: ModelRunner,
    source: Source | RedoTask | None,
    request: Request,
    output: Output,
    control: RunControl,
    checkpoint: Checkpoint | None = None,
) -> WriteResult:
    """Write the video of a resolved request.

    source: what it continues or regenerates (see `resume.resolve_stored_request`); checkpoint: of an interrupted run.
    """
    if isinstance(source, RedoTask):
        return write_redo(config, model, source, output, control, checkpoint)
    if source:
        return write_extension(config, model, source, output, control, checkpoint)
    still = read_image(request.image) if request.image else None
    return write_video(config, model, output, control, still, checkpoint)
