"""Requirements, statistics and errors of torch.compile."""

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
NOTE = "the transformer is compiled during the first steps: up to a minute, a few seconds in later runs"


def compile_stats() -> dict[str, float]:
    """Number of graphs compiled in this process, and the seconds that took."""
    if "torch._dynamo" not in sys.modules:
        return {"graphs": 0, "seconds": 0.0}
    metrics = torch._dynamo.utils.get_compilation_metrics()
    return {"graphs": len(metrics), "seconds": sum(graph.entire_frame_compile_time_s or 0.0 for graph in metrics)}


def check_compile(is_enabled: bool, device: torch.device) -> None:
    """Reject compilation where a requirement is missing. Raises: DeviceError."""
    if is_enabled and (missing := missing_requirement(device)):
        raise DeviceError(f"--compile needs {missing[0]}", missing[1])


def missing_requirement(device: torch.device) -> tuple[str, str] | None:
    """What compiling for a device needs and does not have, and how to get it."""
    if device.type == "cuda":
        return None if TRITON_INSTALLED else ("Triton", install_command("gpu"))
    if device.type != "cpu":
        return "a CPU or CUDA", f"omit --compile on {device.type}"
    if not has_compiler():
        return "a C++ compiler, and there is none", COMPILER
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return None if headers.exists() else (f"Python's headers ({headers})", "Debian, Ubuntu: apt install python3-dev")


def has_compiler() -> bool:
    """Whether torch finds a C++ compiler: `CXX`, else the system's usual one."""
    with ignore_warnings():
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


@contextmanager
def ignore_warnings() -> Iterator[None]:
    """Hide the warnings that torch's compiler gives about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def explain_compile_errors() -> Iterator[None]:
    """Turn a failure of the compiler inside the block into one line. Raises: DeviceError."""
    try:
        yield
    except torch._dynamo.exc.BackendCompilerFailed as error:
        raise DeviceError(
            f"--compile failed: {failure_reason(error)}", "omit --compile; frames may differ in the last bits"
        ) from None


def failure_reason(error: Exception) -> str:
    """The first error that a compiler reported, else the first line."""
    message = str(error).strip() or type(error).__name__
    match = re.search(r"\berror: .+", message)
    return match[0] if match else message.splitlines()[0]
