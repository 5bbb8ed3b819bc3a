"""`pavdm models`: list models, show their details, and manage weights."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pavdm_cli import ui
from pavdm_cli.commands.common import App, complete
from pavdm_cli.commands.output_options import Json
from pavdm_cli.errors import ModelError, UsageError
from pavdm_cli.models.adapter import VideoModel
from pavdm_cli.models.registry import MODELS, find, get, specs
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.runtime.printable import command_line

MEGABYTE = 10**6

app = App(help="List models, show details, download and remove weights.")

Name = Annotated[str, typer.Argument(autocompletion=complete(MODELS), help="A model's name, see `pavdm models list`.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List all models and the disk space used by weights and the cache."""
    if as_json:
        cache = {"folder": str(_cache_folder()), "bytes": dict(_caches())}
        print(json.dumps({"models": [_facts(spec) for spec in specs()], "cache": cache}))
        return
    rows = [(spec.name, _size(spec), f"{spec.fps}", _disk_usage(spec), spec.description) for spec in specs()]
    ui.show_table("", ("model", "pixels", "frames/s", "on disk", "what it is"), rows)
    if caches := [(name, format_bytes(size)) for name, size in _caches()]:
        ui.show_table(f"\ncache in {_cache_folder()}; `pavdm models remove --cache` clears it", ("", ""), caches)


@app.command()
def show(name: Name = "pocket", as_json: Json = False) -> None:
    """Show a model's sizes, license and vocabulary."""
    model = find(name)
    spec, (tables, data) = model.spec, model.prompt_help()
    if as_json:
        print(json.dumps(_facts(spec) | data))
        return
    facts = [
        ("what", spec.description),
        ("pixels", f"{_size(spec)} at {spec.fps} frames/s"),
        ("window", f"{spec.window} latents in chunks of {spec.chunk}, {_latents(model)}"),
        ("sampling", f"method {spec.method}, {spec.steps} steps, guidance {spec.guidance:g}"),
        ("weights", f"{_disk_usage(spec)}, {spec.license}, in {_weights_folder(spec)}"),
        *((part.folder, f"{part.repo}, {part.revision}") for part in spec.parts),
    ]
    ui.show_table(spec.name, ("", ""), facts)
    for title, head, rows in tables:
        ui.print_lines([""])
        ui.show_table(title, head, list(rows))


@app.command()
def pull(
    name: Name,
    folder: Annotated[Path | None, typer.Option(help="Destination folder; pass it to --model.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show sizes and free disk space only.")] = False,
    accept: Annotated[bool, typer.Option("--accept-license", help="Accept the license without prompting.")] = False,
) -> None:
    """Download a model's weights, resuming an interrupted download, and check their hashes."""
    from pavdm_cli.hub import download, weights_dir
    from pavdm_cli.hub import pull as pull_module

    spec = find(name).spec
    if folder is None and weights_dir.is_linked(spec):
        ui.info(f"nothing to download: all files are {_hub_note(spec)}")
        print(weights_dir.weights_folder(spec))
        return
    download_plan = pull_module.plan(
        spec, folder or weights_dir.download_folder(spec), os.environ.get("HF_ENDPOINT", download.ENDPOINT)
    )
    commits = {f"{file.url.partition('/resolve/')[0]} at {file.commit}" for file in download_plan.files}
    for line in (f"license: {spec.license}", *sorted(commits)):
        ui.info(line)
    for file in download_plan.missing:
        ui.info(f"{file.size / 1e9:9.3f} GB  {file.path}")
    free = download.free_space(download_plan.folder) / 1e9
    remaining_gb, present_gb = download_plan.remaining / 1e9, download_plan.present_bytes / 1e9
    ui.info(f"{remaining_gb:.3f} GB to download, {present_gb:.3f} GB already downloaded, {free:.1f} GB free")
    if dry_run:
        return
    if spec.terms and download_plan.remaining:
        _check_accepted(spec, accept)
    with ui.progress("downloading", -(-download_plan.remaining // MEGABYTE), "MB") as advance:
        pull_module.pull(download_plan, _megabyte_counter(advance))
    if any(download_plan.folder.glob("*/*.bin")) and not any(download_plan.folder.glob("text_encoder/*.safetensors")):
        command = command_line(("pavdm", "models", "convert"), str(download_plan.folder / "text_encoder"))
        ui.note(f"the T5 weights are pickled: convert them with `{command}`")
    print(download_plan.folder)


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="A model's name, or the folder it was pulled to.")], as_json: Json = False
) -> None:
    """Check a downloaded model's files against the published hashes."""
    from pavdm_cli.hub import cache as hub_cache
    from pavdm_cli.hub import pull as pull_module
    from pavdm_cli.hub.weights_dir import is_linked, pull_command

    spec = None if Path(name).is_dir() and name not in MODELS else find(name).spec
    if spec and not spec.parts:
        raise UsageError(f"{spec.name} is bundled and has no published hashes", "it comes with the package")
    folder = _weights_folder(spec) if spec else Path(name).resolve()  # even if its configurations are damaged
    linked_spec = spec if spec and is_linked(spec) else None
    default_spec = next((spec for spec in specs() if spec.parts), specs()[0])
    published_spec = get(name).spec if name in MODELS else default_spec
    command = pull_command(published_spec, folder)
    problems = (
        hub_cache.changed_files(linked_spec, folder, ui.info)
        if linked_spec
        else pull_module.find_problems(folder, watch=ui.info, command=command)
    )
    if problems:
        delete = (
            f"{hub_cache.removal_command(linked_spec)} deletes them"
            if linked_spec
            else "delete the files that are there"
        )
        hint = f"{delete}, then run {command} to download them again"
        raise ModelError(f"missing or changed: {', '.join(problems)}", hint)
    if as_json:
        print(json.dumps({"folder": str(folder), "verified": True}))
    else:
        ui.print_lines([f"all files of {folder} match the published hashes"])


@app.command()
def path(name: Name = "pocket", as_json: Json = False) -> None:
    """Print the folder of a model's weights."""
    folder, note = _weights_folder(find(name).spec), _hub_note(find(name).spec)
    print(json.dumps({"model": name, "folder": str(folder)}) if as_json else folder)
    if note:
        ui.info(f"links to files {note}")


@app.command()
def remove(
    name: Annotated[
        str, typer.Argument(autocompletion=complete(MODELS), help="A downloaded model; omit to clear only the cache.")
    ] = "",
    cache: Annotated[
        bool, typer.Option("--cache", help="Clear all caches (everything except downloaded models).")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a downloaded model, the cache, or both, after asking."""
    from pavdm_cli.hub import pull as pull_module

    if not name and not cache:
        raise UsageError("nothing to remove", "name a model of `pavdm models list`, or give --cache")
    models = [pull_module.removal_target(find(name).spec)] if name else []
    targets = [*models, *(_cache_folder() / kind for kind, _ in _caches() if cache)]
    link_targets = [folder.resolve() for folder in models if folder.is_symlink()]
    if targets and not yes:
        ui.confirm(f"delete {', '.join(map(str, targets))}?", "use --yes to delete without prompting")
    freed_bytes = sum(map(pull_module.delete, targets))
    if as_json:
        print(json.dumps({"removed": list(map(str, targets)), "freed_bytes": freed_bytes}))
    note = "".join(f"; it was a link; its files remain in {folder}" for folder in link_targets)
    ui.info(f"{freed_bytes / 1e9:.3f} GB freed{note}")


@app.command()
def convert(folder: Annotated[Path, typer.Argument(help="Folder with .bin or .pt files.")]) -> None:
    """Convert pickled weights to safetensors in the same folder; only tensors are read, no pickled code is executed."""
    from pavdm_cli.hub.convert import convert as converted

    for converted_file in converted(folder):
        print(converted_file)


def _check_accepted(spec: ModelSpec, accept: bool) -> None:
    """Ask the user to accept the license. Raises: UsageError without a terminal."""
    if accept:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{spec.name} is under {spec.terms}", "read it, then add --accept-license")
    question = f"{spec.name} is under {spec.terms}. Do you accept it?"
    ui.confirm(question, "use --accept-license to accept it without prompting")


def _megabyte_counter(advance: ui.Advance) -> Callable[[int], None]:
    """Converts a byte callback to whole megabytes."""
    num_bytes = 0

    def add(count: int) -> None:
        nonlocal num_bytes
        num_bytes, before = num_bytes + count, num_bytes
        advance(num_bytes // MEGABYTE - before // MEGABYTE)

    return add


def _latents(model: VideoModel) -> str:
    """Frames per latent, as text."""
    layout = model.layout(model.spec.size, model.spec.fps)
    if layout.unit > 1:
        return f"{layout.unit_frames} frames in {layout.unit} latents"
    first = "" if layout.first == layout.rest else f", {layout.first} in the first"
    return f"{layout.rest} frames per latent{first}"


def _size(spec: ModelSpec) -> str:
    return f"{spec.size[1]}x{spec.size[0]}"


def _facts(spec: ModelSpec) -> dict[str, Any]:
    """A model's details for --json."""
    height, width = spec.size
    values = ("name", "description", "license", "fps", "window", "chunk", "steps", "guidance", "method")
    facts = {name: getattr(spec, name) for name in values} | {"width": width, "height": height}
    parts = [{"folder": part.folder, "repo": part.repo, "revision": part.revision} for part in spec.parts]
    return facts | {"folder": str(_weights_folder(spec)), "bytes": _bytes(_weights_folder(spec)), "parts": parts}


def _disk_usage(spec: ModelSpec) -> str:
    size = _bytes(_weights_folder(spec))
    return (
        format_bytes(size) + " in the hub's cache" * bool(_hub_note(spec))
        if size
        else "not downloaded"
        if spec.parts
        else "missing"
    )


def _hub_note(spec: ModelSpec) -> str:
    """Where a model's files are, if that is huggingface_hub's own cache."""
    from pavdm_cli.hub import cache as hub_cache
    from pavdm_cli.hub import weights_dir

    return f"in the hub's own cache, {hub_cache.cache_root()}" if weights_dir.is_linked(spec) else ""


def format_bytes(size: int) -> str:
    """Bytes as megabytes or gigabytes."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _bytes(folder: Path) -> int:
    """All files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _caches() -> list[tuple[str, int]]:
    """Cache folders and their sizes in bytes."""
    root = _cache_folder()
    folders = (
        sorted(path for path in root.iterdir() if path.is_dir() and path.name != "models") if root.is_dir() else []
    )
    return [(folder.name, _bytes(folder)) for folder in folders]


def _cache_folder() -> Path:
    from pavdm_cli.hub.weights_dir import cache_folder

    return cache_folder()


def _weights_folder(spec: ModelSpec) -> Path:
    from pavdm_cli.hub.weights_dir import weights_folder

    return weights_folder(spec)
