"""Seamless loops: valid lengths and the schedule."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pavdm_cli.errors import UsageError
from pavdm_cli.sampling.right_context import LOOP_CHUNKS, with_loop_context

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig


def make_loop(config: GenerationConfig) -> GenerationConfig:
    """Round the length up to whole chunks and let the last chunks lead into the first.

    Raises: UsageError if it is too short.
    """
    min_chunks = config.schedule.capacity + LOOP_CHUNKS
    if config.chunks < min_chunks:
        frames = _frames(config, min_chunks)
        seconds = f"{frames / config.spec.fps:g} s, {frames} frames"
        raise UsageError(f"--loop needs at least {seconds}, got {config.frames}", f"try --frames {frames}")
    frames, schedule = _frames(config, config.chunks), config.schedule
    note = f"generating {frames} frames instead of {config.frames}: a loop must be a whole number of chunks"
    config = replace(config, frames=frames, notes=(*config.notes, *([note] if frames != config.frames else [])))
    loop_schedule = with_loop_context(schedule, config.total_chunks, config.warmup, config.spec.join)
    return replace(config, schedule=loop_schedule)


def _frames(config: GenerationConfig, chunks: int) -> int:
    """Frames of the shortest video of at least `chunks` chunks that is a whole number of VAE units."""
    while config.latents_before(chunks) % config.layout.unit:
        chunks += 1
    return config.frames_before(chunks)
