"""Weights that wait on the host and come to the device for their turn: whole parts, or a transformer's blocks in a row.

They are never copied back: the host keeps them, and what was lent is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pavdm_cli.models.stdit.layers import Block
from pavdm_cli.models.stdit.transformer import STDiT

ALIGNED = 256  # bytes: every weight begins at a multiple, as kernels like it
RESIDENT = "scale_shift_table"  # of a block: a few rows, which the block before reads too


class Codes(Protocol):
    """A codec, as far as it is used here."""

    def encode(self, frames: Tensor, /) -> Tensor: ...

    def decode(self, latents: Tensor, /) -> Tensor: ...


class Packed:
    """Weights side by side in one piece of host memory, so that one copy lends them all."""

    def __init__(self, weights: Sequence[Tensor], pinned: bool) -> None:
        self.weights = list(weights)
        self.starts = [0]
        for weight in self.weights:
            self.starts.append(self.starts[-1] + -(-weight.nbytes // ALIGNED) * ALIGNED)
        self.host = torch.empty(self.starts[-1], dtype=torch.uint8, pin_memory=pinned)
        for weight, place in zip(self.weights, self.views(self.host), strict=True):
            place.copy_(weight)
        self.show(self.host)

    def views(self, piece: Tensor) -> list[Tensor]:
        """Every weight's place in a piece of memory of this length."""
        pairs = zip(self.weights, self.starts, strict=False)
        return [piece[at : at + one.nbytes].view(one.dtype).view(one.shape) for one, at in pairs]

    def show(self, piece: Tensor) -> None:
        """Let the module read its weights from a piece of memory."""
        for weight, place in zip(self.weights, self.views(piece), strict=True):
            weight.data = place


class Guest:
    """A module that is on the device only between `come` and `leave`."""

    def __init__(self, units: Iterable[Sequence[Tensor]], device: torch.device) -> None:
        """units: its weights, in groups that are small beside the whole: packing holds one of them twice."""
        self.device = device
        self.packed = [Packed(unit, device.type == "cuda") for unit in units]
        self.here = False

    def come(self) -> None:
        """Copies the weights to the device, unless they are there."""
        if self.here:
            return
        for packed in self.packed:
            packed.show(packed.host.to(self.device, non_blocking=True, copy=True))
        self.here = True

    def leave(self) -> None:
        """Drops the copies."""
        for packed in self.packed if self.here else ():
            packed.show(packed.host)
        self.here = False


@dataclass(frozen=True, slots=True)
class VisitingCodec:
    """A codec whose weights come for a call and go after it."""

    codec: Codes
    guest: Guest
    make_room: Callable[[], None]

    def encode(self, frames: Tensor, /) -> Tensor:
        """As the codec's own."""
        return self._hosted(self.codec.encode, frames)

    def decode(self, latents: Tensor, /) -> Tensor:
        """As the codec's own."""
        return self._hosted(self.codec.decode, latents)

    def _hosted(self, call: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        self.make_room()
        self.guest.come()
        try:
            return call(given)
        finally:
            self.guest.leave()


class Slot:
    """Room on the device for one block; on CUDA with the marks of when it was filled and when it was last read."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.piece = torch.empty(size, dtype=torch.uint8, device=device)
        self.filled, self.read = (_event(device) for _ in range(2))
        if self.read:  # what this memory was before may still be at work
            self.read.record()


class Stream:
    """A transformer's blocks through two slots of the device: while one runs, the next one's weights are copied."""

    def __init__(self, blocks: Sequence[Block], device: torch.device) -> None:
        self.packed = {id(block): Packed(streamed(block), device.type == "cuda") for block in blocks}
        size = max(packed.host.numel() for packed in self.packed.values())
        self.slots = [Slot(size, device) for _ in range(2)]
        self.copier: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, blocks: Sequence[Block]) -> Iterator[Block]:
        """Every block while its weights are on the device; they are gone when the next one is asked for."""
        if blocks:
            self._fill(blocks[0], self.slots[0])
        for turn, block in enumerate(blocks):
            slot, after = self.slots[turn % 2], self.slots[(turn + 1) % 2]
            if turn + 1 < len(blocks):
                self._fill(blocks[turn + 1], after)
            packed = self.packed[id(block)]
            if self.copier:
                torch.cuda.current_stream().wait_event(slot.filled)
            packed.show(slot.piece[: packed.host.numel()])
            try:
                yield block
            finally:
                packed.show(packed.host)
                if self.copier:
                    slot.read.record()

    def _fill(self, block: Block, slot: Slot) -> None:
        host = self.packed[id(block)].host
        if not self.copier:
            slot.piece[: host.numel()].copy_(host)
            return
        with torch.cuda.stream(self.copier):
            self.copier.wait_event(slot.read)
            slot.piece[: host.numel()].copy_(host, non_blocking=True)
            slot.filled.record()


def _event(device: torch.device) -> Any:
    return torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def streamed(block: nn.Module) -> list[Tensor]:
    """The weights of a block that come and go."""
    return [weight for name, weight in block.named_parameters() if name != RESIDENT]


def away_bytes(denoiser: STDiT) -> int:
    """Bytes of a transformer's weights that `blocks` keeps off the device: all blocks but the two in their slots."""
    sizes = sorted(sum(weight.nbytes for weight in streamed(block)) for block in denoiser.blocks)
    return sum(sizes[:-2])


def offloaded(denoiser: STDiT, codec: Codes, device: torch.device, mode: str) -> tuple[Codes, Callable[[], None]]:
    """The codec, which brings its weights itself, and what brings the transformer's before it is used.

    mode: "model", or "sequential", where the transformer's blocks come one after another at every step.
    """
    assert isinstance(codec, nn.Module)
    visiting = Guest([_weights(child) for child in codec.children()] + [_own(codec)], device)
    if mode == "sequential":
        denoiser.block_loader = Stream(denoiser.blocks, device)
        away = {id(weight) for block in denoiser.blocks for weight in streamed(block)}
        for weight in _weights(denoiser):
            weight.data = weight.data if id(weight) in away else weight.data.to(device)
        return VisitingCodec(codec, visiting, _nothing), _nothing
    inner = {id(weight) for block in denoiser.blocks for weight in _weights(block)}
    rest = [weight for weight in _weights(denoiser) if id(weight) not in inner]
    transformer = Guest([*(_weights(block) for block in denoiser.blocks), rest], device)
    return VisitingCodec(codec, visiting, transformer.leave), transformer.come


def _weights(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _own(module: nn.Module) -> list[Tensor]:
    """Weights that belong to none of its parts."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _nothing() -> None:
    """Brings nothing: all is there."""
