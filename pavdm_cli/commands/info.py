"""`pavdm info`: what a video file is, what made it, and the command that makes it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pavdm_cli.commands import options
from pavdm_cli.commands.config import is_typed
from pavdm_cli.commands.option_values import options_of
from pavdm_cli.errors import InputError
from pavdm_cli.models import registry
from pavdm_cli.runtime.printable import command_line, printable


def info(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any video file.")],
    as_json: options.Json = False,
    config: Annotated[
        bool, typer.Option("--config", help="Print a configuration file that makes the video again: redirect it.")
    ] = False,
) -> None:
    """Show a video's size, length, codecs and tracks; of one that pavdm made also its generation parameters.

    Those are prompt, seed, weights, versions and settings, with the command that makes the video again. With --config
    they are printed as TOML: `pavdm info --config boat.mp4 > boat.toml`, then `pavdm generate --config boat.toml`.
    """
    from pavdm_cli import ui
    from pavdm_cli.generation.metadata import first, sound_fields
    from pavdm_cli.video import open_video, read_metadata
    from pavdm_cli.video.io.summary import describe_video, summary_rows

    video = open_video(file)
    metadata, wrong = sound_fields(read_metadata(file) or {})
    if "prompt" not in metadata:
        metadata, wrong = {}, []
    for line in first(wrong):
        ui.warn(f"damaged metadata is ignored: {line}")
    if config:
        return _print_config(ctx, file, metadata)
    facts, left = describe_video(video), missing(file, metadata, video.frames)
    whole = not left and not (metadata.get("forever") and "frames" not in metadata)
    if as_json:
        held = {"held": video.frames, "whole": whole} if metadata else {}
        print(json.dumps(metadata | held | {"file": facts}))
        return
    lines = aligned(summary_rows(facts))
    if metadata:
        shown = metadata | ({} if whole else {"frames": _frames_row(file, metadata, video.frames, left)})
        shown |= {"timeline": "; ".join(_changes(metadata))} if "timeline" in metadata else {}
        shown |= {"redo": "; ".join(map(_redo_row, metadata["redo"]))} if "redo" in metadata else {}
        lines = [*aligned([(name, _plain(value)) for name, value in shown.items()]), "", *lines, "", command(metadata)]
        lines += [_redo_command(record, metadata, float(video.rate)) for record in metadata.get("redo", [])]
    ui.show(lines)


def _frames_row(file: Path, metadata: dict[str, Any], held: int, left: int) -> str:
    from pavdm_cli.video import is_being_written

    state = "still being made" if is_being_written(file) else cut_short(file, held, left, metadata.get("copied", 0))
    return f"{held} of {held + left}, {state}" if left else f"{held} so far, {state}"


def missing(file: Path, metadata: dict[str, Any], held: int) -> int:
    """Frames still to come when the file was cut short; those of a continuation that is whole cannot be told."""
    if "frames" not in metadata:
        return 0
    if "source" in metadata and not file.stem.endswith(".partial"):  # damaged frames of its source are left out
        return 0
    return max(0, int(metadata.get("copied", 0) + metadata["frames"]) - held)


def cut_short(file: Path, held: int, left: int, copied: int) -> str:
    """What can be done with a part."""
    from pavdm_cli.video.write.output import checkpoint_path

    if checkpoint_path(file).exists():
        return f"cut short; `{command_line(('pavdm', 'resume'), str(file))}` continues it"
    if held < copied:
        return "cut short before anything new; the command below begins again"
    length = ("--frames", str(left)) if left else ("--seconds", "forever")
    return f"cut short; `{command_line(('pavdm', 'extend'), str(file), length)}` continues it"


def aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    """One line a row, its values below each other."""
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _print_config(ctx: typer.Context, file: Path, metadata: dict[str, Any]) -> None:
    """A configuration file with the options of the command that makes a video again. Raises: InputError."""
    from pavdm_cli.commands.config_file import to_toml

    if not metadata:
        raise InputError(f"{file} does not say how it was made", "only videos that pavdm made do")
    verb, argument, words = reproduction(metadata)
    maker = ctx.find_root().command.commands[verb]  # type: ignore[attr-defined]
    parsed = maker.make_context(verb, [*words, "--", argument], parent=ctx.parent, resilient_parsing=True)
    values = {key: parsed.params[option.name] for key, option in options_of(maker).items() if is_typed(parsed, option)}
    print(f"# `pavdm {verb} --config THIS_FILE` makes {printable(file.name)} again.")
    print(to_toml(values), end="")


def command(metadata: dict[str, Any]) -> str:
    """The command line that makes the same frames again, on the same machine, versions and threads."""
    verb, argument, words = reproduction(metadata)
    return command_line(("pavdm", verb), argument, words)


def reproduction(metadata: dict[str, Any]) -> tuple[str, str, list[str]]:
    """The command that makes the same frames again, its argument and its options."""
    prompt = metadata.get("caption") or metadata["prompt"]  # a caption is complete: it leaves nothing to the seed
    words = ["--prompt", prompt] if "source" in metadata else []
    words += ["--seconds", "forever"] if metadata.get("forever") else []
    for name in stored_flags():
        words += [f"--{name.replace('_', '-')}", str(metadata[name])] if metadata.get(name) is not None else []
    for name, option in registry.options().items():
        words += _flag(option.name, metadata.get(name))
    if "size" in metadata and "source" not in metadata:
        words += ["--fps", str(metadata["fps"])] if "fps" in metadata else []
    words += ["--reencode" if metadata["reencode"] else "--keep-latents"] if "reencode" in metadata else []
    words += [word for change in _changes(metadata) for word in ("--at", *change.split(": ", 1))]
    words += [word for file in metadata.get("lora", []) for word in ("--lora", file)]
    words += ["--only-new"] if metadata.get("only_new") else []
    own = [] if "source" in metadata else [name for name in ("warmup", "scale", "scale_filter") if name in metadata]
    words += [word for name in own for word in (f"--{name.replace('_', '-')}", str(metadata[name]))]
    words += ["--loop"] if metadata.get("loop") else []
    words += ["--compile"] if metadata.get("compile") else []
    if "source" in metadata:
        return "extend", metadata["source"], words
    return "generate", prompt, words


def _redo_row(record: dict[str, Any]) -> str:
    """What was made again, and all that differs from the rest of the video."""
    others = {name: value for name, value in record.items() if name not in ("source", "first", "end", "caption")}
    return f"frames {record['first']} to {record['end'] - 1} of {record['source']}, {_plain(others)}"


def _redo_command(record: dict[str, Any], metadata: dict[str, Any], rate: float) -> str:
    """The command line that makes the span again, of the video as it was before."""
    times = {"from": record["first"] / rate, "to": record["end"] / rate}
    words = [word for name, time in times.items() for word in (f"--{name}", f"{time:.9g}")]
    same = record["prompt"] == (metadata.get("caption") or metadata.get("prompt"))  # with its later prompts, if any
    named = {"seed": record["seed"]} | ({} if same else {"prompt": record.get("caption") or record["prompt"]})
    named |= {name: record[name] for name in ("device", "threads") if name in record}
    words += [word for name, value in named.items() for word in (f"--{name}", str(value))]
    return command_line(("pavdm", "redo"), record["source"], words)


def stored_flags() -> list[str]:
    """Metadata that a flag of the same name sets, for both commands."""
    from pavdm_cli.generation.config import GenerationConfig
    from pavdm_cli.models.execution import ExecutionConfig
    from pavdm_cli.runtime.untrusted import stored_kinds

    own_words = ("warmup", "reencode", "compile", "timeline", "forever", "loop")
    stored = [*stored_kinds(GenerationConfig), "model", *stored_kinds(ExecutionConfig)]
    return [*(name for name in stored if name not in own_words), "image", "size", "crf", "start", "audio"]


def _changes(metadata: dict[str, Any]) -> list[str]:
    """Later prompts, each with its time: as captions, which leave nothing to the seed."""
    from pavdm_cli.generation.timeline import PromptChange

    changes = metadata.get("timeline", [])
    return [str(PromptChange(one["at"], one.get("caption") or one["prompt"])) for one in changes]


def _flag(name: str, value: object) -> list[str]:
    """A model's own option as words of the command line; nothing where it was not given."""
    if isinstance(value, bool):
        return [f"--{name}"] * value
    return [] if value is None else [f"--{name}", str(value)]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)
