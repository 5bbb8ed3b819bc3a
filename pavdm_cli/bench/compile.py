"""Compile kernels for GPUs that are not present, and read the resources they take from the machine code."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.errors import DeviceError
from pavdm_cli.runtime.install_hints import install_command
from pavdm_kernels.dispatch import TRITON_INSTALLED
from pavdm_kernels.launch import NUM_STAGES, KernelLaunch

ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_120")
SHARED_LIMITS = {80: 163, 89: 99, 90: 227, 120: 99}  # KB per block; the compiler does not check them
TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
SASS = {
    "load_128": r"LDG\.E[.\w]*\.128",
    "load_less": r"LDG\.E(?![.\w]*\.128)",
    "store_128": r"STG\.E[.\w]*\.128",
    "store_less": r"STG\.E(?![.\w]*\.128)",
    "matrix": r"\b(?:HMMA|HGMMA)\b",
}


@dataclass(frozen=True, slots=True)
class Resources:
    """The GPU resources of one compiled kernel."""

    registers: int  # per thread
    spill_bytes: int
    shared_bytes: int  # per block
    load_128: int  # load instructions of 16 bytes per thread
    load_less: int  # narrower ones
    store_128: int  # store instructions, likewise
    store_less: int
    matrix: int  # matrix instructions


def compiler() -> str:
    """The version of Triton.

    Raises: DeviceError where it cannot compile for NVIDIA GPUs.
    """
    if not TRITON_INSTALLED:
        raise DeviceError("Triton is not installed", f"on Linux: {install_command('gpu')}")
    import triton

    if not (tools() / "cuobjdump").exists():
        raise DeviceError(f"Triton {triton.__version__} has no compiler for NVIDIA GPUs here", "use its Linux wheel")
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise DeviceError("TRITON_INTERPRET is set, so kernels are interpreted and cannot be built", "unset it")
    return str(triton.__version__)


def tools() -> Path:
    """The folder of the NVIDIA binaries in Triton's wheel."""
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def build(launch: KernelLaunch, architecture: str) -> Resources:
    """Compile exactly what `launch.run` would run on a GPU of this architecture."""
    from triton import compile as compile_
    from triton.backends.compiler import GPUTarget

    capability = int(architecture.removeprefix("sm_"))
    target = GPUTarget("cuda", capability, 32)
    options = {"num_warps": launch.num_warps, "num_stages": NUM_STAGES}
    return resources(compile_(source(launch), target=target, options=options), capability)


def source(launch: KernelLaunch) -> Any:
    """The kernel with the types of its arguments, specialized as Triton does: for 1, and for multiples of 16."""
    from triton.compiler import ASTSource

    kernel, arguments = launch.kernel, launch.arguments
    assert list(arguments) == kernel.arg_names
    constant_names = {param.name for param in kernel.params if param.is_constexpr}
    constant_names |= {
        name for name, value in arguments.items() if value is None or (isinstance(value, int) and value == 1)
    }
    types = {name: "constexpr" if name in constant_names else triton_type(value) for name, value in arguments.items()}
    indices = {name: (index,) for index, name in enumerate(types)}
    aligned_names = [name for name, value in arguments.items() if name not in constant_names and is_aligned(value)]
    hints = {indices[name]: [["tt.divisibility", 16]] for name in aligned_names}
    return ASTSource(kernel, types, {indices[name]: arguments[name] for name in types if name in constant_names}, hints)


def triton_type(value: Tensor | float | None) -> str:
    """The type of an argument in Triton's notation."""
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def is_aligned(value: Tensor | float | None) -> bool:
    """Whether a launch specializes for divisibility by 16: storage is aligned, the offset of a view may not be."""
    if isinstance(value, Tensor):
        return value.storage_offset() * value.element_size() % 16 == 0
    return isinstance(value, int) and value % 16 == 0


def resources(kernel: Any, capability: int) -> Resources:
    """Read the report of the assembler and the machine code."""
    from triton.backends.nvidia.compiler import get_ptxas

    ptx, target = kernel.asm["ptx"], re.search(r"\.target (sm_\w+)", kernel.asm["ptx"])
    assert target
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.ptx").write_text(ptx, encoding="utf-8")
        Path(folder, "kernel.cubin").write_bytes(kernel.asm["cubin"])
        command = [get_ptxas(capability).path, "-v", f"-arch={target[1]}", "kernel.ptx", "-o", os.devnull]
        report = output(command, folder)
        code = output([str(tools() / "cuobjdump"), "-sass", "kernel.cubin"], folder)
    spill = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    registers = re.search(r"Used (\d+) registers", report)
    assert spill, report
    assert registers, report
    counts = {name: len(re.findall(pattern, code)) for name, pattern in SASS.items()}
    return Resources(int(registers[1]), int(spill[1]) + int(spill[2]), kernel.metadata.shared, **counts)


def output(command: list[str], folder: str) -> str:
    """Run a program and return what it prints."""
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return process.stdout + process.stderr
