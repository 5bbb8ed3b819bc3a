"""CUDA graphs: a call is captured once for each signature and replayed without Python's launch overhead."""

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

# Launching one operation from Python takes about 5 us of host time (assumed, not measured here). In that time a GPU of
# 4 TB/s moves 20 MB: it reads and writes 5 million 16-bit values. So element-wise passes over a shorter residual stream
# are launch-bound; up to twice that length the many smaller passes still are. Matmuls take longer and hide launches.
MAX_LAUNCH_BOUND_VALUES = 10_000_000  # values of the residual stream: batch * latents * tokens per latent * width


class GraphBackend(Protocol):
    """Captures calls for replay: CUDA graphs here, an emulation on the CPU in the tests."""

    def capture(self, call: Callable[[], Any], /) -> tuple[Any, Callable[[], object]]:
        """The (uninitialized) outputs of `call`, and a function that recomputes them from the same input tensors."""

    @property
    def bytes(self) -> int:
        """Device memory of all captures."""


@dataclass(slots=True)
class CudaGraphBackend:
    """CUDA graphs in one memory pool: they run one after another, so each may reuse the memory of the others."""

    device: torch.device
    bytes: int = 0
    _pool: Any = field(init=False)

    def __post_init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, call: Callable[[], Any], /) -> tuple[Any, Callable[[], object]]:
        """Capture `call` after warm-up runs, so that nothing is compiled, tuned or cached during the capture."""
        with torch.cuda.device(self.device):
            _warm_up(call)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                reserved_before = torch.cuda.memory_reserved()  # only now: entering the capture empties the cache
                out = call()
            self.bytes += torch.cuda.memory_reserved() - reserved_before
        return out, graph.replay


@dataclass(slots=True)
class GraphCapturer:
    """Which calls are captured, and by which backend; afterwards, their number and cost."""

    backend: GraphBackend
    max_latents: float = inf  # longest captured call, including the context; longer ones are not launch-bound
    graph_conflict: str = ""  # an option with which no call can be captured, and why
    count: int = 0
    buffer_bytes: int = 0  # of the static input buffers
    seconds: float = 0.0  # spent capturing

    def __call__(self, call: Callable[..., Any], warmup_inputs: Iterable[tuple[Any, ...]]) -> GraphedCall:
        """`capture_call` with this backend."""
        start = time.perf_counter()
        count, buffer_bytes = (len(call.captures), call.nbytes) if isinstance(call, GraphedCall) else (0, 0)
        graphed_call = capture_call(call, self.backend, warmup_inputs)
        self.count += len(graphed_call.captures) - count
        self.buffer_bytes += graphed_call.nbytes - buffer_bytes
        self.seconds += time.perf_counter() - start
        return graphed_call

    @property
    def bytes(self) -> int:
        """Device memory of the captures and of their static buffers."""
        return self.backend.bytes + self.buffer_bytes

    @property
    def note(self) -> str:
        """One line about the cost, for the user."""
        cost = f"{pluralize(self.count, 'CUDA graph')} of {self.bytes / 2**20:.0f} MB"
        reason = f"incompatible with {self.graph_conflict}" if self.graph_conflict else "the steps are not launch-bound"
        return cost if self.count else f"no CUDA graphs: {reason}"


def require_cuda_for_graphs(mode: str, device: torch.device) -> None:
    """Reject --cuda-graphs on without CUDA. Raises: DeviceError."""
    if mode == "on" and device.type != "cuda":
        raise DeviceError(f"--cuda-graphs on needs CUDA, and the device is {device.type}", "use --cuda-graphs auto")


def choose_graphs(mode: str, device: torch.device, values: int, graph_conflict: str = "") -> GraphCapturer | None:
    """CUDA graphs of all steps ("on"), of launch-bound steps ("auto"), or none ("off", or without CUDA).

    values: residual-stream values per latent; graph_conflict: see `GraphCapturer`; disables capturing.
    """
    latents = max_captured_latents(mode, device, values)
    return (
        GraphCapturer(CudaGraphBackend(device), 0 if graph_conflict else latents, graph_conflict) if latents else None
    )


def max_captured_latents(mode: str, device: torch.device, values: int) -> float:
    """Latents of the longest step that is captured, 0 if none is. Arguments as for `choose_graphs`."""
    if mode == "off" or device.type != "cuda":
        return 0
    return inf if mode == "on" else MAX_LAUNCH_BOUND_VALUES // values


class StaticBuffer:
    """A static input buffer; values are copied in unless they already are the current contents.

    So the context's KV cache is copied once per shift, and per-step inputs at every step.
    """

    def __init__(self, like: Tensor) -> None:
        self.tensor = torch.zeros_like(like, memory_format=torch.contiguous_format)
        self._source: Callable[[], Tensor | None] = lambda: None
        self._version = -1

    def fill(self, source: Tensor) -> None:
        """Copy the values of `source`, of which only a weak reference is kept."""
        if self._source() is not source or self._version != source._version:
            self.tensor.copy_(source, non_blocking=True)
            self._source, self._version = weakref.ref(source), source._version


class Capture(NamedTuple):
    """A captured call: its static inputs and outputs, and the function that replays it."""

    buffers: list[StaticBuffer]
    out: Any  # a tensor, or tuples of them
    replay: Callable[[], object]


@dataclass(frozen=True, slots=True)
class GraphedCall:
    """A call that is replayed for captured signatures and run eagerly for all others."""

    call: Callable[..., Any]
    buffers: dict[Hashable, StaticBuffer] = field(default_factory=dict)
    captures: dict[Hashable, Capture] = field(default_factory=dict)

    def __call__(self, *arguments: Any) -> Any:
        """The result is a copy, since the next replay overwrites the static outputs while states are still in use.

        Copying latents is cheap compared with a step, and simpler than a ring of outputs with reference counts.
        """
        capture = self.captures.get(signature(arguments))
        if capture is None:
            return self.call(*arguments)
        for buffer, tensor in zip(capture.buffers, tensors_of(arguments), strict=True):
            buffer.fill(tensor)
        capture.replay()
        return _with_tensors(capture.out, (tensor.clone() for tensor in tensors_of(capture.out)))

    @property
    def nbytes(self) -> int:
        """Bytes of the static input buffers."""
        return sum(buffer.tensor.nbytes for buffer in self.buffers.values())

    @torch.no_grad()
    def capture(self, backend: GraphBackend, arguments: tuple[Any, ...]) -> None:
        """Capture the call for the signature of these arguments; captures share buffers of equal position and shape."""
        parts = [tensors_of(argument) for argument in arguments]
        places = [(number, place, tensor) for number, part in enumerate(parts) for place, tensor in enumerate(part)]
        buffers = [self._buffer((number, place), tensor) for number, place, tensor in places]
        static = _with_tensors(arguments, iter([buffer.tensor for buffer in buffers]))
        self.captures[signature(arguments)] = Capture(buffers, *backend.capture(lambda: self.call(*static)))

    def _buffer(self, position: tuple[int, int], tensor: Tensor) -> StaticBuffer:
        key = (position, signature(tensor))
        if key not in self.buffers:
            self.buffers[key] = StaticBuffer(tensor)
        self.buffers[key].fill(tensor)
        return self.buffers[key]


def capture_call(
    call: Callable[..., Any], backend: GraphBackend, warmup_inputs: Iterable[tuple[Any, ...]]
) -> GraphedCall:
    """The same call with the same results, captured once for every signature among `warmup_inputs`, in their order.

    A call that was captured for other signatures keeps those. `call` takes tensors, tuples of them and plain values.
    Tensors are passed in static buffers; plain values are part of the signature. With the largest first, the memory
    pool holds little more than the largest needs.
    """
    graphed_call = call if isinstance(call, GraphedCall) else GraphedCall(call)
    for arguments in warmup_inputs:
        if signature(arguments) not in graphed_call.captures:
            graphed_call.capture(backend, arguments)
    return graphed_call


def signature(value: Any) -> Hashable:
    """Shape and dtype of every tensor, and every plain value: arguments with equal signatures share a capture."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    return tuple(map(signature, value)) if isinstance(value, tuple) else value


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in a value, from left to right."""
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in tensors_of(part)]
    return [value] if isinstance(value, Tensor) else []


def _with_tensors(value: Any, new_tensors: Iterator[Tensor]) -> Any:
    """The same structure with other tensors."""
    if isinstance(value, tuple):
        parts = [_with_tensors(part, new_tensors) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return next(new_tensors) if isinstance(value, Tensor) else value


def _warm_up(call: Callable[[], object]) -> None:
    side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(side_stream)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
