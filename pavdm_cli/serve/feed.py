"""A feed: what a thread publishes, and any number of coroutines follow, each at its own pace."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Event]


class Feed:
    """The latest items of a sequence. A follower who is slower than the publisher misses the oldest ones.

    Memory is bounded, however many follow and however slow they are.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._items: deque[bytes] = deque()
        self._first = self._size = 0  # sequence number of the oldest item; bytes of all
        self._lock = threading.Lock()
        self._waiters: set[Waiter] = set()
        self._closed = False

    def publish(self, item: bytes) -> None:
        """Append an item; may be called from any thread."""
        with self._lock:
            self._items.append(item)
            self._size += len(item)
            while len(self._items) > 1 and (len(self._items) > self._max_items or self._size > self._max_bytes):
                self._size -= len(self._items.popleft())
                self._first += 1
        self._wake()

    def close(self) -> None:
        """End the feed: followers get what is left."""
        with self._lock:
            self._closed = True
        self._wake()

    @property
    def latest(self) -> int:
        """The sequence number of the newest item, or of the first one to come."""
        with self._lock:
            return self._first + max(0, len(self._items) - 1)

    async def follow(self, heartbeat: float | None = None, position: int = 0) -> AsyncIterator[bytes | None]:
        """The items from a sequence number on, as far as they are left; None after `heartbeat` seconds without one."""
        waiter = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            self._waiters.add(waiter)
        try:
            while True:
                waiter[1].clear()
                position, item, ended = self._next(position)
                if item is not None:
                    yield item
                elif ended:
                    return
                elif not await _wait(waiter[1], heartbeat):
                    yield None
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def _next(self, position: int) -> tuple[int, bytes | None, bool]:
        """The position after the next item, the item if there is one, and whether the feed has ended."""
        with self._lock:
            position = max(position, self._first)
            index = position - self._first
            if index < len(self._items):
                return position + 1, self._items[index], False
            return position, None, self._closed

    def _wake(self) -> None:
        with self._lock:
            waiters = [*self._waiters]
        for loop, event in waiters:
            with suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(event.set)


async def _wait(event: asyncio.Event, timeout: float | None) -> bool:
    """Wait for an event; False if it did not come in time."""
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except TimeoutError:
        return False
    return True
