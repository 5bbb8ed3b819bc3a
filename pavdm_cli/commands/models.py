"""`pavdm models`: which models there are, and what each knows."""

from __future__ import annotations

from typing import Annotated

import typer

from pavdm_cli import ui
from pavdm_cli.specs import MODELS, ModelSpec, find

app = typer.Typer(no_args_is_help=True, help="List the models, or show what one knows.")


@app.command("list")
def list_() -> None:
    """All models, a line each."""
    rows = [(spec.name, _size(spec), f"{spec.fps}", _weight(spec), spec.about) for spec in MODELS.values()]
    ui.show_table("", ("model", "pixels", "frames/s", "weights", "what it is"), rows)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A model's name.")] = "pocket") -> None:
    """One model: its sizes, licence, and the words it knows."""
    from pavdm_cli.models.words import WORDINGS

    spec = find(name)
    facts = [
        ("what", spec.about),
        ("pixels", f"{_size(spec)} at {spec.fps} frames/s"),
        ("window", f"{spec.window} latents in chunks of {spec.chunk}, {_group(spec)}"),
        ("sampling", f"method {spec.method}, {spec.steps} steps, guidance {spec.guidance:g}"),
        ("weights", f"{_weight(spec)}, {spec.licence}, in {spec.folder}"),
    ]
    ui.show_table(spec.name, ("", ""), facts)
    if spec.family != "pocket":
        return
    words = [
        (kind, "; ".join(", ".join(filter(None, group)) for group in table.values()))
        for kind, table in WORDINGS.items()
    ]
    ui.show_table("\nwords it knows; semicolons part meanings", ("", ""), words)


def _group(spec: ModelSpec) -> str:
    latents, frames = spec.group
    return f"{frames} frames in {latents} latents" if latents > 1 else f"{frames} frames a latent"


def _size(spec: ModelSpec) -> str:
    return f"{spec.size[1]}x{spec.size[0]}"


def _weight(spec: ModelSpec) -> str:
    files = [path for path in (spec.codec, spec.denoiser) if path.exists()]
    return f"{sum(path.stat().st_size for path in files) / 1e6:.1f} MB" if len(files) == 2 else "missing"
