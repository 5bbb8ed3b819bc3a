"""`pavdm info`: what a video file is, what made it, and the command that makes it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pavdm_cli.commands import options
from pavdm_cli.models import registry
from pavdm_cli.runtime.printable import command_line


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any video file.")],
    as_json: options.Json = False,
) -> None:
    """Show a video's size, length, codecs and tracks; of one that pavdm made also its generation parameters.

    Those are prompt, seed, weights, versions and settings, with the command that makes the video again.
    """
    from pavdm_cli import ui
    from pavdm_cli.generation.metadata import first, sound_fields
    from pavdm_cli.video import open_video, read_metadata
    from pavdm_cli.video.io.summary import describe_video, summary_rows

    video = open_video(file)
    recipe, wrong = sound_fields(read_metadata(file) or {})
    if "prompt" not in recipe:
        recipe, wrong = {}, []
    for line in first(wrong):
        ui.warn(f"damaged metadata is ignored: {line}")
    facts, left = describe_video(video), missing(file, recipe, video.frames)
    if as_json:
        held = {"held": video.frames, "whole": not left} if recipe else {}
        print(json.dumps(recipe | held | {"file": facts}))
        return
    lines = aligned(summary_rows(facts))
    if recipe:
        shown = recipe | ({"frames": _frames_row(file, recipe, video.frames, left)} if left else {})
        lines = [*aligned([(name, _plain(value)) for name, value in shown.items()]), "", *lines, "", command(recipe)]
    ui.show(lines)


def _frames_row(file: Path, recipe: dict[str, Any], held: int, left: int) -> str:
    from pavdm_cli.video import is_being_written

    state = "still being made" if is_being_written(file) else cut_short(file, held, left, recipe.get("copied", 0))
    return f"{held} of {held + left}, {state}"


def missing(file: Path, recipe: dict[str, Any], held: int) -> int:
    """Frames still to come when the file was cut short; those of a continuation that is whole cannot be told."""
    if "frames" not in recipe:
        return 0
    if "source" in recipe and not file.stem.endswith(".partial"):  # damaged frames of its source are left out
        return 0
    return max(0, int(recipe.get("copied", 0) + recipe["frames"]) - held)


def cut_short(file: Path, held: int, left: int, copied: int) -> str:
    """What can be done with a part."""
    from pavdm_cli.video.write.output import checkpoint_path

    if checkpoint_path(file).exists():
        return f"cut short; `{command_line(('pavdm', 'resume'), str(file))}` continues it"
    if held < copied:
        return "cut short before anything new; the command below begins again"
    return f"cut short; `{command_line(('pavdm', 'extend'), str(file), ('--frames', str(left)))}` goes on"


def aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    """One line a row, its values below each other."""
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def command(recipe: dict[str, Any]) -> str:
    """The command line that makes the same frames again, on the same machine, versions and threads."""
    prompt = recipe.get("caption") or recipe["prompt"]  # a caption is complete: it leaves nothing to the seed
    words = ["--prompt", prompt] if "source" in recipe else []
    for name in SAME:
        words += [f"--{name.replace('_', '-')}", str(recipe[name])] if recipe.get(name) is not None else []
    for name, option in registry.options().items():
        words += _flag(option.name, recipe.get(name))
    if "size" in recipe and "source" not in recipe:
        words += ["--fps", str(recipe["fps"])] if "fps" in recipe else []
    words += ["--reencode" if recipe["reencode"] else "--keep-latents"] if "reencode" in recipe else []
    words += ["--only-new"] if recipe.get("only_new") else []
    own = [] if "source" in recipe else [name for name in ("warmup", "scale", "scale_filter") if name in recipe]
    words += [word for name in own for word in (f"--{name.replace('_', '-')}", str(recipe[name]))]
    words += [word for file in recipe.get("lora", []) for word in ("--lora", file)]
    words += ["--compile"] if recipe.get("compile") else []
    if "source" in recipe:
        return command_line(("pavdm", "extend"), recipe["source"], words)
    return command_line(("pavdm", "generate"), prompt, words)


def _flag(name: str, value: object) -> list[str]:
    """A model's own option as words of the command line; nothing where it was not given."""
    if isinstance(value, bool):
        return [f"--{name}"] * value
    return [] if value is None else [f"--{name}", str(value)]


SAME = (  # metadata that a flag of the same name sets
    *("frames", "seed", "model", "method", "steps", "window", "chunk", "context", "guidance", "device", "threads"),
    *(
        "attention",
        "context_cache",
        "precision",
        "solver",
        "ramp_up",
        "stride",
        "cfg_batching",
        "vae_tiling",
        "image",
        "size",
        "crf",
        "start",
        "audio",
    ),
    "edit_ratio",
)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)
