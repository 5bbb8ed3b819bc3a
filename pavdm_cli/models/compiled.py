"""Whether torch.compile works here, and what it did."""

from __future__ import annotations

import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pavdm_cli.errors import DeviceError
from pavdm_cli.runtime.install_hints import install_command
from pavdm_kernels.dispatch import TRITON_INSTALLED

COMPILER = "Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install"
NOTE = "the network is compiled once, while its first steps are made: up to a minute, and seconds the next time"


def compiles() -> dict[str, float]:
    """Graphs that were compiled in this process so far, and the seconds that took."""
    if "torch._dynamo" not in sys.modules:
        return {"graphs": 0, "seconds": 0.0}
    metrics = torch._dynamo.utils.get_compilation_metrics()
    return {"graphs": len(metrics), "seconds": sum(one.entire_frame_compile_time_s or 0.0 for one in metrics)}


def check_compile(wanted: bool, device: torch.device) -> None:
    """Raises: DeviceError where blocks are to be compiled and something that this takes is missing."""
    if wanted and (missing := lacking(device)):
        raise DeviceError(f"--compile needs {missing[0]}", missing[1])


def lacking(device: torch.device) -> tuple[str, str] | None:
    """What compiling for a device lacks, and how to come by it; None where it lacks nothing."""
    if device.type == "cuda":
        return None if TRITON_INSTALLED else ("Triton", install_command("gpu"))
    if device.type != "cpu":
        return "a CPU or CUDA", f"leave it out on {device.type}"
    if not has_compiler():
        return "a C++ compiler, and found none", COMPILER
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return None if headers.exists() else (f"Python's headers ({headers})", "Debian, Ubuntu: apt install python3-dev")


def has_compiler() -> bool:
    """Whether torch finds a C++ compiler: `CXX`, else the system's usual one."""
    with quiet():
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of torch's compiler about itself, which no user could heed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def failure_reason(error: Exception) -> str:
    """What a compiler complained of first, or the first line."""
    said = str(error).strip() or type(error).__name__
    found = re.search(r"\berror: .+", said)
    return found[0] if found else said.splitlines()[0]
