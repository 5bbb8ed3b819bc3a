"""Resuming an interrupted video: finding its checkpoint, and checking that nothing changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pavdm_cli.errors import InputError
from pavdm_cli.generation import image_start
from pavdm_cli.generation.checkpoint import Checkpoint, RunInfo, read
from pavdm_cli.generation.config import GenerationConfig, resolve
from pavdm_cli.generation.extend import Source, frames_to_read, open_source
from pavdm_cli.generation.provenance import metadata_of
from pavdm_cli.generation.redo import RedoTask, find_span, open_generated_video, original_config, span_config
from pavdm_cli.generation.request import Request
from pavdm_cli.hub.download import sha256_of
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.runtime.printable import command_line
from pavdm_cli.video.write.growing_file import hash_prefix
from pavdm_cli.video.write.output import checkpoint_path, is_checkpoint, latents_path, partial_path

# Metadata fields that may differ: free text, frame counts, and paths of weights (compared by digest).
IGNORED_FIELDS = ("attention_reason", "frames", "model", "lora")


@dataclass(frozen=True, slots=True)
class InterruptedVideo:
    """An interrupted video and its checkpoint."""

    partial: Path
    checkpoint: Checkpoint

    @property
    def output(self) -> Path:
        """Path of the complete video."""
        return self.partial.with_name(Path(self.checkpoint.run.name).name)

    @property
    def state_files(self) -> tuple[Path, ...]:
        """Files stored for resuming."""
        return latents_path(self.partial), checkpoint_path(self.partial)


def find(file: Path) -> InterruptedVideo | None:
    """Find an interrupted video by its own name, its partial file or its checkpoint; None if it is complete.

    Raises: InputError.
    """
    partial = _partial_of(file)
    path = checkpoint_path(partial)
    if path.exists():
        return InterruptedVideo(partial, read(path))
    if file.exists() and file != partial and not is_checkpoint(file):
        return None
    if partial.exists():
        hint = f"`{command_line(('pavdm', 'extend'), str(partial))}` continues it from its last frames"
        raise InputError(f"{partial} has no checkpoint", hint)
    raise InputError(f"no interrupted video found for {file}", "name the video, or its NAME.partial file")


def finish_if_complete(interrupted: InterruptedVideo) -> bool:
    """Whether the video is already complete; if so, remove leftover files."""
    output, partial, run = interrupted.output, interrupted.partial, interrupted.checkpoint.run
    if not output.exists():
        return False
    whole = interrupted.checkpoint.file.written in (0, run.total)  # 0: formats that are rewritten as a whole
    complete = partial.samefile(output) if partial.exists() else whole
    if complete and not run.request.output.keep_state:
        for path in (partial, *interrupted.state_files):
            path.unlink(missing_ok=True)
    return complete


def _partial_of(file: Path) -> Path:
    if is_checkpoint(file):
        return file.with_suffix("")
    return file if file.stem.endswith(".partial") else partial_path(file)


def changes_of_files(interrupted: InterruptedVideo) -> list[str]:
    """Descriptions of changes in the files that resuming depends on. Raises: InputError if it cannot be resumed."""
    checkpoint, partial = interrupted.checkpoint, interrupted.partial
    prefixes = [(partial, checkpoint.file.size, checkpoint.file.digest), (latents_path(partial), *checkpoint.latents)]
    changes = []
    for path, size, digest in prefixes:
        try:
            if size and hash_prefix(path, size).hexdigest() != digest:
                changes.append(f"{path} was changed")
        except OSError as error:
            reason = error.strerror if error.errno else "it is shorter than recorded in the checkpoint"
            raise InputError(f"cannot continue {path}: {reason}", "generate the video again with --force") from None
    return changes + _changed_inputs(checkpoint.run.inputs)


def _changed_inputs(inputs: Mapping[str, str]) -> list[str]:
    changes = []
    for path, digest in inputs.items():
        try:
            if sha256_of(Path(path)) != digest:
                changes.append(f"{path} was changed")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}", "it is needed to continue the video") from None
    return changes


def changes_of_settings(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences between stored metadata and what would be stored now."""
    changes = []
    for name, value in now.items():
        before = stored.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            changes += [f"{name}: {line}" for line in changes_of_settings(before, value)]
        elif before != value:
            changes.append(f"{name} was {before}, now {value}")
    return changes


def resolved_config(request: Request) -> tuple[GenerationConfig, Source | RedoTask | None]:
    """Resolve a stored request; also returns the video it extends or redoes.

    Raises: InputError, UsageError, DeviceError.
    """
    if request.redo:
        original = open_generated_video(request.redo.source)
        config = original_config(original, request)
        span = find_span(config, original, request.redo)
        return span_config(config, span), (original, span, request.redo)
    if request.extension is None:
        config, image = resolve(request), request.image
        return replace(config, num_conditioning_frames=image_start.num_image_frames(config) if image else 0), None
    source = open_source(request)
    config = resolve(replace(request, frames=source.frames_to_generate(request.spec.fps)))
    return replace(config, num_conditioning_frames=frames_to_read(config, source)), source


def changes_of_run(config: GenerationConfig, model: ModelRunner, run: RunInfo) -> list[str]:
    """Differences in weights, versions and settings."""
    now = {name: value for name, value in metadata_of(config, model).items() if name not in IGNORED_FIELDS}
    stored = dict(run.metadata) | (run.metadata["redo"][-1] if run.request.redo else {})
    return changes_of_settings(stored, now)
