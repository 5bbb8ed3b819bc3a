"""`pavdm bench`: measure speed, with ceilings from the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pavdm_cli.commands import options
from pavdm_cli.errors import PavdmError
from pavdm_cli.request import Engine, Request, Sampling, parse_overlap_kv

app = typer.Typer(no_args_is_help=True, help="Measure speed, beside what the machine can do.")


@app.callback()
def root() -> None:
    """Measure speed, beside what the machine can do."""


@app.command()
def throughput(
    prompt: Annotated[str, typer.Option(help="What to show meanwhile.")] = "a red balloon drifting over green hills",
    seconds: options.Seconds = 30.0,
    model: options.Model = "pocket",
    seed: options.Seed = 0,
    method: options.Method = "pa",
    steps: options.Steps = None,
    window: options.Window = None,
    chunk: options.Chunk = None,
    no_overlap: options.NoOverlap = False,
    guidance: options.Guidance = None,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    attention: options.Attention = "auto",
    overlap_kv: options.OverlapKV = None,
    cuda_graphs: options.CudaGraphs = "auto",
    as_json: options.Json = False,
    out: Annotated[Path | None, typer.Option(help="Append the row to this .jsonl file.")] = None,
) -> None:
    """Frames a second of denoising alone and end to end, time to the first frame, step times, memory."""
    how = (model, method, steps, window, chunk, not no_overlap, guidance, seed or 0, device, threads)
    engine = Engine(attention, overlap_memory=parse_overlap_kv(overlap_kv), cuda_graphs=cuda_graphs)
    sampling = Sampling(*how, engine)
    _throughput(Request(prompt, seconds, sampling=sampling), as_json, out)


@app.command()
def kernels(
    compile_only: Annotated[bool, typer.Option("--compile-only", help="Build for GPUs that are not here.")] = False,
    arch: Annotated[list[str] | None, typer.Option(help="sm_80, sm_89, sm_90, sm_120; all unless named.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="bf16, fp16, fp32; all unless named.")] = None,
    width: Annotated[list[int] | None, typer.Option(help="Of the model: 1152, 1872, 192; all unless named.")] = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    out: Annotated[Path | None, typer.Option(help="Write the rows to this .jsonl file.")] = None,
) -> None:
    """Errors and bandwidth of every operation here; with --compile-only registers, spills, shared memory and loads."""
    _kernels((arch or [], dtype or [], width or []), None if compile_only else device, as_json, out)


def _kernels(
    named: tuple[list[str], list[str], list[int]], device: str | None, as_json: bool, out: Path | None
) -> None:
    from pavdm_cli import ui
    from pavdm_cli.bench.kernels import COLUMNS, MEASURED, Choice, compile_all, lines, measure_all
    from pavdm_cli.models.load import pick_device

    choice = Choice(*named)
    with ui.progress("kernels", len(choice.cases() if device else choice.builds()), "kernels") as advance:
        rows = measure_all(choice, pick_device(device), advance) if device else compile_all(choice, advance)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if out:
        out.write_text(text, encoding="utf-8")
    columns = MEASURED if device else COLUMNS
    if as_json:
        print(text, end="")
    else:
        ui.show_table("", tuple(columns), lines(rows, columns))
    if broken := [row for row in rows if row["failed"]]:
        raise PavdmError(f"{len(broken)} of {len(rows)} kernels are beyond their limits", "see the last column")


def _throughput(request: Request, as_json: bool, out: Path | None) -> None:
    from pavdm_cli import ui
    from pavdm_cli.bench.throughput import lines, throughput

    with ui.progress("measuring", request.count) as advance:
        row = throughput(request, advance)
    if out:
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
    if as_json:
        print(json.dumps(row))
    else:
        ui.show_table("", ("", ""), lines(row))
