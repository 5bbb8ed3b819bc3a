"""Work done in a thread of its own, beside the caller, in order and with bounded memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress


class SerialExecutor:
    """Runs the calls it is given one after another; the first error is raised in the caller, the rest are dropped."""

    def __init__(self, depth: int = 8) -> None:
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pavdm-encoder", daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], None]) -> None:
        """Queue a call, waiting while the queue is full; raises what an earlier call raised."""
        self._raise()
        self._calls.put(call)

    def flush(self) -> None:
        """Wait until every call given so far is done; raises what one of them raised."""
        self._calls.join()
        self._raise()

    def cancel(self) -> None:
        """Drop the calls that have not begun; wait for the one that has."""
        self._error = self._error or InterruptedError()
        with suppress(BaseException):
            self.join()

    def join(self) -> None:
        """Wait until every call is done; raises what one of them raised."""
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
