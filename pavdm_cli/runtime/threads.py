"""How many CPU threads to use: as many as there are cores that other programs leave idle.

A thread that shares its core with another program is slow, and the others wait for it many times per step: fewer
threads, each with a core of its own, are then faster.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUPS = Path("/proc/self/cgroup")
IDLE = ("idle", "iowait", "steal", "guest", "guest_nice")  # the last two are counted as user and nice already


class Clock(NamedTuple):
    """Seconds: wall time, busy time of all cores together, and CPU time of this process."""

    wall: float
    busy: float
    own: float


def read_clock() -> Clock:
    import psutil

    times = psutil.cpu_times()._asdict()
    busy = sum(seconds for name, seconds in times.items() if name not in IDLE)
    return Clock(time.perf_counter(), busy, time.process_time())


@dataclass(frozen=True, slots=True)
class Load:
    """The load that other programs put on the CPU, measured from the creation of this value on."""

    start: Clock = field(default_factory=read_clock)

    def other_busy_cores(self) -> float:
        """Cores that other programs kept busy since then, on average."""
        wall, busy, own_time = (after - before for before, after in zip(self.start, read_clock(), strict=True))
        return max(0.0, (busy - own_time) / wall) if wall > 0 else 0.0


def choose_threads(max_threads: int, busy_cores: float) -> int:
    """The number of threads, up to `max_threads`, that get a core of their own when `busy_cores` are in use."""
    limit, cores = cgroup_quota(), os.cpu_count() or 1
    if limit is not None and limit < cores:  # in a container, the load on the machine is not visible
        return max(1, min(max_threads, int(limit)))
    return max(1, min(max_threads, available_cores(), round(cores - busy_cores)))


def share_cores(workers: int) -> int:
    """Threads for each of several processes that render on the same cores; one core stays free for everything else."""
    return max(1, (available_cores() - 1) // workers)


def available_cores() -> int:
    """Cores that this process may use at once, by affinity and control group."""
    cores, limit = os.cpu_count() or 1, cgroup_quota()
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return num_cores if limit is None else max(1, min(num_cores, int(limit)))


def cgroup_quota(mount: Path = CGROUP_ROOT, cgroups: Path = CGROUPS) -> float | None:
    """Cores that this process's control group may use at once; None without a limit."""
    limits = [limit for folder in cgroup_folders(mount, cgroups) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def cgroup_folders(mount: Path, cgroups: Path) -> list[Path]:
    """The folders of this process's control groups and of their parents, in cgroup versions 1 and 2."""
    try:
        lines = [line.split(":", 2) for line in cgroups.read_text().splitlines()]
    except OSError:
        return []
    folders = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / controllers
        inner = root / path.lstrip("/")
        folders += [inner, *(folder for folder in inner.parents if folder.is_relative_to(root)), mount / "cpu"]
    return folders


def _limit(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else None
    except (OSError, ValueError):
        return None
