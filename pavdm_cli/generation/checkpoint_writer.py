"""Writes a checkpoint after every chunk, on the encoder's thread."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self, TypeAlias

import torch

from pavdm_cli.errors import OutputError
from pavdm_cli.generation.checkpoint import NO_LATENTS, Checkpoint, LatentsPrefix, RunInfo, write_checkpoint
from pavdm_cli.generation.decode import RenderedChunk
from pavdm_cli.generation.latents_file import LatentsWriter
from pavdm_cli.hub.download import sha256_of
from pavdm_cli.video.write.encode import EncoderState
from pavdm_cli.video.write.extend import ExtensionWriter
from pavdm_cli.video.write.splice import SpliceWriter
from pavdm_cli.video.write.writer import VideoWriter

Writer: TypeAlias = VideoWriter | ExtensionWriter | SpliceWriter


@dataclass(frozen=True, slots=True)
class SavedFiles:
    """What a checkpoint that is on the disk refers to."""

    size: int  # bytes of the partial file
    latents_bytes: int  # of the file of latents
    is_resumed: bool  # whether the run continues an interrupted one


@dataclass(slots=True)
class CheckpointWriter:
    """Writes a checkpoint after every chunk, and latents with --keep-state or for files that cannot be appended to."""

    writer: Writer
    run: RunInfo
    notes: Sequence[str]  # notes so far
    latents_writer: LatentsWriter | None = None  # the latents of all chunks
    is_resumed: bool = False
    on_saved: Callable[[SavedFiles], None] | None = None  # called on the encoder's thread

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.latents_writer:
            with suppress(OutputError):  # the writer reports it
                self.writer.flush()
            self.latents_writer.close()

    def save(self, chunk: RenderedChunk) -> None:
        """Queue a checkpoint for a chunk whose frames were written."""
        if chunk.state:
            self.writer.commit(partial(self._save, chunk, tuple(self.notes)))
            if self.on_saved:  # it returns before the next chunk starts
                self.writer.flush()

    def _save(self, chunk: RenderedChunk, notes: tuple[str, ...], file: EncoderState) -> None:
        assert chunk.state
        if self.latents_writer and chunk.latents is not None:
            self.latents_writer.append(chunk.latents)
        latents = LatentsPrefix(*self.latents_writer.state) if self.latents_writer else NO_LATENTS
        self.run = replace(
            self.run, inputs={path: digest or sha256_of(Path(path)) for path, digest in self.run.inputs.items()}
        )
        write_checkpoint(self.writer.checkpoint, Checkpoint(self.run, file, chunk.state, notes, latents))
        if self.on_saved:
            self.on_saved(SavedFiles(file.size, latents.size, self.is_resumed))


def open_latents(writer: Writer, run: RunInfo, checkpoint: Checkpoint | None) -> LatentsWriter | None:
    """The file of latents of a new video or of an interrupted one; None if none are stored. Raises: OSError."""
    if checkpoint:
        return LatentsWriter(writer.latents, checkpoint.latents.size) if checkpoint.latents.digest else None
    stores_latents = run.request.output.keep_state or not writer.encoder.continuable
    return LatentsWriter(writer.latents) if stores_latents else None


def machine_name(device: torch.device) -> str:
    """Name of the GPU or CPU type, which bit-exact results depend on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
