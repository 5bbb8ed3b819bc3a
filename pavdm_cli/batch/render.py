"""One job: its video is started, or continued from its checkpoint, with a model that is loaded once for many."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pavdm_cli.errors import InputError
from pavdm_cli.generation import resume, write
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.loaded import LoadedRunner, load
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.write_request import write_request
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.video import is_being_written, open_video, read_metadata
from pavdm_cli.video.paths import checkpoint_path, partial_path

MAX_WAIT = 10.0  # seconds for a killed process to release its file


@dataclass(slots=True)
class ModelCache:
    """The model that was loaded last: the next video takes it, unless it needs other weights or another device."""

    loaded: LoadedRunner | None = None

    def fits(self, request: Request) -> bool:
        """Whether a request's video is likely to take the model that is loaded, if there is one."""
        return self.loaded is None or self.loaded.config.spec.name == request.spec.name

    def open(self, config: GenerationConfig) -> tuple[GenerationConfig, ModelRunner]:
        """The model, and the configuration as memory allows. Raises: UsageError, ModelError, DeviceError."""
        if self.loaded is None or self.loaded.reload_reason(config):
            self.loaded = None  # its memory is free before others are loaded
            self.loaded = load(config)
        return self.loaded.adapt(config)


def render(request: Request, models: ModelCache, control: write.RunControl) -> write.WriteResult:
    """Make a request's video, or the rest of it; both give the same bytes. Raises: PavdmError."""
    path = request.output.path
    assert path
    _wait_for_writer(partial_path(path))
    if interrupted_video := _find_interrupted(path):
        checkpoint = interrupted_video.checkpoint
        if resume.finish_if_complete(interrupted_video):
            return write.WriteResult(path, checkpoint.run.total, True, checkpoint.run.metadata)
        config, source = resume.resolve_stored_request(checkpoint.run.request)
        config, model = models.open(config)
        control.on_frames(checkpoint.file.written)
        if not (resume.changes_of_files(interrupted_video) or resume.changes_of_run(config, model, checkpoint.run)):
            return write_request(config, model, source, checkpoint.run.request, request.output, control, checkpoint)
    elif path.exists() and not request.output.force:
        return _result_of(path)  # by an attempt that was killed before it recorded completion
    partial_path(path).unlink(missing_ok=True)
    config, source = resume.resolve_stored_request(request)
    config, model = models.open(config)
    return write_request(config, model, source, request, request.output, control)


def _wait_for_writer(partial: Path) -> None:
    """Wait for the threads of a killed process, which may hold the file a moment longer than it exists."""
    deadline = time.monotonic() + MAX_WAIT
    while partial.exists() and is_being_written(partial) and time.monotonic() < deadline:
        time.sleep(0.05)


def _result_of(path: Path) -> write.WriteResult:
    return write.WriteResult(path, open_video(path).frames, True, read_metadata(path) or {})


def _find_interrupted(path: Path) -> resume.InterruptedVideo | None:
    """What an earlier attempt left, if it can be continued."""
    if not checkpoint_path(partial_path(path)).exists():
        return None
    try:
        return resume.find_interrupted(path)
    except InputError:
        return None
