"""The options of `pavdm bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pavdm_cli.errors import OutputError


def check_writable(path: Path | None) -> Path | None:
    """Check that the results file can be written. Raises: OutputError."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        wrong = "it is a folder" if path.is_dir() else "the folder does not exist"
        raise OutputError(f"cannot write {path}: {wrong}", "choose another file with --output")
    return path


Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", callback=check_writable, help="Append the results to this .jsonl file."),
]
Architecture = Annotated[
    str | None,
    typer.Option("--arch", help="Benchmark an architecture with random weights: mid, opensora-v1.2 or pocket."),
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Benchmark denoising with random weights of the model's architecture.")
]
EndToEnd = Annotated[
    bool,
    typer.Option(
        "--end-to-end", help="With random weights, also generate a whole video of --seconds and time its stages."
    ),
]
Samples = Annotated[int, typer.Option(min=1, max=10**6, help="Number of steps to time with random weights.")]
Ablate = Annotated[bool, typer.Option("--ablate", help="Measure optimizations one by one, on an --arch (default mid).")]
Profile = Annotated[
    Path | None,
    typer.Option(help="Profile some steps instead: write a trace here and list the most expensive operations."),
]
