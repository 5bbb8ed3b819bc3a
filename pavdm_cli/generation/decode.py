"""Decodes chunks of latents to frames, with the state needed to continue after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pavdm_cli.generation.recovery import CheckedDecoder, Recovery, open_decoder
from pavdm_cli.models.devices import HOST
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.sampling.loop import SampledChunk, SamplerState, move_state
from pavdm_cli.sampling.prefetch import map_prefetched

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RenderState:
    """Everything needed to continue the video, on the host."""

    sampler: SamplerState
    context: Tensor | None  # latents that primed the decoder before the first chunk
    replay: Tensor | None  # latents to push again to rebuild the decoder's state
    num_latents: int  # decoded so far
    frames: int  # of the model, so far


@dataclass(frozen=True, slots=True)
class RenderedChunk:
    """The frames of a chunk (possibly none) and the state to continue from."""

    frames: Pixels
    latents: Tensor | None  # (1, chunk, C, h, w); None: the frames of an incomplete unit, at the end
    state: RenderState | None  # None: cannot be resumed here


@dataclass(slots=True)
class ChunkDecoder:
    """Decodes the chunks of a video in order."""

    config: GenerationConfig
    recovery: Recovery
    context: Callable[[], Tensor | None]  # returns the latents before the first chunk; called when it arrives
    state: RenderState | None = None  # after the last chunk
    _decoder: CheckedDecoder | None = None
    _context: Tensor | None = None

    def __post_init__(self) -> None:
        if self.state:
            decoder = open_decoder(self.recovery, self.config.schedule.chunk, self._to_device(self.state.replay))
            self._decoder, decoder.num_decoded = decoder, self.state.num_latents
            self._context = self.state.context

    def push(self, chunk: SampledChunk) -> RenderedChunk:
        """Decode a chunk. Raises: InvalidOutputError."""
        if self._decoder is None:
            self._decoder = open_decoder(self.recovery, self.config.schedule.chunk, self.context())
            self._context = _to_host(self._decoder.replay_latents)
        decoder = self._decoder
        pixels = self._truncate(to_bytes(decoder.push(chunk.latents)[0]))
        sampler = move_state(chunk.state, HOST)
        count = self.frames + len(pixels)
        self.state = RenderState(sampler, self._context, _to_host(decoder.replay_latents), decoder.num_decoded, count)
        return RenderedChunk(pixels, _to_host(chunk.latents), self.state)

    def flush(self) -> Iterator[RenderedChunk]:
        """The remaining frames of an incomplete VAE unit, if any."""
        if self._decoder and self.state and self.frames < self.config.frames:
            pixels = self._truncate(to_bytes(self._decoder.flush()[0]))
            self.state = replace(self.state, frames=self.frames + len(pixels))
            yield RenderedChunk(pixels, None, self.state)

    @property
    def frames(self) -> int:
        """Number of frames decoded so far, at most the video's length."""
        return self.state.frames if self.state else 0

    def _truncate(self, pixels: Pixels) -> Pixels:
        return pixels[: self.config.frames - self.frames]

    def _to_device(self, values: Tensor | None) -> Tensor | None:
        return None if values is None else values.to(self.recovery.model.device)


def decode_chunks(
    config: GenerationConfig,
    chunks: Iterator[SampledChunk],
    recovery: Recovery,
    context: Callable[[], Tensor | None] = lambda: None,
    resume: RenderState | None = None,
) -> Iterator[RenderedChunk]:
    """Decode each chunk, overlapping the sampling of the next one if `overlap_decode` is on.

    context: returns the latents before the first chunk; resume: the state to continue from.
    """
    decoder, device = ChunkDecoder(config, recovery, context, resume), recovery.model.device
    overlaps = config.execution.overlap_decode == "on"
    prefetch = partial(map_prefetched, device=device, tensors=lambda chunk: chunk.tensors)
    for chunk in prefetch(chunks, decoder.push) if overlaps else map(decoder.push, chunks):
        yield chunk
        if decoder.frames >= config.frames:  # the chunks may be endless
            return
    yield from decoder.flush()


def _to_host(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.to(HOST)
