"""`pavdm bench`: measure speed, with ceilings from the same run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pavdm_cli.commands import bench_options, common, execution_options, options, output_options
from pavdm_cli.commands.flags import request_from_params
from pavdm_cli.errors import OutputError, PavdmError, UsageError
from pavdm_cli.generation.checks import check, check_sampling
from pavdm_cli.generation.request import Request
from pavdm_cli.models.registry import ARCHITECTURES, MODELS, get
from pavdm_cli.runtime.printable import pluralize

app = common.App(help="Measure speed against the hardware ceiling (roofline).")


@app.callback()
def root() -> None:
    """Measure speed against the hardware ceiling (roofline)."""


@app.command()
def throughput(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Option(help="Prompt to benchmark with.")] = "a red balloon drifting over green hills",
    seconds: options.BenchSeconds = 30.0,
    model: options.Model = "pocket",
    seed: options.BenchSeed = 0,
    method: options.Method = "pa",
    steps: options.Steps = None,
    window: options.Window = None,
    chunk: options.Chunk = None,
    context: options.Context = None,
    guidance: options.Guidance = None,
    device: execution_options.Device = "auto",
    threads: execution_options.Threads = 0,
    precision: execution_options.Precision = "auto",
    attention: execution_options.Attention = "auto",
    arch: bench_options.Architecture = None,
    random_weights: bench_options.RandomWeights = False,
    end_to_end: bench_options.EndToEnd = False,
    samples: bench_options.Samples = 15,
    context_cache: execution_options.ContextCache = "auto",
    cuda_graphs: execution_options.CudaGraphs = "auto",
    overlap_decode: execution_options.OverlapDecode = "auto",
    compile: execution_options.Compile = False,
    ablate: bench_options.Ablate = False,
    profile: bench_options.Profile = None,
    as_json: output_options.Json = False,
    output: bench_options.Output = None,
) -> None:
    """Measure throughput (denoising and end to end), time per stage and to first frame, step times and memory."""
    name = arch or (model if random_weights else "mid" if ablate else None)
    model = name if name in MODELS else get(name).published_spec.name if name in ARCHITECTURES else model
    request = request_from_params(ctx.params, model=model)
    if not name and (idle := {"--end-to-end", "--samples"} & common.command_line_options(ctx).keys()):
        raise UsageError(f"{min(idle)} needs random weights", "add --random-weights, or --arch")
    _check_request(request, name)
    if profile and ablate:
        raise UsageError("--ablate and --profile cannot be combined", "run one after the other")
    if profile:
        _profile(request, name, profile, as_json, output)
    else:
        (_ablate if ablate else partial(_throughput, end_to_end))(request, name, samples, as_json, output)


@app.command()
def latency(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Option(help="Prompt to benchmark with.")] = "a red balloon drifting over green hills",
    seconds: options.BenchSeconds = 10.0,
    repeat: Annotated[int, typer.Option(min=1, max=10**6, help="Number of repetitions.")] = 3,
    model: options.Model = "pocket",
    seed: options.BenchSeed = 0,
    method: options.Method = "pa",
    steps: options.Steps = None,
    window: options.Window = None,
    chunk: options.Chunk = None,
    context: options.Context = None,
    guidance: options.Guidance = None,
    device: execution_options.Device = "auto",
    threads: execution_options.Threads = 0,
    precision: execution_options.Precision = "auto",
    attention: execution_options.Attention = "auto",
    context_cache: execution_options.ContextCache = "auto",
    cuda_graphs: execution_options.CudaGraphs = "auto",
    overlap_decode: execution_options.OverlapDecode = "auto",
    compile: execution_options.Compile = False,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights", help="Use random weights, in this process: measures only the first frame and chunks."
        ),
    ] = False,
    as_json: output_options.Json = False,
    output: bench_options.Output = None,
) -> None:
    """Measure time to first frame (cold and warm), to each chunk, to a playable file and to the complete file."""
    request = request_from_params(ctx.params)
    _check_request(request, model if random_weights else None)
    _latency(request, model if random_weights else None, repeat, as_json, output)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Results before: .json or .jsonl.")],
    second: Annotated[Path, typer.Argument(help="Results after.")],
    as_json: output_options.Json = False,
) -> None:
    """Compare two result files; exit 1 if the second is slower by more than 3 % or 3 median absolute deviations.

    Measurements with fewer than three samples are shown but never count as slower.
    """
    _compare(first, second, as_json)


@app.command()
def kernels(
    compile_only: Annotated[
        bool, typer.Option("--compile-only", help="Only compile, for GPUs that are not present.")
    ] = False,
    gpu_arch: Annotated[
        list[str] | None,
        typer.Option(help="GPU architectures to compile for: sm_80, sm_89, sm_90, sm_120; default: all."),
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="bf16, fp16, fp32; default: all.")] = None,
    width: Annotated[
        list[int] | None, typer.Option(help="Hidden sizes to test: 1152, 1872, 192; default: all.")
    ] = None,
    device: execution_options.Device = "auto",
    as_json: output_options.Json = False,
    output: bench_options.Output = None,
) -> None:
    """Measure error and bandwidth of every kernel.

    With --compile-only, show registers, spills, shared memory and loads.
    """
    _kernels((gpu_arch or [], dtype or [], width or []), None if compile_only else device, as_json, output)


def _check_request(request: Request, architecture: str | None) -> None:
    """Validate before importing torch; with random weights the prompt is not used. Raises: UsageError."""
    check_sampling(request)
    if architecture is None:
        check(request)


def _kernels(selection: tuple[list[Any], ...], device: str | None, as_json: bool, out: Path | None) -> None:
    from pavdm_cli import ui
    from pavdm_cli.bench.kernels import COLUMNS, MEASURED, KernelSelection, compile_all, failures, lines, measure_all
    from pavdm_cli.models.devices import pick_device

    choice = KernelSelection(*selection)
    with ui.progress("kernels", len(choice.cases() if device else choice.builds()), "kernels") as advance:

        def on_result(row: dict[str, Any]) -> None:
            _write_row(row, as_json, out)
            advance(1, (row.get("config") or row)["op"])

        rows = measure_all(choice, pick_device(device), on_result) if device else compile_all(choice, on_result)
    if not as_json:
        columns = MEASURED if device else COLUMNS
        ui.show_table("", tuple(columns), lines(rows, columns))
    if failed_rows := failures(rows):
        for line in failed_rows:
            ui.info(f"failed: {line}")
        raise PavdmError(f"exceeded their error limits: {len(failed_rows)} of {pluralize(len(rows), 'kernel')}")


def _throughput(
    end_to_end: bool, request: Request, architecture: str | None, samples: int, as_json: bool, out: Path | None
) -> None:
    from pavdm_cli import ui
    from pavdm_cli.bench.architectures import find_architecture
    from pavdm_cli.bench.report import lines
    from pavdm_cli.bench.throughput import architecture_throughput, throughput

    _warn_if_compiled(request.execution.compile)
    network = find_architecture(architecture) if architecture else None
    if network and not end_to_end:
        row = architecture_throughput(request, network, samples)
    else:
        with ui.progress("measuring", request.frame_count, waiting=True) as advance:
            row = (
                architecture_throughput(request, network, samples, advance) if network else throughput(request, advance)
            )
    _write_row(row, as_json, out)
    if not as_json:
        ui.show_table("", ("", ""), lines(row))


def _warn_if_compiled(uses_compile: bool) -> None:
    if uses_compile:
        from pavdm_cli import ui
        from pavdm_cli.models.torch_compile import NOTE

        ui.note(NOTE)


def _write_row(row: dict[str, Any], as_json: bool, out: Path | None) -> None:
    if out:
        try:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {out}: {error.strerror}", "choose another file with --output") from None
    if as_json:
        print(json.dumps(row))


def _profile(request: Request, architecture: str | None, folder: Path, as_json: bool, out: Path | None) -> None:
    from pavdm_cli import ui
    from pavdm_cli.bench.architectures import find_architecture
    from pavdm_cli.bench.trace import lines, trace

    _warn_if_compiled(request.execution.compile)
    row, path = trace(request, find_architecture(architecture) if architecture else None, folder)
    _write_row(row, as_json, out)
    if as_json:
        return
    ui.show_table("", ("operation", "self time", "share", "calls"), lines(row))
    summary = row["summary"]
    ui.info(
        f"a step takes {summary['step_ms']:.1f} ms, up to {summary['issuing_share']:.1%} of it for launching operations"
    )
    print(path)


def _latency(request: Request, architecture: str | None, repeats: int, as_json: bool, out: Path | None) -> None:
    from pavdm_cli import ui
    from pavdm_cli.bench.architectures import find_architecture
    from pavdm_cli.bench.latency import WAITS, latency

    _warn_if_compiled(request.execution.compile)
    with ui.progress("measuring", repeats, "rounds") as advance:
        row = latency(request, repeats, advance, find_architecture(architecture) if architecture else None)
    _write_row(row, as_json, out)
    if not as_json:
        summary = row["summary"]
        waits = [(name, label) for name, label in WAITS.items() if f"{name}_p50_s" in summary]
        table_rows = [
            (label, f"{summary[f'{name}_p50_s']:.3f} s", f"{summary[f'{name}_p99_s']:.3f} s") for name, label in waits
        ]
        ui.show_table("", ("wait", "p50", "p99"), table_rows)


def _compare(first: Path, second: Path, as_json: bool) -> None:
    from pavdm_cli import ui
    from pavdm_cli.bench.compare import compare, lines

    comparisons = compare(first, second)
    if as_json:
        rows = [{**pair._asdict(), "ratio": pair.ratio, "slower": pair.slower} for pair in comparisons]
        print(json.dumps(rows))
    else:
        ui.show_table("", ("samples", "before", "after", "ratio", ""), lines(comparisons))
    if any(pair.slower for pair in comparisons):
        raise typer.Exit(1)


def _ablate(request: Request, architecture: str | None, samples: int, as_json: bool, out: Path | None) -> None:
    from pavdm_cli import ui
    from pavdm_cli.bench.ablate import ablate, lines, rungs_of
    from pavdm_cli.bench.architectures import find_architecture
    from pavdm_cli.models.devices import pick_device

    assert architecture
    rungs = rungs_of(request.execution.compile, pick_device(request.execution.device))
    _warn_if_compiled("+ compile" in rungs)
    with ui.progress("measuring", samples * (len(rungs) + 1), "steps", waiting=True) as advance:
        row = ablate(request, find_architecture(architecture), samples, advance)
    _write_row(row, as_json, out)
    if not as_json:
        ui.show_table("", ("", "step", "speedup", "deviation"), lines(row))
