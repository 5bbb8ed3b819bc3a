"""Calls recorded once and replayed: the work of a step without the Python that asks for it."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pavdm_cli.errors import DeviceError
from pavdm_cli.runtime.printable import pluralize

# Launching one operation from Python takes the host some 5 us (assumed, not measured here). Meanwhile a GPU of 4 TB/s
# moves 20 MB: it reads and writes 5 million values of 16 bits. So a pass over a shorter residual stream waits for its
# launch; up to twice that, the many passes over less than the stream still do. Products take longer and hide some.
LAUNCH_BOUND = 10_000_000  # values of the residual stream: batch * latents * tokens of a latent * width


class Recorder(Protocol):
    """What makes a call repeatable: CUDA's graphs here, a model of them on a CPU in the tests."""

    def record(self, call: Callable[[], Any], /) -> tuple[Any, Callable[[], object]]:
        """Where the result will be, and what fills it anew from the tensors that `call` read; nothing is filled yet."""

    @property
    def bytes(self) -> int:
        """Device memory that all recordings hold."""


@dataclass(slots=True)
class CudaGraphs:
    """CUDA graphs in one pool: they run one after another, so that each may use the memory of those before it."""

    device: torch.device
    bytes: int = 0
    _pool: Any = field(init=False)

    def __post_init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, call: Callable[[], Any], /) -> tuple[Any, Callable[[], object]]:
        """Runs `call` on a stream beside first, so that nothing is built, tuned or cached while it is captured."""
        with torch.cuda.device(self.device):
            _warm_up(call)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                before = torch.cuda.memory_reserved()  # not until what is cached is given back, as entering does
                out = call()
            self.bytes += torch.cuda.memory_reserved() - before
        return out, graph.replay


@dataclass(slots=True)
class Graphs:
    """Which calls are recorded, and by what; afterwards, how many there were, and what they took."""

    recorder: Recorder
    most: float = inf  # latents in a call, the overlap's included: with more, launching is not what a step waits for
    unrecordable: str = ""  # an option with which no call can be recorded, and why
    count: int = 0
    buffers: int = 0  # bytes of arguments
    seconds: float = 0.0  # that recording took

    def __call__(self, call: Callable[..., Any], examples: Iterable[tuple[Any, ...]]) -> Replayed:
        """`graphed` by this recorder."""
        begun = time.perf_counter()
        replayed = graphed(call, self.recorder, examples)
        self.count += len(replayed.recorded)
        self.buffers += sum(buffer.held.nbytes for buffer in replayed.buffers.values())
        self.seconds += time.perf_counter() - begun
        return replayed

    @property
    def bytes(self) -> int:
        """Device memory of the recordings and of their arguments."""
        return self.recorder.bytes + self.buffers

    @property
    def note(self) -> str:
        """What they cost, for people."""
        held = f"{pluralize(self.count, 'CUDA graph')} of {self.bytes / 2**20:.0f} MB"
        long, barred = "a step of this model is long enough without", f"they do not go with {self.unrecordable}"
        return held if self.count else f"no CUDA graphs: {barred if self.unrecordable else long}"


def check_graphs(wanted: str, device: torch.device) -> None:
    """Raises: DeviceError where graphs are wanted "on" and there is no CUDA."""
    if wanted == "on" and device.type != "cuda":
        raise DeviceError(f"--cuda-graphs on needs CUDA, and the device is {device.type}", "use --cuda-graphs auto")


def pick_graphs(wanted: str, device: torch.device, values: int, unrecordable: str = "") -> Graphs | None:
    """CUDA graphs where they are wanted; "auto": of those steps that launching holds up.

    values: of the residual stream, a latent; unrecordable: as in `Graphs`, which then record nothing and say so.
    """
    most = longest_recorded(wanted, device, values)
    return Graphs(CudaGraphs(device), 0 if unrecordable else most, unrecordable) if most else None


def longest_recorded(wanted: str, device: torch.device, values: int) -> float:
    """Latents in the longest step that is recorded, 0 where none is. Arguments as `pick_graphs`."""
    if wanted == "off" or device.type != "cuda":
        return 0
    return inf if wanted == "on" else LAUNCH_BOUND // values


class Buffer:
    """An argument's place in the recordings: what is handed over is copied in, unless it is what is there already.

    So keys and values of an overlap are copied once a shift, and what changes at every step, at every step.
    """

    def __init__(self, like: Tensor) -> None:
        self.held = torch.zeros_like(like, memory_format=torch.contiguous_format)
        self._source: Callable[[], Tensor | None] = lambda: None
        self._version = -1

    def fill(self, source: Tensor) -> None:
        """Take the values of `source`, which is not kept alive."""
        if self._source() is not source or self._version != source._version:
            self.held.copy_(source, non_blocking=True)
            self._source, self._version = weakref.ref(source), source._version


class Recorded(NamedTuple):
    """One recording."""

    buffers: list[Buffer]
    out: Any  # a tensor, or tuples of them
    replay: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A call that is replayed where it was recorded, and made as it is elsewhere."""

    call: Callable[..., Any]
    buffers: dict[Hashable, Buffer] = field(default_factory=dict)
    recorded: dict[Hashable, Recorded] = field(default_factory=dict)

    def __call__(self, *arguments: Any) -> Any:
        """The result is a copy: the next replay overwrites what this one leaves, while states are kept and saved.

        A copy of latents is small beside a step, and needs no counting of who still holds which of several outputs.
        """
        found = self.recorded.get(kind(arguments))
        if found is None:
            return self.call(*arguments)
        for buffer, tensor in zip(found.buffers, tensors(arguments), strict=True):
            buffer.fill(tensor)
        found.replay()
        return _with_tensors(found.out, (tensor.clone() for tensor in tensors(found.out)))

    @torch.no_grad()
    def record(self, recorder: Recorder, arguments: tuple[Any, ...]) -> None:
        """Record the call with arguments of this kind; tensors of one place and shape share a buffer in all of them."""
        made = [self._buffer(place, tensor) for place, tensor in enumerate(tensors(arguments))]
        held = _with_tensors(arguments, iter([buffer.held for buffer in made]))
        self.recorded[kind(arguments)] = Recorded(made, *recorder.record(lambda: self.call(*held)))

    def _buffer(self, place: int, tensor: Tensor) -> Buffer:
        key = (place, kind(tensor))
        if key not in self.buffers:
            self.buffers[key] = Buffer(tensor)
        self.buffers[key].fill(tensor)
        return self.buffers[key]


def graphed(call: Callable[..., Any], recorder: Recorder, examples: Iterable[tuple[Any, ...]]) -> Replayed:
    """The same call, with the same results, recorded once for every kind of arguments among the examples, in order.

    `call` takes tensors, tuples of them and plain values. Tensors are handed over in buffers; a plain value is part of
    what is recorded, and another one needs another example. Largest first, one pool holds little more than the largest.
    """
    replayed = Replayed(call)
    for arguments in examples:
        if kind(arguments) not in replayed.recorded:
            replayed.record(recorder, arguments)
    return replayed


def kind(value: Any) -> Hashable:
    """Shape and precision of every tensor, and every plain value: what a recording is for."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    return tuple(map(kind, value)) if isinstance(value, tuple) else value


def tensors(value: Any) -> list[Tensor]:
    """All tensors in a value, from left to right."""
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in tensors(part)]
    return [value] if isinstance(value, Tensor) else []


def _with_tensors(value: Any, others: Iterator[Tensor]) -> Any:
    """A value of the same build with other tensors in it."""
    if isinstance(value, tuple):
        parts = [_with_tensors(part, others) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return next(others) if isinstance(value, Tensor) else value


def _warm_up(call: Callable[[], object]) -> None:
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(beside)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
