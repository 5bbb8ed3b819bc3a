"""How many threads work on a CPU: as many as there are cores for this process that other programs leave idle.

Threads that share a core with another program are slow, and the others wait for them many times a step: fewer threads,
each with a core of its own, then make more frames.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

SYSTEM = Path("/sys/fs/cgroup")
OURS = Path("/proc/self/cgroup")
IDLE = ("idle", "iowait", "steal", "guest", "guest_nice")  # the last two are counted as user and nice already


class Clock(NamedTuple):
    """Seconds: of the wall, of all cores together at work, and of this process."""

    wall: float
    busy: float
    own: float


def now() -> Clock:
    """The clocks."""
    spent = psutil.cpu_times()._asdict()
    busy = sum(seconds for name, seconds in spent.items() if name not in IDLE)
    return Clock(time.perf_counter(), busy, time.process_time())


@dataclass(frozen=True, slots=True)
class Load:
    """What other programs do from here on: made before a process begins to work, asked a second later."""

    begun: Clock = field(default_factory=now)

    def others(self) -> float:
        """Cores that other programs kept busy, on average."""
        wall, busy, own = (after - before for before, after in zip(self.begun, now(), strict=True))
        return max(0.0, (busy - own) / wall) if wall > 0 else 0.0


def good_threads(wanted: int, others: float) -> int:
    """As many of the wanted threads as have a core of their own."""
    limit, present = quota(), os.cpu_count() or 1
    if limit is not None and limit < present:  # of a container: what else runs on the machine is not told
        return max(1, min(wanted, int(limit)))
    return max(1, min(wanted, available(), round(present - others)))


def available() -> int:
    """Cores that this process may use at once."""
    present, limit = os.cpu_count() or 1, quota()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    return allowed if limit is None else max(1, min(allowed, int(limit)))


def quota(system: Path = SYSTEM, ours: Path = OURS) -> float | None:
    """Cores that Linux lets this process's control group use at once; None where it sets no limit."""
    found = [limit for folder in groups(system, ours) if (limit := _limit(folder)) is not None]
    return min(found, default=None)


def groups(system: Path, ours: Path) -> list[Path]:
    """The folders of this process's control groups and of all around them, both versions."""
    try:
        lines = [line.split(":", 2) for line in ours.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = system / controllers
        inner = root / path.lstrip("/")
        found += [inner, *(folder for folder in inner.parents if folder.is_relative_to(root)), system / "cpu"]
    return found


def _limit(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else None
    except (OSError, ValueError):
        return None
