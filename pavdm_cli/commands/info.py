"""`pavdm info`: what made a video, and the command that makes it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from pavdm_cli.errors import InputError


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A video that pavdm wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print recipe and frames held as JSON.")] = False,
) -> None:
    """Show prompt, seed, weights, versions and settings of a FILE, and the command that makes it again."""
    from pavdm_cli.video import being_written, open_video, read_metadata

    recipe = read_metadata(file)
    if recipe is None or "prompt" not in recipe:
        raise InputError(f"{file} carries no recipe", "only videos written by pavdm do")
    held = open_video(file).frames
    left = missing(file, recipe, held)
    if as_json:
        print(json.dumps(recipe | {"held": held, "whole": not left}))
        return
    again, shown = command(recipe), recipe
    if left:
        state = "still being made" if being_written(file) else cut_short(file, held, left, recipe.get("copied", 0))
        shown = recipe | {"frames": f"{held} of {held + left}, {state}"}
    print(describe(shown, again))


def missing(file: Path, recipe: dict[str, Any], held: int) -> int:
    """Frames still to come when the file was cut short; those of a continuation that is whole cannot be told."""
    wanted = (recipe.get("copied", 0), recipe.get("frames"))
    if "source" in recipe and not file.stem.endswith(".partial"):  # damaged frames of its source are left out
        return 0
    return max(0, sum(wanted) - held) if all(isinstance(count, int) for count in wanted) else 0


def cut_short(file: Path, held: int, left: int, copied: int) -> str:
    """What can be done with a part."""
    if held < copied:
        return "cut short before anything new; the command below begins again"
    return f"cut short; `pavdm extend {shlex.quote(str(file))} --frames {left}` goes on"


def describe(recipe: dict[str, Any], again: str) -> str:
    """One line a value, then the command that makes it again."""
    width = max(map(len, recipe))
    rows = [f"{name:<{width}}  {_plain(value)}" for name, value in recipe.items()]
    return "\n".join([*rows, "", again])


def command(recipe: dict[str, Any]) -> str:
    """The command line that makes the same frames again, on the same machine, versions and threads."""
    words = ["pavdm", "extend", recipe["source"]] if "source" in recipe else ["pavdm", "generate"]
    options = {name: recipe.get(name) for name in SAME}
    words += ["--prompt", recipe["prompt"]] if "source" in recipe else [recipe["prompt"]]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    if "size" in recipe and "source" not in recipe:
        words += ["--fps", str(recipe["fps"])]
    words += ["--fp32-timesteps"] if recipe.get("fp32_timesteps") else []
    words += [] if recipe.get("overlap", True) else ["--no-overlap"]
    words += ["--reencode" if recipe["reencode"] else "--keep-latents"] if "reencode" in recipe else []
    words += ["--only-new"] if recipe.get("only_new") else []
    words += recipe.get("switches", [])
    return shlex.join(words)


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
