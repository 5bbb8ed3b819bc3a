"""The environment of a benchmark, stored with every row."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from pavdm_cli import __version__


def environment() -> dict[str, Any]:
    """Commit, versions and machine."""
    return {
        "pavdm": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "processor": processor(),
        "processor_model": processor_model(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def commit() -> str | None:
    """The commit of a source checkout, with + if it has changes; None for an installed package."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def processor() -> str:
    """The name of the processor."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def processor_model() -> str | None:
    """Family and model number on Linux, since virtual machines give several processors the same name; else None."""
    info = _cpuinfo()
    return f"{info['cpu family']}/{info['model']}" if {"cpu family", "model"} <= info.keys() else None


def process_peak_mb() -> float | None:
    """Peak memory of this process in MB; None if the system does not report it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def peak_memory(device: torch.device) -> dict[str, float | None]:
    """Peaks in MB: of this process, and on a GPU of allocated and reserved memory since `reset_peak_memory`."""
    peaks = {"peak_memory_mb": process_peak_mb()}
    if device.type != "cuda":
        return peaks
    gpu = (torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device))
    return peaks | {"gpu_peak_mb": gpu[0] / 2**20, "gpu_reserved_mb": gpu[1] / 2**20}


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak statistics of a GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _cpuinfo() -> dict[str, str]:
    """What Linux reports about the first core; empty on other systems."""
    info = Path("/proc/cpuinfo")
    first_core = info.read_text(encoding="utf-8").partition("\n\n")[0] if info.exists() else ""
    pairs = (line.partition(":") for line in first_core.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _git(folder: Path, *words: str) -> str:
    process = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return process.stdout.strip()
