"""`pavdm bench kernels`: GPU resources, numerical error and memory bandwidth of every kernel."""

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
class KernelSelection:
    """The selected kernels; empty fields select all."""

    architectures: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    widths: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_names("architecture", self.architectures, ARCHITECTURES)
        check_names("dtype", self.dtypes, DTYPES)
        widths = sorted({w for op in OPS for sizes in op.model_sizes if (w := width(sizes)) is not None})
        check_names("width", map(str, self.widths), list(map(str, widths)))

    def builds(self) -> list[tuple[Op, Sizes, str, str]]:
        """Operation, sizes of a real model, dtype, architecture."""
        combinations = product(OPS, self.dtypes or DTYPES, self.architectures or ARCHITECTURES)
        return [
            (op, sizes, dtype, architecture)
            for op, dtype, architecture in combinations
            for sizes in op.model_sizes
            if not self.widths or width(sizes) in (None, *self.widths)
        ]

    def cases(self) -> list[tuple[Op, Sizes, str]]:
        """Those for the architecture of this machine."""
        builds = self.builds()
        return [(op, sizes, dtype) for op, sizes, dtype, architecture in builds if architecture == builds[0][-1]]


def check_names(kind: str, names: Iterable[str], valid: Collection[str]) -> None:
    """Reject unknown names. Raises: UsageError."""
    for name in names:
        if name not in valid:
            raise UsageError(f"unknown {kind} {name}", f"one of {', '.join(valid)}")


def width(sizes: Sizes) -> int | None:
    """The width of the model, if the operation depends on it."""
    return sizes["D"] if "D" in sizes else sizes["N"] * sizes["K"] if "K" in sizes else None


def compile_all(choice: KernelSelection, keep: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """One row per kernel, dtype and architecture; `failed` names the limits that it exceeds."""
    version, rows = compiler(), list[Row]()
    for op, sizes, dtype, architecture in choice.builds():
        inputs = op.make_inputs(sizes, RandomInputs(DTYPES[dtype], "meta"))
        launch, _ = op.prepare_launch(*op.launch_arguments(*inputs))
        resources = build(launch, architecture)
        head = {"op": op.name, "sizes": dict(sizes), "dtype": dtype, "arch": architecture, "triton": version}
        violations = list(limit_violations(op, resources, dtype, architecture))
        rows.append({**head, **asdict(resources), "failed": violations})
        keep(rows[-1])
    return rows


def measure_all(
    choice: KernelSelection, device: torch.device, keep: Callable[[Row], None] = lambda row: None
) -> list[Row]:
    """One row per operation and dtype on this device, passed to `keep` as soon as it is measured.

    `failed` says if the error exceeds the tolerance, or why an operation did not run; the others still run.
    """
    copy_gb_s, rows = copy_rate(device), list[Row]()
    head = {"schema": SCHEMA, "kind": "kernels", "env": environment(), "ceilings": {"copy_gb_s": copy_gb_s}}
    for op, sizes, dtype in choice.cases():
        case = {"op": op.name, "sizes": dict(sizes), "dtype": dtype}
        config = {**case, "device": device.type, "threads": torch.get_num_threads()}
        name = " ".join(map(cell, case.values()))
        rows.append({**head, "config": config, **measure_op(op, sizes, dtype, device, (name, copy_gb_s))})
        keep(rows[-1])
    return rows


def measure_op(op: Op, sizes: Sizes, dtype: str, device: torch.device, baseline: tuple[str, float]) -> Row:
    """Samples and figures of one operation; baseline: the name of the samples, and the rate of a copy."""
    try:
        measurement = measure(op, sizes, DTYPES[dtype], device)
    except Exception as error:  # Triton and CUDA each fail in their own ways
        lines = str(error).strip().splitlines() or [""]
        return {"samples": {}, "summary": {}, "failed": [f"{type(error).__name__}: {lines[0]}"]}
    tolerance, (name, copy_gb_s) = op.tolerances[DTYPES[dtype]], baseline
    rates = {"bytes": measurement.bytes, "gb_s": measurement.gb_s, "copy_share": measurement.gb_s / copy_gb_s}
    failures = [] if measurement.error <= tolerance else ["error beyond the tolerance"]
    samples = {name: [round(seconds, 9) for seconds in measurement.seconds]}
    return {
        "samples": samples,
        "summary": {"error": measurement.error, "tolerance": tolerance, **rates},
        "failed": failures,
    }


def limit_violations(op: Op, resources: Resources, dtype: str, architecture: str) -> Iterator[str]:
    """Messages on the limits that a kernel exceeds."""
    limit = SHARED_LIMITS[int(architecture.removeprefix("sm_"))] * 1024
    if resources.spill_bytes:
        yield f"{resources.spill_bytes} bytes spilt, none allowed"
    if resources.registers > op.max_registers:
        yield f"{resources.registers} registers, at most {op.max_registers}"
    if resources.shared_bytes > limit:
        yield f"{resources.shared_bytes} bytes of shared memory, at most {limit}"
    if op.vectorized and not resources.load_128:
        yield "no load of 16 bytes"
    if resources.load_less != op.scalar_loads:
        yield f"{resources.load_less} loads of less than 16 bytes, expected {op.scalar_loads}"
    if resources.store_less:
        yield f"{resources.store_less} stores of less than 16 bytes, none allowed"
    if op.matmul and dtype != "fp32" and not resources.matrix:
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
    """The rows as a table."""
    flat = [{**row, **row.get("config", {}), **row.get("summary", {})} for row in rows]
    return [[cell(row.get(name, "-")) for name in columns.values()] for row in flat]


def failures(rows: Sequence[Row]) -> list[str]:
    """One line for each row that failed: which, and why."""
    columns = {name: name for name in ("op", "sizes", "dtype", "arch", "failed")}
    failed_rows = lines([row for row in rows if row["failed"]], columns)
    return [f"{' '.join(word for word in names if word != '-')}: {why}" for *names, why in failed_rows]


def cell(value: Any) -> str:
    """One value as text."""
    if isinstance(value, dict):
        return " ".join(f"{key}{size}" for key, size in value.items())
    if isinstance(value, float):
        return f"{value:.3g}"
    return "; ".join(value) if isinstance(value, list) else str(value)
