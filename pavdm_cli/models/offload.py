"""CPU offload: weights stay on the host and are copied to the device when needed, a whole part or block by block.

They are never copied back: the device copy is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pavdm_cli.models.adapter import LoadedModel, Stream

ALIGNMENT = 256  # bytes: fast loads need aligned weights


class PackedWeights:
    """Weights in one contiguous buffer of host memory, so that one copy moves them all."""

    def __init__(self, weights: Sequence[Tensor], pin_memory: bool) -> None:
        self.weights = list(weights)
        self.starts = [0]
        for weight in self.weights:
            self.starts.append(self.starts[-1] + -(-weight.nbytes // ALIGNMENT) * ALIGNMENT)
        self.host = torch.empty(self.starts[-1], dtype=torch.uint8, pin_memory=pin_memory)
        for weight, view in zip(self.weights, self.views(self.host), strict=True):
            view.copy_(weight)
        self.bind(self.host)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """A view of every weight in a buffer of this size."""
        pairs = zip(self.weights, self.starts, strict=False)
        return [buffer[at : at + weight.nbytes].view(weight.dtype).view(weight.shape) for weight, at in pairs]

    def bind(self, buffer: Tensor) -> None:
        """Point the module's weights into a buffer."""
        for weight, view in zip(self.weights, self.views(buffer), strict=True):
            weight.data = view


class OffloadedModule:
    """A module that is on the device only between `onload` and `offload`."""

    def __init__(self, units: Iterable[Sequence[Tensor]], device: torch.device) -> None:
        """units: its weights in small groups, since packing holds one group twice."""
        self.device = device
        self.packs = [PackedWeights(unit, device.type == "cuda") for unit in units]
        self.loaded = False

    def onload(self) -> None:
        """Copy the weights to the device, unless they are already there."""
        if self.loaded:
            return
        for pack in self.packs:
            pack.bind(pack.host.to(self.device, non_blocking=True, copy=True))
        self.loaded = True

    def offload(self) -> None:
        """Drop the device copies."""
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
        """See `Stream.replay`."""
        return self.stream.replay

    def push(self, values: Tensor, /) -> Tensor:
        """See `Stream.push`."""
        return self._call_onloaded(lambda: self.stream.push(values))

    def flush(self) -> Tensor:
        """See `Stream.flush`."""
        return self._call_onloaded(self.stream.flush)

    def _call_onloaded(self, call: Callable[[], Tensor]) -> Tensor:
        self.make_room()
        self.vae.onload()
        try:
            return call()
        finally:
            self.vae.offload()


class StagingBuffer:
    """Device memory for one block; on CUDA with events for when it was filled and last read."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.data = torch.empty(size, dtype=torch.uint8, device=device)
        self.filled_event, self.read_event = (_event(device) for _ in range(2))
        if self.read_event:  # earlier kernels may still use this memory
            self.read_event.record()


class BlockLoader:
    """Streams blocks through two device buffers: while one runs, the weights of the next one are copied.

    A forward pre-hook on every module of a block loads that block, so models need no code for it.
    """

    def __init__(self, blocks: Sequence[nn.Module], resident: frozenset[str], device: torch.device) -> None:
        self.packs = [PackedWeights(streamed_weights(block, resident), device.type == "cuda") for block in blocks]
        size = max(pack.host.numel() for pack in self.packs)
        self.buffers = [StagingBuffer(size, device) for _ in range(2)]
        self.copier: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.current, self.active = -1, 0  # the block that is bound, and its buffer
        self.prefetched = -1  # the block in the other buffer
        for number, block in enumerate(blocks):
            for module in block.modules():
                module.register_forward_pre_hook(lambda *_, number=number: self.onload(number))

    def onload(self, number: int) -> None:
        """Bind a block's weights to the device and start copying those of the next block."""
        if number == self.current:
            return
        self.offload()
        self.active = 1 - self.active
        buffer, pack = self.buffers[self.active], self.packs[number]
        if self.prefetched != number:
            self._fill(pack, buffer)
        if self.copier:
            torch.cuda.current_stream().wait_event(buffer.filled_event)
        pack.bind(buffer.data[: pack.host.numel()])
        self.current, self.prefetched = number, (number + 1) % len(self.packs)
        self._fill(self.packs[self.prefetched], self.buffers[1 - self.active])

    def offload(self) -> None:
        """Bind the current block's weights to the host again."""
        if self.current >= 0:
            self.packs[self.current].bind(self.packs[self.current].host)
            if self.copier:
                self.buffers[self.active].read_event.record()
        self.current = -1

    def _fill(self, pack: PackedWeights, buffer: StagingBuffer) -> None:
        if not self.copier:
            buffer.data[: pack.host.numel()].copy_(pack.host)
            return
        with torch.cuda.stream(self.copier):
            self.copier.wait_event(buffer.read_event)
            buffer.data[: pack.host.numel()].copy_(pack.host, non_blocking=True)
            buffer.filled_event.record()


def _event(device: torch.device) -> Any:
    return torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def streamed_weights(block: nn.Module, resident: frozenset[str]) -> list[Tensor]:
    """The weights of a block that are copied when it runs: all but the `resident` ones."""
    return [weight for name, weight in block.named_parameters() if name not in resident]


def offloaded_bytes(model: LoadedModel) -> int:
    """Bytes of weights that `offload_blocks` keeps off the device: all blocks except the two in the buffers."""
    sizes = sorted(sum(weight.nbytes for weight in streamed_weights(block, model.resident)) for block in model.blocks)
    return sum(sizes[:-2])


def offload_vae(vae: nn.Module, device: torch.device) -> OffloadedModule:
    """Move the VAE's weights to the host; they are loaded for each call of a stream."""
    return OffloadedModule([_weights(child) for child in vae.children()] + [_direct_weights(vae)], device)


def offload_transformer(model: LoadedModel, device: torch.device) -> OffloadedModule:
    """Move the transformer's weights to the host; they are loaded together."""
    inner = {id(weight) for block in model.blocks for weight in _weights(block)}
    other_weights = [weight for weight in _weights(model.transformer) if id(weight) not in inner]
    return OffloadedModule([*(_weights(block) for block in model.blocks), other_weights], device)


def offload_blocks(model: LoadedModel, device: torch.device) -> BlockLoader:
    """Move the blocks' weights to the host, from where they are streamed at every step; all others to the device."""
    loader = BlockLoader(model.blocks, model.resident, device)
    streamed_ids = {id(weight) for block in model.blocks for weight in streamed_weights(block, model.resident)}
    for weight in _weights(model.transformer):
        weight.data = weight.data if id(weight) in streamed_ids else weight.data.to(device)
    return loader


def _weights(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _direct_weights(module: nn.Module) -> list[Tensor]:
    """Weights of the module itself, not of its submodules."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
