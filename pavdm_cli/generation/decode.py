"""Chunks of latents to frames, each with the state from which the next chunk is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pavdm_cli.generation.recovery import CheckedDecoder, Recovery, checked_decoder
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.sampling.loop import SampledChunk, SamplerState, move_state
from pavdm_cli.sampling.prefetch import map_prefetched

if TYPE_CHECKING:
    from pavdm_cli.generation.config import GenerationConfig

Pixels = NDArray[np.uint8]
HOST = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class RenderState:
    """What the rest of a video depends on, on the host."""

    sampler: SamplerState
    context: Tensor | None  # latents before the video that its decoder began with
    replay: Tensor | None  # latents that a decoder must be given again to continue
    latents: int  # decoded so far
    frames: int  # of the model, so far


@dataclass(frozen=True, slots=True)
class Rendered:
    """The frames of a chunk, perhaps none, and what comes after them depends on."""

    frames: Pixels
    latents: Tensor | None  # (1, chunk, C, h, w); None: the frames of an incomplete unit, at the end
    state: RenderState | None  # None: nothing can be continued here


@dataclass(slots=True)
class ChunkDecoder:
    """Decodes the chunks of a video in order."""

    config: GenerationConfig
    recovery: Recovery
    context: Callable[[], Tensor | None]  # the latents before the first chunk, once that has come
    state: RenderState | None = None  # after the last chunk
    _decoder: CheckedDecoder | None = None
    _first: Tensor | None = None

    def __post_init__(self) -> None:
        if self.state:
            decoder = checked_decoder(self.recovery, self.config.schedule.chunk, self._to_device(self.state.replay))
            self._decoder, decoder.done = decoder, self.state.latents
            self._first = self.state.context

    def push(self, chunk: SampledChunk) -> Rendered:
        """Decode a chunk. Raises: FaultyValues."""
        if self._decoder is None:
            self._decoder = checked_decoder(self.recovery, self.config.schedule.chunk, self.context())
            self._first = _to_host(self._decoder.waiting)
        decoder = self._decoder
        pixels = self._cut(to_bytes(decoder.push(chunk.latents)[0]))
        sampler = move_state(chunk.state, HOST)
        count = self.frames + len(pixels)
        self.state = RenderState(sampler, self._first, _to_host(decoder.waiting), decoder.done, count)
        return Rendered(pixels, _to_host(chunk.latents), self.state)

    def flush(self) -> Iterator[Rendered]:
        """The frames of an incomplete unit, if some are missing."""
        if self._decoder and self.state and self.frames < self.config.frames:
            pixels = self._cut(to_bytes(self._decoder.flush()[0]))
            self.state = replace(self.state, frames=self.frames + len(pixels))
            yield Rendered(pixels, None, self.state)

    @property
    def frames(self) -> int:
        """How many have been decoded, at most those of the video."""
        return self.state.frames if self.state else 0

    def _cut(self, pixels: Pixels) -> Pixels:
        return pixels[: self.config.frames - self.frames]

    def _to_device(self, values: Tensor | None) -> Tensor | None:
        return None if values is None else values.to(self.recovery.model.device)


def decoded(
    config: GenerationConfig,
    chunks: Iterator[SampledChunk],
    recovery: Recovery,
    context: Callable[[], Tensor | None] = lambda: None,
    resume: RenderState | None = None,
) -> Iterator[Rendered]:
    """Each chunk of latents as frames: while the next one is sampled where asked, and by itself on a GPU.

    context: the latents before the first chunk, once that has come; resume: after an earlier chunk.
    """
    decoder, device = ChunkDecoder(config, recovery, context, resume), recovery.model.device
    overlapped = config.execution.overlap_decode == "on"
    prefetched = partial(map_prefetched, device=device, tensors=lambda chunk: chunk.tensors)
    for rendered in prefetched(chunks, decoder.push) if overlapped else map(decoder.push, chunks):
        yield rendered
        if decoder.frames >= config.frames:  # chunks may be without end
            return
    yield from decoder.flush()


def _to_host(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.to(HOST)
