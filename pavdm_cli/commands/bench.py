"""`pavdm bench`: measure speed, with ceilings from the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pavdm_cli.commands import options
from pavdm_cli.request import Request, Sampling

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
    as_json: options.Json = False,
    out: Annotated[Path | None, typer.Option(help="Append the row to this .jsonl file.")] = None,
) -> None:
    """Frames a second of denoising alone and end to end, time to the first frame, step times, memory."""
    sampling = Sampling(model, method, steps, window, chunk, not no_overlap, guidance, seed or 0, device, threads)
    _throughput(Request(prompt, seconds, sampling=sampling), as_json, out)


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
