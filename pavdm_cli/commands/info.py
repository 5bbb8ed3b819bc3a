"""`pavdm info`: what made a video, and the command that makes it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pavdm_cli.errors import InputError
from pavdm_cli.printable import command_line


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A video that pavdm wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print recipe and frames held as JSON.")] = False,
) -> None:
    """Show prompt, seed, weights, versions and settings of a FILE, and the command that makes it again."""
    from pavdm_cli import ui
    from pavdm_cli.stored import first, sound_fields
    from pavdm_cli.video import being_written, open_video, read_metadata

    recipe, wrong = sound_fields(read_metadata(file) or {})
    if "prompt" not in recipe:
        raise InputError(f"{file} carries no recipe", "only videos written by pavdm do")
    for line in first(wrong):
        ui.warn(f"damaged metadata is ignored: {line}")
    held = open_video(file).frames
    left = missing(file, recipe, held)
    if as_json:
        print(json.dumps(recipe | {"held": held, "whole": not left}))
        return
    again, shown = command(recipe), recipe
    if left:
        state = "still being made" if being_written(file) else cut_short(file, held, left, recipe.get("copied", 0))
        shown = recipe | {"frames": f"{held} of {held + left}, {state}"}
    ui.show([*describe(shown), "", again])


def missing(file: Path, recipe: dict[str, Any], held: int) -> int:
    """Frames still to come when the file was cut short; those of a continuation that is whole cannot be told."""
    if "frames" not in recipe:
        return 0
    if "source" in recipe and not file.stem.endswith(".partial"):  # damaged frames of its source are left out
        return 0
    return max(0, int(recipe.get("copied", 0) + recipe["frames"]) - held)


def cut_short(file: Path, held: int, left: int, copied: int) -> str:
    """What can be done with a part."""
    if held < copied:
        return "cut short before anything new; the command below begins again"
    return f"cut short; `{command_line(('pavdm', 'extend'), str(file), ('--frames', str(left)))}` goes on"


def describe(recipe: dict[str, Any]) -> list[str]:
    """One line a value."""
    width = max(map(len, recipe))
    return [f"{name:<{width}}  {_plain(value)}" for name, value in recipe.items()]


def command(recipe: dict[str, Any]) -> str:
    """The command line that makes the same frames again, on the same machine, versions and threads."""
    prompt = recipe.get("caption") or recipe["prompt"]  # a caption is complete: it leaves nothing to the seed
    words = ["--prompt", prompt] if "source" in recipe else []
    for name in SAME:
        words += [f"--{name.replace('_', '-')}", str(recipe[name])] if recipe.get(name) is not None else []
    if "size" in recipe and "source" not in recipe:
        words += ["--fps", str(recipe["fps"])] if "fps" in recipe else []
    words += ["--fp32-timesteps"] if recipe.get("fp32_timesteps") else []
    words += [] if recipe.get("overlap", True) else ["--no-overlap"]
    words += ["--reencode" if recipe["reencode"] else "--keep-latents"] if "reencode" in recipe else []
    words += ["--only-new"] if recipe.get("only_new") else []
    words += recipe.get("switches", [])
    if "source" in recipe:
        return command_line(("pavdm", "extend"), recipe["source"], words)
    return command_line(("pavdm", "generate"), prompt, words)


SAME = (
    *("frames", "seed", "model", "method", "steps", "window", "chunk", "guidance", "device", "attention", "overlap_kv"),
    "precision",
    *(
        "image",
        "threads",
        "size",
        "aesthetic-score",
        "motion-score",
        "camera-motion",
        "edit-ratio",
        "crf",
        "start",
        "audio",
        "passes",
    ),
)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)
