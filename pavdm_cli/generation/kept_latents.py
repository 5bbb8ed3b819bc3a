"""Clean latents before and after a span: the stored ones, or re-encoded from frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pavdm_cli.errors import InputError
from pavdm_cli.generation.checkpoint import Checkpoint, read
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.pipeline import MAX_REPLAY
from pavdm_cli.generation.recovery import check_encoded
from pavdm_cli.generation.redo import GeneratedVideo, Span
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.loop import tail
from pavdm_cli.video import read_frames_at, read_metadata
from pavdm_cli.video.write.growing_file import hash_prefix
from pavdm_cli.video.write.output import checkpoint_path, latents_path, partial_path


@dataclass(frozen=True, slots=True)
class SpanContext:
    """Clean latents (1, T, C, h, w) before and after a span, those before it limited to what the decoder needs."""

    before: Tensor
    after: Tensor | None  # None: nothing follows
    sampled: bool  # stored latents, not re-encoded frames


def span_context(config: GenerationConfig, model: ModelRunner, original: GeneratedVideo, span: Span) -> SpanContext:
    """Latents stored by --keep-state if there are any, else re-encoded frames. Raises: InvalidOutputError."""
    following = _latent_range_after(config, span)
    latents = load_stored_latents(original.video.path, config)
    if latents is not None and (span.chunks.start or not original.continues):
        first = _latents_before(config, span.chunks.start)
        before, after = latents.context, latents.read(following) if following else None
        stored = latents.read(range(max(0, first - MAX_REPLAY), first))
        before = stored if before is None else torch.cat([before.to(stored), stored], dim=1)
        return SpanContext(tail(before, MAX_REPLAY), after, True)
    before = _encoded_before(config, model, original, span)
    return SpanContext(before, _encoded_after(config, model, original, span) if following else None, False)


@dataclass(frozen=True, slots=True)
class LatentStore:
    """All latents of a video, in a file."""

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


def load_stored_latents(video: Path, config: GenerationConfig) -> LatentStore | None:
    """The latents that the video's own run stored; None if there are none or they belong to another video."""
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
    return LatentStore(latents_path(partial), config.layout.shape, dtype, checkpoint.render.context)


def _checkpoint(path: Path) -> Checkpoint | None:
    try:
        return read(path) if path.exists() else None
    except InputError:
        return None


def _matches(checkpoint: Checkpoint, metadata: Mapping[str, Any]) -> bool:
    return dict(checkpoint.run.metadata) == dict(metadata)


def _latents_before(config: GenerationConfig, chunk: int) -> int:
    return len(config.schedule.latents(range(config.warmup, config.warmup + chunk)))


def _latent_range_after(config: GenerationConfig, span: Span) -> range:
    """Indices of the latents after the span; at the end of a loop, of the video's first latents before the span."""
    first, stop = (_latents_before(config, chunk) for chunk in (span.chunks.start, span.chunks.stop))
    count = config.schedule.right_context
    return range(min(first, count)) if config.schedule.loop else range(stop, stop + count)


def _encoded_before(config: GenerationConfig, model: ModelRunner, original: GeneratedVideo, span: Span) -> Tensor:
    """Encode the frames right before the span."""
    layout, schedule = config.layout, config.schedule
    start = span.origin + Fraction(span.frames.start, config.spec.fps) - original.video.start
    available = layout.filled_by(int(start * config.spec.fps))
    count = layout.count(min(layout.whole(max(schedule.context, schedule.chunk)), available))
    return _encode(config, model, original, span, range(span.frames.start - count, span.frames.start))


def _encoded_after(config: GenerationConfig, model: ModelRunner, original: GeneratedVideo, span: Span) -> Tensor:
    """Encode the frames after the span, with a lead-in where a VAE's first latent covers a single frame."""
    layout, count = config.layout, config.schedule.right_context
    stop = span.frames.stop
    if config.schedule.loop:
        count = len(_latent_range_after(config, span))
        return _encode(config, model, original, span, range(layout.count(count, config.continues_stream)))[:, :count]
    if layout.unit > 1 or layout.first == layout.rest:
        latents = _encode(config, model, original, span, range(stop, stop + layout.count(count)))
        return latents[:, :count]
    lead = layout.first + layout.rest * min(count, (stop - layout.first) // layout.rest)
    latents = _encode(config, model, original, span, range(stop - lead, stop + layout.rest * count))
    return tail(latents, count)


@torch.no_grad()
def _encode(
    config: GenerationConfig, model: ModelRunner, original: GeneratedVideo, span: Span, frames: range
) -> Tensor:
    """Encode these frames, read from the file; the last is repeated past the end."""
    if not frames:
        return torch.empty(1, 0, *config.layout.shape)
    fps, rate = config.spec.fps, original.video.rate
    middle = Fraction(1, 2) / max(Fraction(fps), rate)  # of a frame: containers round times
    times = [span.origin + Fraction(number, fps) + middle for number in frames]
    pixels = np.stack([*read_frames_at(original.video, times, config.spec.size, original.scale)])
    return check_encoded(model.encode(from_bytes(pixels)[None]), config.spec.latent_limit)
