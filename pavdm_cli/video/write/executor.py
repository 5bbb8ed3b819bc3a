"""Run calls in order on a background thread, with bounded memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress


class SerialExecutor:
    """Runs calls one after another; the first error is re-raised in the caller and later calls are dropped."""

    def __init__(self, queue_size: int = 8) -> None:
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=queue_size)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pavdm-encoder", daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], None]) -> None:
        """Queue a call; blocks while the queue is full. Raises what an earlier call raised."""
        self._raise()
        self._calls.put(call)

    def flush(self) -> None:
        """Wait for all queued calls. Raises what one of them raised."""
        if self._thread.is_alive():  # else nothing is queued any more
            self._calls.join()
        self._raise()

    def cancel(self) -> None:
        """Drop queued calls and wait for the one that is running."""
        self._error = self._error or InterruptedError()
        with suppress(BaseException):
            self.join()

    def join(self) -> None:
        """Wait for all queued calls and stop the thread. Raises what one of them raised."""
        if self._thread.is_alive():
            self._calls.put(None)
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                if self._error is None:
                    call()
            except BaseException as error:
                self._error = error
            self._calls.task_done()
        self._calls.task_done()
