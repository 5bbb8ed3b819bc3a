"""`pavdm models`: which models there are, what each knows, and the weights of those that are fetched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pavdm_cli import ui
from pavdm_cli.errors import ModelError, UsageError
from pavdm_cli.specs import MODELS, ModelSpec, find

MEGABYTE = 10**6

app = typer.Typer(no_args_is_help=True, help="List the models, show what one knows, fetch weights.")


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
        ("weights", f"{_weight(spec)}, {spec.licence}, in {_home(spec)}"),
        *((part.folder, f"{part.repo}, {part.revision}") for part in spec.parts),
    ]
    ui.show_table(spec.name, ("", ""), facts)
    if spec.family != "pocket":
        return
    words = [
        (kind, "; ".join(", ".join(filter(None, group)) for group in table.values()))
        for kind, table in WORDINGS.items()
    ]
    ui.show_table("\nwords it knows; semicolons part meanings", ("", ""), words)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="A model's name.")],
    folder: Annotated[Path | None, typer.Option(help="Where to; then use --model FOLDER.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show sizes and free disk only.")] = False,
) -> None:
    """Fetch a model's weights, from where an earlier pull was cut, and check their hashes."""
    from pavdm_cli.models import hub
    from pavdm_cli.models import pull as parts

    wanted = parts.plan(find(name), folder or _home(find(name)), os.environ.get("HF_ENDPOINT", hub.ENDPOINT))
    for file in wanted.missing:
        ui.note(f"{file.size / 1e9:9.3f} GB  {file.place}")
    free = hub.free_space(wanted.folder) / 1e9
    ui.note(f"{wanted.left / 1e9:.3f} GB to fetch, {wanted.there / 1e9:.3f} GB are there, {free:.1f} GB free")
    if dry_run:
        return
    with ui.progress("fetching", -(-wanted.left // MEGABYTE), "MB") as advance:
        parts.pull(wanted, _counted(advance))
    if any(wanted.folder.glob("*/*.bin")) and not any(wanted.folder.glob("text_encoder/*.safetensors")):
        ui.warn(f"T5 came pickled: `pavdm models convert {wanted.folder / 'text_encoder'}` makes it readable")
    print(wanted.folder)


@app.command()
def verify(name: Annotated[str, typer.Argument(help="A model's name, or the folder it was pulled to.")]) -> None:
    """Compare a fetched model's files with the hashes they were published with."""
    from pavdm_cli.models import pull as parts
    from pavdm_cli.models.home import pulling

    spec = find(name)
    if not spec.parts:
        raise UsageError(f"{spec.name} was not fetched: nothing to compare it with", "it comes with the package")
    folder = _home(spec)
    if wrong := parts.problems(folder, watch=ui.note):
        hint = f"delete what is there of them, and {pulling(folder)} fetches them again"
        raise ModelError(f"missing or changed: {', '.join(wrong)}", hint)
    print(f"all files of {folder} are as published")


@app.command()
def path(name: Annotated[str, typer.Argument(help="A model's name.")] = "pocket") -> None:
    """Print the folder of a model's weights."""
    print(_home(find(name)))


@app.command()
def rm(
    name: Annotated[str, typer.Argument(help="A model's name.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a fetched model."""
    from pavdm_cli.models import pull as parts

    spec = find(name)
    folder = parts.removable(spec)
    kept = f"; it was a link, and its files are kept in {folder.resolve()}" if folder.is_symlink() else ""
    if not yes:
        typer.confirm(f"delete {folder}?", abort=True, err=True)
    ui.note(f"{parts.remove(spec) / 1e9:.3f} GB are free again{kept}")


@app.command()
def convert(folder: Annotated[Path, typer.Argument(help="Holds .bin or .pt files.")]) -> None:
    """Write pickled weights as safetensors beside them; only tensors are read, no code is run."""
    from pavdm_cli.models.convert import convert as converted

    for written in converted(folder):
        print(written)


def _counted(advance: ui.Advance) -> Callable[[int], None]:
    """Takes bytes and passes on whole megabytes."""
    came = 0

    def add(count: int) -> None:
        nonlocal came
        came, before = came + count, came
        advance(came // MEGABYTE - before // MEGABYTE)

    return add


def _group(spec: ModelSpec) -> str:
    latents, frames = spec.group
    return f"{frames} frames in {latents} latents" if latents > 1 else f"{frames} frames a latent"


def _size(spec: ModelSpec) -> str:
    return f"{spec.size[1]}x{spec.size[0]}"


def _weight(spec: ModelSpec) -> str:
    size = sum(path.stat().st_size for path in _home(spec).rglob("*.safetensors"))
    return f"{size / 1e6:.1f} MB" if size else "not fetched" if spec.parts else "missing"


def _home(spec: ModelSpec) -> Path:
    from pavdm_cli.models.home import home

    return home(spec)
