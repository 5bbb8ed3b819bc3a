"""Build kernels for GPUs that are not here, and read from the machine code what they would take."""

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
from pavdm_kernels.jit import STAGES, Call, installed

ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_120")
SHARED_LIMITS = {80: 163, 89: 99, 90: 227, 120: 99}  # KB a block may have; the compiler does not check it
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
    """What one built kernel takes of a GPU."""

    registers: int  # a thread
    spill_bytes: int
    shared_bytes: int  # a block
    load_128: int  # instructions that load 16 bytes a thread
    load_less: int  # those that load less
    store_128: int  # the same of stores
    store_less: int
    matrix: int  # matrix products


def compiler() -> str:
    """The version of Triton, or why nothing can be built here."""
    if not installed():
        raise DeviceError("Triton is not installed", f"on Linux: {install_command('gpu')}")
    import triton

    if not (tools() / "cuobjdump").exists():
        raise DeviceError(f"Triton {triton.__version__} brings no compiler for NVIDIA GPUs here", "use its Linux wheel")
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise DeviceError("TRITON_INTERPRET is set, so kernels are interpreted and cannot be built", "unset it")
    return str(triton.__version__)


def tools() -> Path:
    """The folder of NVIDIA's programs that Triton brings."""
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def build(call: Call, architecture: str) -> Resources:
    """Compiles exactly what `Call.run` would launch on such a GPU."""
    from triton import compile as compile_
    from triton.backends.compiler import GPUTarget

    capability = int(architecture.removeprefix("sm_"))
    target = GPUTarget("cuda", capability, 32)
    return resources(
        compile_(source(call), target=target, options={"num_warps": call.warps, "num_stages": STAGES}), capability
    )


def source(call: Call) -> Any:
    """The kernel with the types of its arguments, specialised as a launch specialises: 1, and multiples of 16."""
    from triton.compiler import ASTSource

    kernel = call.kernel.built
    assert list(call.arguments) == kernel.arg_names
    fixed = {param.name for param in kernel.params if param.is_constexpr}
    fixed |= {
        name for name, value in call.arguments.items() if value is None or (isinstance(value, int) and value == 1)
    }
    types = {name: "constexpr" if name in fixed else kind(value) for name, value in call.arguments.items()}
    places = {name: (place,) for place, name in enumerate(types)}
    aligned = [name for name, value in call.arguments.items() if name not in fixed and is_aligned(value)]
    hints = {places[name]: [["tt.divisibility", 16]] for name in aligned}
    return ASTSource(kernel, types, {places[name]: call.arguments[name] for name in types if name in fixed}, hints)


def kind(value: Tensor | float | None) -> str:
    """How Triton writes a type."""
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def is_aligned(value: Tensor | float | None) -> bool:
    """Whether a launch finds it divisible by 16; a tensor's memory is, and the offset of a view counts."""
    if isinstance(value, Tensor):
        return value.storage_offset() * value.element_size() % 16 == 0
    return isinstance(value, int) and value % 16 == 0


def resources(compiled: Any, capability: int) -> Resources:
    """Reads the assembler's report and the machine code."""
    from triton.backends.nvidia.compiler import get_ptxas

    ptx, target = compiled.asm["ptx"], re.search(r"\.target (sm_\w+)", compiled.asm["ptx"])
    assert target
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.ptx").write_text(ptx, encoding="utf-8")
        Path(folder, "kernel.cubin").write_bytes(compiled.asm["cubin"])
        words = [get_ptxas(capability).path, "-v", f"-arch={target[1]}", "kernel.ptx", "-o", os.devnull]
        report = output(words, folder)
        code = output([str(tools() / "cuobjdump"), "-sass", "kernel.cubin"], folder)
    spill = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    used = re.search(r"Used (\d+) registers", report)
    assert spill, report
    assert used, report
    counts = {name: len(re.findall(pattern, code)) for name, pattern in SASS.items()}
    return Resources(int(used[1]), int(spill[1]) + int(spill[2]), compiled.metadata.shared, **counts)


def output(words: list[str], folder: str) -> str:
    """What a program printed."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
