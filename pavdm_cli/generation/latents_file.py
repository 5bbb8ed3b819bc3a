"""Stores and reads the latents of a video: for --keep-state, and for formats that are rewritten when resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import RenderedChunk, RenderState, decode_chunks
from pavdm_cli.generation.pipeline import sample_chunks
from pavdm_cli.generation.recovery import Recovery
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.cuda_graphs import GraphCapturer
from pavdm_cli.sampling.loop import SampledChunk, SamplerState, move_state
from pavdm_cli.video.write.growing_file import GrowingFile


class LatentsWriter:
    """Appends chunks of latents to a file."""

    def __init__(self, path: Path, size: int = 0) -> None:
        """size: bytes to keep of an existing file. Raises: OSError."""
        self._file = GrowingFile(path, size)

    def append(self, latents: Tensor) -> None:
        """Append latents (1, T, C, h, w) and wait until they are on the disk. Raises: OSError."""
        self._file.append(latents.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())

    @property
    def state(self) -> tuple[int, str]:
        """Size and SHA-256."""
        return self._file.size, self._file.digest

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_chunks(path: Path, size: int, config: GenerationConfig, state: SamplerState) -> Iterator[SampledChunk]:
    """Read the chunks in the first `size` bytes, on the device of `state` (the state after the last)."""
    chunk, shape, like = config.warmup, config.layout.shape, state.window
    with path.open("rb") as file:
        while file.tell() < size:
            length = len(config.schedule.latents(range(chunk, chunk + 1)))
            count = length * shape[0] * shape[1] * shape[2] * like.element_size()
            values = torch.frombuffer(bytearray(file.read(count)), dtype=like.dtype)
            yield SampledChunk(values.reshape(1, length, *shape).to(like.device), state)
            chunk += 1


def render_from_latents(
    config: GenerationConfig,
    model: ModelRunner,
    render: RenderState,
    stored_latents: tuple[Path, int],
    recovery: Recovery,
    graph_capturer: GraphCapturer | None,
) -> Iterator[RenderedChunk]:
    """Render all frames of a rewritten file: first from stored latents, then from newly sampled ones.

    render: the state after the stored latents; stored_latents: their file, and its number of valid bytes.
    """
    device = model.device
    state = move_state(render.sampler, device)
    chunks = read_chunks(*stored_latents, config, state)
    context = None if render.context is None else render.context.to(device)
    chunks = chain(chunks, sample_chunks(config, model, state, graph_capturer, recovery))
    count = state.chunks.start + 1 - config.warmup  # number of stored chunks
    for number, chunk in enumerate(decode_chunks(config, chunks, recovery, lambda: context)):
        yield replace(chunk, state=None) if number < count else chunk
