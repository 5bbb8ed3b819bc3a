"""Rows of `throughput` as text."""

from __future__ import annotations

from typing import Any

from pavdm_cli.runtime.printable import pluralize

Lines = list[tuple[str, str]]


def lines(row: dict[str, Any]) -> Lines:
    """Labels and values of a row; what was not measured is left out."""
    return [
        *_speed(row["summary"]),
        *_first(row["summary"]),
        *_steps(row["summary"]),
        *_parts(row["summary"]),
        *_machine(row),
    ]


def _speed(summary: dict[str, Any]) -> Lines:
    result = [("steady state, denoising alone", f"{summary['steady_fps']:.1f} frames/s")]
    if "end_to_end_fps" in summary:
        rate = f"{summary['end_to_end_fps']:.1f} frames/s, {summary['real_time_factor']:.1f}x real time"
        result.append(("end to end, to a file", rate))
    return result


def _first(summary: dict[str, Any]) -> Lines:
    if "first_frame_cold_s" not in summary:
        return []
    return [
        ("time to first frame, cold", f"{summary['first_frame_cold_s']:.2f} s"),
        ("time to first frame, warm", f"{summary['first_frame_warm_s']:.2f} s"),
    ]


def _steps(summary: dict[str, Any]) -> Lines:
    return [
        (name, f"p50 {summary[f'{name}_p50_ms']:.1f} ms, p99 {summary[f'{name}_p99_ms']:.1f} ms")
        for name in ("step", "chunk")
        if summary[f"{name}_p50_ms"] is not None
    ]


def _parts(summary: dict[str, Any]) -> Lines:
    phases = ", ".join(f"{name} {summary[f'{name}_s']:.2f} s" for name in ("growth", "steady", "drain"))
    stages = [name for name in ("text", "denoise", "decode", "write") if f"{name}_s" in summary]
    result = [("phases, denoising alone", phases)]
    return result + ([("stages", ", ".join(f"{n} {summary[f'{n}_s']:.2f} s" for n in stages))] if stages else [])


def _machine(row: dict[str, Any]) -> Lines:
    summary, ceiling = row["summary"], row["ceilings"]
    work = f"{1e3 * summary['step_tflop']:.2f} GFLOP per step, {summary['matrix_share']:.0%} of the matmul throughput"
    deviations, compilation = row.get("context_cache_deviation"), row["compiled"]
    peaks = {name: summary.get(f"{name}_mb") for name in ("peak_memory", "gpu_peak", "gpu_reserved")}
    sizes = [f"{name.replace('_', ' ')} {size:.0f} MB" for name, size in peaks.items() if size is not None]
    return [
        ("work", work),
        ("matmul throughput, this run", f"{ceiling['matrix_tflops']:.3f} TFLOP/s: {ceiling['matrix']}"),
        ("memory copy, this run", f"{ceiling['copy_gb_s']:.1f} GB/s, read and written"),
        ("threads", str(row["env"]["threads"])),
        ("attention", "{name}: {reason}".format(**row["attention"])),
        *(
            [("deviation by context reuse, per chunk", ", ".join(f"{share:.2g}" for share in deviations))]
            if deviations
            else []
        ),
        *(
            [("compiled", f"{pluralize(compilation['graphs'], 'graph')} in {compilation['seconds']:.0f} s")]
            if compilation["graphs"]
            else []
        ),
        (
            "CUDA graphs",
            f"{summary['graphs']}, {summary['graph_memory_mb']:.0f} MB, captured in {summary['capture_s']:.2f} s",
        ),
        ("memory", ", ".join(sizes) or "unknown"),
    ]
