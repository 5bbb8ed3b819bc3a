"""Finished chunks worked on while the next ones are made: a thread makes them; a GPU has a stream for each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Done = TypeVar("Done")


def beside(chunks: Iterator[Tensor], work: Callable[[Tensor], Done], device: torch.device) -> Iterator[Done]:
    """`work` on every chunk, in order, while the iterator already makes the one after it.

    On a GPU `work` runs on a stream of its own and must end by bringing its result to the host.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    with closing(Ahead(marked(chunks, device))) as ahead:
        for chunk, made in ahead:
            if stream is None or made is None:
                yield work(chunk)
            else:
                yield on_stream(stream, made, chunk, work)


class Marked(NamedTuple):
    """A chunk, and on a GPU the event after which it is finished."""

    chunk: Tensor
    made: torch.cuda.Event | None


def marked(chunks: Iterator[Tensor], device: torch.device) -> Iterator[Marked]:
    """Each chunk with its event, recorded by the thread that asked for its making."""
    for chunk in chunks:
        yield Marked(chunk, torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None)


def on_stream(stream: torch.cuda.Stream, made: torch.cuda.Event, chunk: Tensor, work: Callable[[Tensor], Done]) -> Done:
    """`work` on another stream than the one that made the chunk, not before it is finished."""
    with torch.cuda.stream(stream):
        stream.wait_event(made)
        chunk.record_stream(stream)  # its memory is not given away while this stream reads it
        return work(chunk)


class End:
    """Stands behind the last item."""


@dataclass(slots=True)
class Ahead(Generic[Item]):
    """The same items in the same order, made by a thread that is at most two of them ahead.

    An error of the iterator is raised where its item would have been. `close` lets the item being made be finished, and
    drops it.
    """

    items: Iterator[Item]
    _made: queue.Queue[Item | End | BaseException] = field(init=False)
    _closed: threading.Event = field(init=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._made, self._closed = queue.Queue(maxsize=1), threading.Event()
        self._thread = threading.Thread(target=self._work, name="pavdm-sampler", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while not isinstance(item := self._made.get(), End):
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        while self._thread.is_alive():
            self._discard()
            self._thread.join(timeout=0.01)

    def _discard(self) -> None:
        try:
            self._made.get_nowait()
        except queue.Empty:
            return

    def _work(self) -> None:
        try:
            for item in self.items:
                self._made.put(item)
                if self._closed.is_set():
                    return
            self._made.put(End())
        except BaseException as error:
            self._made.put(error)
