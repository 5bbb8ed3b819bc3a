"""Rows of results as people read them."""

from __future__ import annotations

from typing import Any

from pavdm_cli.runtime.printable import pluralize

Lines = list[tuple[str, str]]


def lines(row: dict[str, Any]) -> Lines:
    """A row of `throughput`, what was not measured left out."""
    return [
        *_speed(row["summary"]),
        *_first(row["summary"]),
        *_steps(row["summary"]),
        *_parts(row["summary"]),
        *_machine(row),
    ]


def _speed(found: dict[str, Any]) -> Lines:
    shown = [("steady, denoising alone", f"{found['steady_fps']:.1f} frames/s")]
    if "end_to_end_fps" in found:
        rate = f"{found['end_to_end_fps']:.1f} frames/s, {found['real_time_factor']:.1f}x real time"
        shown.append(("end to end, to a file", rate))
    return shown


def _first(found: dict[str, Any]) -> Lines:
    if "first_frame_cold_s" not in found:
        return []
    return [
        ("first frame, new process", f"{found['first_frame_cold_s']:.2f} s"),
        ("first frame, torch imported", f"{found['first_frame_warm_s']:.2f} s"),
    ]


def _steps(found: dict[str, Any]) -> Lines:
    return [
        (name, f"p50 {found[f'{name}_p50_ms']:.1f} ms, p99 {found[f'{name}_p99_ms']:.1f} ms")
        for name in ("step", "chunk")
        if found[f"{name}_p50_ms"] is not None
    ]


def _parts(found: dict[str, Any]) -> Lines:
    phases = ", ".join(f"{name} {found[f'{name}_s']:.2f} s" for name in ("growth", "steady", "drain"))
    stages = [name for name in ("text", "denoise", "decode", "write") if f"{name}_s" in found]
    shown = [("phases, denoising alone", phases)]
    return shown + ([("stages", ", ".join(f"{n} {found[f'{n}_s']:.2f} s" for n in stages))] if stages else [])


def _machine(row: dict[str, Any]) -> Lines:
    found, ceiling = row["summary"], row["ceilings"]
    work = f"{1e3 * found['step_tflop']:.2f} GFLOP a step, {found['matrix_share']:.0%} of the matrix-product rate"
    off, made = row.get("context_cache_deviation"), row["compiled"]
    memory = {name: found.get(f"{name}_mb") for name in ("peak_memory", "gpu_peak", "gpu_reserved")}
    known = [f"{name.replace('_', ' ')} {size:.0f} MB" for name, size in memory.items() if size is not None]
    return [
        ("work", work),
        ("matrix products, this run", f"{ceiling['matrix_tflops']:.3f} TFLOP/s: {ceiling['matrix']}"),
        ("copy of memory, this run", f"{ceiling['copy_gb_s']:.1f} GB/s, read and written"),
        ("threads", str(row["env"]["threads"])),
        ("attention", "{name}: {reason}".format(**row["attention"])),
        *([("off by reuse, chunk after chunk", ", ".join(f"{share:.2g}" for share in off))] if off else []),
        *([("compiled", f"{pluralize(made['graphs'], 'graph')} in {made['seconds']:.0f} s")] if made["graphs"] else []),
        (
            "CUDA graphs",
            f"{found['graphs']}, {found['graph_memory_mb']:.0f} MB, recorded in {found['capture_s']:.2f} s",
        ),
        ("memory", ", ".join(known) or "unknown here"),
    ]
