"""Which process owns something in a shared folder, and whether it is still alive."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import psutil

START_TOLERANCE = 2.0  # seconds by which the clock may have been set since a process began


@dataclass(frozen=True, slots=True)
class Owner:
    """Identifies a process among those of all machines."""

    machine: str
    pid: int
    started: float  # seconds since the epoch: a later process may have the same PID

    def is_running(self) -> bool | None:
        """Whether the process is alive; None on another machine, which cannot tell."""
        if self.machine != machine():
            return None
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started) < START_TOLERANCE
            return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def shares_cores(self) -> bool:
        """Whether the process is on this machine and may use a core that this process may use."""
        return self.is_running() is True and bool(_cores(self.pid) & _cores(os.getpid()))


def _cores(pid: int) -> set[int]:
    """The cores that a process is bound to; all of them where that cannot be told."""
    try:
        return {*psutil.Process(pid).cpu_affinity()}
    except (AttributeError, psutil.Error):  # macOS; a process that has ended
        return {*range(psutil.cpu_count() or 1)}


def this_process() -> Owner:
    """The calling process."""
    return Owner(machine(), os.getpid(), psutil.Process().create_time())


def machine() -> str:
    """The host and, where the system has one, the PID namespace: containers can share a host name."""
    try:
        return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
