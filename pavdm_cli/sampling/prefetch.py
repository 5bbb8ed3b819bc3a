"""Overlapped decoding: a producer thread denoises the next chunk while the current one is processed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


def _as_tuple(chunk: Any) -> tuple[Tensor, ...]:
    return (chunk,)


def map_prefetched(
    chunks: Iterator[Item],
    process: Callable[[Item], Result],
    device: torch.device,
    tensors: Callable[[Item], Iterable[Tensor]] = _as_tuple,
) -> Iterator[Result]:
    """`process` each chunk, in order, while a thread produces the next one.

    On a GPU, `process` runs on a stream of its own and must end by copying its result to the host. tensors: returns the
    tensors of a chunk that is not a tensor itself.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    with closing(Prefetcher(with_event(chunks, device))) as prefetcher:
        for chunk, ready in prefetcher:
            if stream is None or ready is None:
                yield process(chunk)
                continue
            with torch.cuda.stream(stream):
                stream.wait_event(ready)
                for values in tensors(chunk):
                    values.record_stream(stream)  # so that its memory is not reused while this stream reads it
                result = process(chunk)
            yield result


class ProducedChunk(NamedTuple, Generic[Item]):
    """A chunk, and on a GPU the event that marks its completion."""

    chunk: Item
    ready: torch.cuda.Event | None


def with_event(chunks: Iterator[Item], device: torch.device) -> Iterator[ProducedChunk[Item]]:
    """Each chunk with its event, recorded in the thread that launched its kernels."""
    for chunk in chunks:
        yield ProducedChunk(chunk, torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None)


class EndOfQueue:
    """Marks the end of the queue."""


@dataclass(slots=True)
class Prefetcher(Generic[Item]):
    """Iterates over the items, produced by a thread at most two items ahead.

    An error of the iterator is raised in place of its item. `close` waits for the current item and drops it.
    """

    items: Iterator[Item]
    _queue: queue.Queue[Item | EndOfQueue | BaseException] = field(init=False)
    _closed: threading.Event = field(init=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._queue, self._closed = queue.Queue(maxsize=1), threading.Event()
        self._thread = threading.Thread(target=self._produce, name="pavdm-sampler", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while not isinstance(item := self._queue.get(), EndOfQueue):
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        while self._thread.is_alive():
            self._discard()
            self._thread.join(timeout=0.01)

    def _discard(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return

    def _produce(self) -> None:
        try:
            for item in self.items:
                self._queue.put(item)
                if self._closed.is_set():
                    return
            self._queue.put(EndOfQueue())
        except BaseException as error:
            self._queue.put(error)
