"""`pavdm bench kernels`: what every kernel takes of a GPU, and how near it comes to copying memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch

from pavdm_cli.bench.bandwidth import copy_rate, measure
from pavdm_cli.bench.compile import ARCHITECTURES, SHARED_LIMITS, Resources, build, compiler
from pavdm_cli.bench.env import environment
from pavdm_cli.bench.throughput import SCHEMA
from pavdm_cli.errors import UsageError
from pavdm_kernels.op import Op, RandomInputs, Sizes
from pavdm_kernels.ops import OPS

Row = dict[str, Any]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which kernels: all where nothing is named."""

    architectures: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    widths: Sequence[int] = ()

    def __post_init__(self) -> None:
        check("architecture", self.architectures, ARCHITECTURES)
        check("dtype", self.dtypes, DTYPES)
        known = sorted({w for op in OPS for sizes in op.model_sizes if (w := width(sizes)) is not None})
        check("width", map(str, self.widths), list(map(str, known)))

    def builds(self) -> list[tuple[Op, Sizes, str, str]]:
        """Operation, sizes of a real model, dtype, architecture."""
        every = product(OPS, self.dtypes or DTYPES, self.architectures or ARCHITECTURES)
        return [
            (op, sizes, dtype, architecture)
            for op, dtype, architecture in every
            for sizes in op.model_sizes
            if not self.widths or width(sizes) in (None, *self.widths)
        ]

    def cases(self) -> list[tuple[Op, Sizes, str]]:
        """What is left where the architecture is the one at hand."""
        builds = self.builds()
        return [(op, sizes, dtype) for op, sizes, dtype, architecture in builds if architecture == builds[0][-1]]


def check(what: str, named: Iterable[str], valid: Collection[str]) -> None:
    """Raises UsageError for a name that is none."""
    for name in named:
        if name not in valid:
            raise UsageError(f"unknown {what} {name}", f"one of {', '.join(valid)}")


def width(sizes: Sizes) -> int | None:
    """The model's, where an operation depends on it."""
    return sizes["D"] if "D" in sizes else sizes["N"] * sizes["K"] if "K" in sizes else None


def compile_all(choice: Choice, keep: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """One row a kernel, dtype and architecture; `failed` names the limits it does not keep."""
    version, built = compiler(), list[Row]()
    for op, sizes, dtype, architecture in choice.builds():
        inputs = op.make_inputs(sizes, RandomInputs(DTYPES[dtype], "meta"))
        launch, _ = op.prepare_launch(*op.launch_arguments(*inputs))
        taken = build(launch, architecture)
        head = {"op": op.name, "sizes": dict(sizes), "dtype": dtype, "arch": architecture, "triton": version}
        failed = list(broken(op, taken, dtype, architecture))
        built.append({**head, **asdict(taken), "failed": failed})
        keep(built[-1])
    return built


def measure_all(choice: Choice, device: torch.device, keep: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """One row an operation and dtype on this device, each handed to `keep` as soon as it is measured.

    `failed` says where an error is beyond the tolerance, or why an operation did not run: the others still do.
    """
    copied, rows = copy_rate(device), list[Row]()
    head = {"schema": SCHEMA, "kind": "kernels", "env": environment(), "ceilings": {"copy_gb_s": copied}}
    for op, sizes, dtype in choice.cases():
        asked = {"op": op.name, "sizes": dict(sizes), "dtype": dtype}
        config = {**asked, "device": device.type, "threads": torch.get_num_threads()}
        name = " ".join(map(cell, asked.values()))
        rows.append({**head, "config": config, **outcome(op, sizes, dtype, device, (name, copied))})
        keep(rows[-1])
    return rows


def outcome(op: Op, sizes: Sizes, dtype: str, device: torch.device, about: tuple[str, float]) -> Row:
    """Samples and figures of one operation; about: the name of the samples, and the rate of a copy."""
    try:
        found = measure(op, sizes, DTYPES[dtype], device)
    except Exception as error:  # Triton and CUDA each fail in their own ways
        said = str(error).strip().splitlines() or [""]
        return {"samples": {}, "summary": {}, "failed": [f"{type(error).__name__}: {said[0]}"]}
    tolerance, (name, copied) = op.tolerances[DTYPES[dtype]], about
    rates = {"bytes": found.bytes, "gb_s": found.gb_s, "copy_share": found.gb_s / copied}
    failed = [] if found.error <= tolerance else ["error beyond the tolerance"]
    samples = {name: [round(seconds, 9) for seconds in found.seconds]}
    return {"samples": samples, "summary": {"error": found.error, "tolerance": tolerance, **rates}, "failed": failed}


def broken(op: Op, taken: Resources, dtype: str, architecture: str) -> Iterator[str]:
    """The limits a kernel does not keep."""
    shared = SHARED_LIMITS[int(architecture.removeprefix("sm_"))] * 1024
    if taken.spill_bytes:
        yield f"{taken.spill_bytes} bytes spilt, none allowed"
    if taken.registers > op.max_registers:
        yield f"{taken.registers} registers, at most {op.max_registers}"
    if taken.shared_bytes > shared:
        yield f"{taken.shared_bytes} bytes of shared memory, at most {shared}"
    if op.vectorized and not taken.load_128:
        yield "no load of 16 bytes"
    if taken.load_less != op.scalar_loads:
        yield f"{taken.load_less} loads of less than 16 bytes, expected {op.scalar_loads}"
    if taken.store_less:
        yield f"{taken.store_less} stores of less than 16 bytes, none allowed"
    if op.matmul and dtype != "fp32" and not taken.matrix:
        yield "no matrix instruction"


MEASURED = {
    **{"op": "op", "sizes": "sizes", "dtype": "dtype", "error": "error", "GB/s": "gb_s", "of a copy": "copy_share"},
    "failed": "failed",
}
COLUMNS = {
    **{"op": "op", "sizes": "sizes", "dtype": "dtype", "arch": "arch", "regs": "registers", "spill": "spill_bytes"},
    **{"shared": "shared_bytes", "16 B": "load_128", "less": "load_less", "16 B out": "store_128"},
    **{"less out": "store_less", "mma": "matrix", "failed": "failed"},
}


def lines(rows: Sequence[dict[str, Any]], columns: Mapping[str, str]) -> list[list[str]]:
    """For people, one line a row."""
    flat = [{**row, **row.get("config", {}), **row.get("summary", {})} for row in rows]
    return [[cell(row.get(name, "-")) for name in columns.values()] for row in flat]


def failures(rows: Sequence[Row]) -> list[str]:
    """One line for each row that failed: which, and why."""
    columns = {name: name for name in ("op", "sizes", "dtype", "arch", "failed")}
    found = lines([row for row in rows if row["failed"]], columns)
    return [f"{' '.join(word for word in about if word != '-')}: {why}" for *about, why in found]


def cell(value: Any) -> str:
    """One value as people read it."""
    if isinstance(value, dict):
        return " ".join(f"{key}{size}" for key, size in value.items())
    if isinstance(value, float):
        return f"{value:.3g}"
    return "; ".join(value) if isinstance(value, list) else str(value)
