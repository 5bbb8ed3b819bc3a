"""Clean latents before and after a span: the stored ones, or re-encoded from frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pavdm_cli.errors import InputError
from pavdm_cli.generation.checkpoint import Checkpoint, read_checkpoint
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.pipeline import MAX_REPLAY
from pavdm_cli.generation.recovery import check_encoded
from pavdm_cli.generation.redo import RedoTask, Span
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.loop import tail
from pavdm_cli.video import read_frames_at, read_metadata
from pavdm_cli.video.paths import checkpoint_path, latents_path, partial_path
from pavdm_cli.video.write.growing_file import hash_prefix


@dataclass(frozen=True, slots=True)
class SpanContext:
    """Clean latents (1, T, C, h, w) before and after a span, those before it limited to what the decoder needs."""

    before: Tensor
    after: Tensor | None  # None: nothing follows


def span_context(
    config: GenerationConfig, model: ModelRunner, task: RedoTask, store: LatentsReader | None
) -> SpanContext:
    """The latents around a span: the stored ones, or else re-encoded frames. Raises: InvalidOutputError."""
    read = store.read if store else partial(_encode_latents, config, model, task)
    before = _read_before(config, task, store) if store else _encode_before(config, model, task)
    range_after = _latent_range_after(config, task.span)
    return SpanContext(before, read(range_after) if range_after else None)


@dataclass(frozen=True, slots=True)
class LatentsReader:
    """Reads ranges of the latents that `LatentsWriter` stored."""

    path: Path
    shape: tuple[int, int, int]  # (C, h, w)
    dtype: torch.dtype
    context: Tensor | None  # latents of the warm-up

    def read(self, latents: range) -> Tensor:
        """Read a range of latents, (1, T, C, h, w)."""
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        with self.path.open("rb") as file:
            file.seek(latents.start * size)
            data = bytearray(file.read(len(latents) * size))
        values = torch.frombuffer(data, dtype=self.dtype) if data else torch.empty(0, dtype=self.dtype)
        return values.reshape(1, -1, *self.shape)


def find_stored_latents(config: GenerationConfig, task: RedoTask) -> LatentsReader | None:
    """The latents that the video's own run stored; None if there are none or they belong to another video.

    None also for a span that continues a clip or an image, whose latents are not stored.
    """
    video = task.original.video.path
    if task.original.starts_from_frames and not task.span.chunks.start:
        return None
    partial = partial_path(video)
    checkpoint = _checkpoint(checkpoint_path(partial))
    if checkpoint is None or not _matches(checkpoint, read_metadata(video) or {}):
        return None
    size, digest = checkpoint.latents
    try:
        if not size or hash_prefix(latents_path(partial), size).hexdigest() != digest:
            return None
    except OSError:
        return None
    dtype = checkpoint.render.sampler.window.dtype
    return LatentsReader(latents_path(partial), config.layout.shape, dtype, checkpoint.render.context)


def _checkpoint(path: Path) -> Checkpoint | None:
    try:
        return read_checkpoint(path) if path.exists() else None
    except InputError:
        return None


def _matches(checkpoint: Checkpoint, metadata: Mapping[str, Any]) -> bool:
    return dict(checkpoint.run.metadata) == dict(metadata)


def _latent_range_after(config: GenerationConfig, span: Span) -> range:
    """Indices of the latents after the new ones; at the end of a loop, the video's first latents, up to the span."""
    first, stop = (config.latents_before(chunk) for chunk in (span.chunks.start, span.new_chunks.stop))
    count = config.schedule.right_context
    return range(min(first, count)) if config.schedule.loop else range(stop, stop + count)


def _read_before(config: GenerationConfig, task: RedoTask, store: LatentsReader) -> Tensor:
    """Read the latents right before the span, of the warm-up too."""
    first = config.latents_before(task.span.chunks.start)
    before = store.read(range(max(0, first - MAX_REPLAY), first))
    return tail(before if store.context is None else torch.cat([store.context.to(before), before], dim=1), MAX_REPLAY)


def _encode_before(config: GenerationConfig, model: ModelRunner, task: RedoTask) -> Tensor:
    """Encode the frames right before the span."""
    layout, schedule, span = config.layout, config.schedule, task.span
    start = span.origin + Fraction(span.frames.start, config.spec.fps) - task.original.video.start
    available = layout.filled_by(int(start * config.spec.fps))
    count = layout.num_frames(min(layout.whole(max(schedule.context, schedule.chunk)), available))
    return _encode(config, model, task, range(span.frames.start - count, span.frames.start))


def _encode_latents(config: GenerationConfig, model: ModelRunner, task: RedoTask, latents: range) -> Tensor:
    """Encode the frames of these latents, with a lead-in where a VAE's first latent covers a single frame."""
    layout, count = config.layout, len(latents)
    if not latents.start:
        return _encode(config, model, task, range(layout.num_frames(count, config.continues_stream)))[:, :count]
    first = layout.frame_range(latents.start, latents.start, config.continues_stream).start
    if not layout.is_causal:
        return _encode(config, model, task, range(first, first + layout.num_frames(count)))[:, :count]
    lead = layout.first + layout.rest * min(count, (first - layout.first) // layout.rest)
    return tail(_encode(config, model, task, range(first - lead, first + layout.rest * count)), count)


@torch.no_grad()
def _encode(config: GenerationConfig, model: ModelRunner, task: RedoTask, frames: range) -> Tensor:
    """Encode these frames, read from the file; the last is repeated past the end."""
    if not frames:
        return torch.empty(1, 0, *config.layout.shape)
    original, fps = task.original, config.spec.fps
    middle = Fraction(1, 2) / max(Fraction(fps), original.video.rate)  # of a frame: containers round times
    times = [task.span.origin + Fraction(number, fps) + middle for number in frames]
    pixels = np.stack([*read_frames_at(original.video, times, config.spec.size, original.scale)])
    return check_encoded(model.encode(from_bytes(pixels)[None]), config.spec.latent_limit)
