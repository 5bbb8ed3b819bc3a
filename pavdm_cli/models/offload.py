"""CPU offload: weights stay on the host and are copied to the device for their turn, a whole part or block by block.

They are never copied back: the host keeps them, and the copy on the device is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pavdm_cli.models.adapter import LoadedModel, Stream

ALIGNED = 256  # bytes: every weight begins at a multiple, as kernels like it


class PinnedPack:
    """Weights next to one another in one piece of host memory, so that one copy moves them all."""

    def __init__(self, weights: Sequence[Tensor], pinned: bool) -> None:
        self.weights = list(weights)
        self.starts = [0]
        for weight in self.weights:
            self.starts.append(self.starts[-1] + -(-weight.nbytes // ALIGNED) * ALIGNED)
        self.host = torch.empty(self.starts[-1], dtype=torch.uint8, pin_memory=pinned)
        for weight, place in zip(self.weights, self.views(self.host), strict=True):
            place.copy_(weight)
        self.bind(self.host)

    def views(self, piece: Tensor) -> list[Tensor]:
        """Every weight's place in a piece of memory of this length."""
        pairs = zip(self.weights, self.starts, strict=False)
        return [piece[at : at + weight.nbytes].view(weight.dtype).view(weight.shape) for weight, at in pairs]

    def bind(self, piece: Tensor) -> None:
        """Let the module read its weights from a piece of memory."""
        for weight, place in zip(self.weights, self.views(piece), strict=True):
            weight.data = place


class OffloadedModule:
    """A module that is on the device only between `onload` and `offload`."""

    def __init__(self, units: Iterable[Sequence[Tensor]], device: torch.device) -> None:
        """units: its weights, in groups that are small beside the whole: packing holds one of them twice."""
        self.device = device
        self.packs = [PinnedPack(unit, device.type == "cuda") for unit in units]
        self.loaded = False

    def onload(self) -> None:
        """Copy the weights to the device, unless they are there."""
        if self.loaded:
            return
        for pack in self.packs:
            pack.bind(pack.host.to(self.device, non_blocking=True, copy=True))
        self.loaded = True

    def offload(self) -> None:
        """Drop the copies."""
        for pack in self.packs if self.loaded else ():
            pack.bind(pack.host)
        self.loaded = False


@dataclass(frozen=True, slots=True)
class OffloadedStream:
    """A stream whose VAE is on the device only during a call."""

    stream: Stream
    vae: OffloadedModule
    make_room: Callable[[], None]

    @property
    def replay(self) -> int:
        """As the stream's own."""
        return self.stream.replay

    def push(self, values: Tensor, /) -> Tensor:
        """As the stream's own."""
        return self._onloaded(lambda: self.stream.push(values))

    def flush(self) -> Tensor:
        """As the stream's own."""
        return self._onloaded(self.stream.flush)

    def _onloaded(self, call: Callable[[], Tensor]) -> Tensor:
        self.make_room()
        self.vae.onload()
        try:
            return call()
        finally:
            self.vae.offload()


class StagingBuffer:
    """Room on the device for one block; on CUDA with events of when it was filled and when it was last read."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.piece = torch.empty(size, dtype=torch.uint8, device=device)
        self.filled, self.read = (_event(device) for _ in range(2))
        if self.read:  # what this memory was before may still be at work
            self.read.record()


class BlockLoader:
    """Blocks through two buffers of the device: while one runs, the next one's weights are copied.

    A hook before every call of a module inside a block loads that block, so that models need not know of it.
    """

    def __init__(self, blocks: Sequence[nn.Module], resident: frozenset[str], device: torch.device) -> None:
        self.packs = [PinnedPack(streamed(block, resident), device.type == "cuda") for block in blocks]
        size = max(pack.host.numel() for pack in self.packs)
        self.buffers = [StagingBuffer(size, device) for _ in range(2)]
        self.copier: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.current, self.turn = -1, 0  # the block that is bound, and its buffer
        self.prefetched = -1  # the block in the other buffer
        for number, block in enumerate(blocks):
            for module in block.modules():
                module.register_forward_pre_hook(lambda *_, number=number: self.onload(number))

    def onload(self, number: int) -> None:
        """Bind a block's weights to the device and begin to copy those of the block after it."""
        if number == self.current:
            return
        self.offload()
        self.turn = 1 - self.turn
        buffer, pack = self.buffers[self.turn], self.packs[number]
        if self.prefetched != number:
            self._fill(pack, buffer)
        if self.copier:
            torch.cuda.current_stream().wait_event(buffer.filled)
        pack.bind(buffer.piece[: pack.host.numel()])
        self.current, self.prefetched = number, (number + 1) % len(self.packs)
        self._fill(self.packs[self.prefetched], self.buffers[1 - self.turn])

    def offload(self) -> None:
        """Bind the current block's weights to the host again."""
        if self.current >= 0:
            self.packs[self.current].bind(self.packs[self.current].host)
            if self.copier:
                self.buffers[self.turn].read.record()
        self.current = -1

    def _fill(self, pack: PinnedPack, buffer: StagingBuffer) -> None:
        if not self.copier:
            buffer.piece[: pack.host.numel()].copy_(pack.host)
            return
        with torch.cuda.stream(self.copier):
            self.copier.wait_event(buffer.read)
            buffer.piece[: pack.host.numel()].copy_(pack.host, non_blocking=True)
            buffer.filled.record()


def _event(device: torch.device) -> Any:
    return torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def streamed(block: nn.Module, resident: frozenset[str]) -> list[Tensor]:
    """The weights of a block that are copied for its turn."""
    return [weight for name, weight in block.named_parameters() if name not in resident]


def offloaded_bytes(model: LoadedModel) -> int:
    """Bytes of a transformer's weights that `blocks` keeps off the device: all blocks but the two in their buffers."""
    sizes = sorted(sum(weight.nbytes for weight in streamed(block, model.resident)) for block in model.blocks)
    return sum(sizes[:-2])


def offload_vae(vae: nn.Module, device: torch.device) -> OffloadedModule:
    """The VAE's weights on the host, loaded for each call of a stream."""
    return OffloadedModule([_weights(child) for child in vae.children()] + [_own(vae)], device)


def offload_transformer(model: LoadedModel, device: torch.device) -> OffloadedModule:
    """The transformer's weights on the host, loaded as a whole."""
    inner = {id(weight) for block in model.blocks for weight in _weights(block)}
    rest = [weight for weight in _weights(model.transformer) if id(weight) not in inner]
    return OffloadedModule([*(_weights(block) for block in model.blocks), rest], device)


def offload_blocks(model: LoadedModel, device: torch.device) -> BlockLoader:
    """The blocks' weights on the host, loaded one after the other at every step; all others on the device."""
    loader = BlockLoader(model.blocks, model.resident, device)
    away = {id(weight) for block in model.blocks for weight in streamed(block, model.resident)}
    for weight in _weights(model.transformer):
        weight.data = weight.data if id(weight) in away else weight.data.to(device)
    return loader


def _weights(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _own(module: nn.Module) -> list[Tensor]:
    """Weights that belong to none of its parts."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
