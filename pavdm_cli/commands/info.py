"""`pavdm info`: a video's properties, its generation parameters and the command that reproduces it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pavdm_cli.commands import output_options
from pavdm_cli.commands.option_sources import is_on_command_line
from pavdm_cli.commands.option_values import command_options
from pavdm_cli.errors import InputError, UsageError
from pavdm_cli.generation.timeline import format_seconds
from pavdm_cli.models import registry
from pavdm_cli.runtime.printable import command_line, printable, quote

if TYPE_CHECKING:
    from pavdm_cli.video import VideoInfo


def info(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any video file.")],
    as_json: output_options.Json = False,
    config: Annotated[
        bool, typer.Option("--config", help="Print a configuration file that reproduces the video.")
    ] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet, 24 frames at equal intervals, to this .png file.")
    ] = None,
) -> None:
    """Show a video's size, length, codecs and tracks, and its generation parameters if pavdm made it.

    The parameters are prompt, seed, weights, versions and settings, and the command that reproduces the video. With
    --config they are printed as TOML: `pavdm info --config boat.mp4 > boat.toml`, then `pavdm generate --config
    boat.toml`.
    """
    from pavdm_cli import ui
    from pavdm_cli.generation.metadata import first_lines, valid_fields
    from pavdm_cli.video import read_metadata
    from pavdm_cli.video.io.summary import describe_video, summary_rows

    if config and as_json:
        raise UsageError("--config and --json cannot be combined", "use only one of them")
    file, video = _open(file, sheet)
    metadata, errors = valid_fields(read_metadata(file) or {})
    if "prompt" not in metadata:
        metadata, errors = {}, []
    for line in first_lines(errors):
        ui.note(f"damaged metadata is ignored: {line}")
    if config:
        return _print_config(ctx, video, metadata)
    facts, num_missing = describe_video(video), count_missing(file, metadata, video.frames)
    is_complete = not num_missing and not (metadata.get("forever") and "frames" not in metadata)
    if as_json:
        completeness = {"frames_in_file": video.frames, "complete": is_complete} if metadata else {}
        print(json.dumps(metadata | completeness | {"file": facts}))
        return
    lines = align_rows(summary_rows(facts))
    if metadata:
        rows = _metadata_rows(file, metadata, video, None if is_complete else num_missing)
        lines = [
            *align_rows([(name, _plain(value)) for name, value in rows.items()]),
            "",
            *lines,
            "",
            command(metadata, _original_output(metadata)),
        ]
        lines += _redo_commands(metadata, video)
    ui.print_lines(lines)


def _open(file: Path, sheet: Path | None) -> tuple[Path, VideoInfo]:
    """The file that exists and its video, of which a contact sheet is written if there is to be one."""
    from pavdm_cli import ui
    from pavdm_cli.video import open_video
    from pavdm_cli.video.contact_sheet import check_sheet, write_video_sheet

    if sheet:
        check_sheet(sheet)
    file = _find_partial(file)
    video = open_video(file)
    if sheet:
        write_video_sheet(sheet, video)
        ui.info(f"contact sheet: {sheet}")
    return file, video


def _find_partial(file: Path) -> Path:
    """The file, or what an interrupted run left of it. Raises: InputError if that has no frames yet."""
    from pavdm_cli import ui
    from pavdm_cli.video import partial_path
    from pavdm_cli.video.paths import checkpoint_path, is_checkpoint

    partial = file.with_suffix("") if is_checkpoint(file) else partial_path(file)
    if not partial.exists() or (file.exists() and not is_checkpoint(file)):
        return file
    if not partial.stat().st_size and checkpoint_path(partial).exists():
        resume = command_line(("pavdm", "resume"), str(file))
        raise InputError(f"{file} was interrupted before its first frame", f"`{resume}` continues it")
    ui.note(f"{file} is not complete: this is {partial}")
    return partial


def _metadata_rows(file: Path, metadata: dict[str, Any], video: VideoInfo, num_missing: int | None) -> dict[str, Any]:
    """The generation parameters as they are shown; num_missing: frames, None of a complete video."""
    from pavdm_cli.generation.prompt_ranges import prompt_ranges

    metadata_rows = dict(metadata)
    if "source" in metadata and "fps" in metadata:
        metadata_rows["fps"] = f"{metadata['fps']}, of the model"
    if num_missing is not None:
        metadata_rows["frames"] = _frames_row(file, metadata, video.frames, num_missing)
    elif "source" in metadata and "frames" in metadata:
        metadata_rows["frames"] = f"{metadata['frames']} added, at {float(video.rate):.6g} fps"
    metadata_rows |= {"timeline": "; ".join(_changes(metadata))} if "timeline" in metadata else {}
    if "prompt_ranges" in metadata:
        metadata_rows["prompt_ranges"] = "; ".join(map(str, prompt_ranges(metadata)))
    metadata_rows |= {"redo": "; ".join(map(_redo_row, metadata["redo"]))} if "redo" in metadata else {}
    return metadata_rows


def _frames_row(file: Path, metadata: dict[str, Any], frames_in_file: int, num_missing: int) -> str:
    from pavdm_cli.video import is_being_written

    state = (
        "still being written"
        if is_being_written(file)
        else describe_interruption(file, frames_in_file, num_missing, metadata.get("copied", 0))
    )
    return (
        f"{frames_in_file} of {frames_in_file + num_missing}, {state}"
        if num_missing
        else f"{frames_in_file} so far, {state}"
    )


def count_missing(file: Path, metadata: dict[str, Any], frames_in_file: int) -> int:
    """Number of missing frames of an interrupted file; unknown (0) for a complete continuation."""
    if "frames" not in metadata:
        return 0
    if "source" in metadata and not file.stem.endswith(".partial"):  # damaged frames of its source are left out
        return 0
    return max(0, int(metadata.get("copied", 0) + metadata["frames"]) - frames_in_file)


def describe_interruption(file: Path, frames_in_file: int, num_missing: int, num_copied: int) -> str:
    """How to continue an incomplete video."""
    from pavdm_cli.video.paths import checkpoint_path

    if checkpoint_path(file).exists():
        return f"interrupted; `{command_line(('pavdm', 'resume'), str(file))}` continues it"
    if frames_in_file < num_copied:
        return "interrupted before any new frame; the command below starts over"
    length = ("--frames", str(num_missing)) if num_missing else ("--seconds", "forever")
    return f"interrupted; `{command_line(('pavdm', 'extend'), str(file), length)}` continues it"


def align_rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    """One line per row, with aligned values."""
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _print_config(ctx: typer.Context, video: VideoInfo, metadata: dict[str, Any]) -> None:
    """A configuration file with the options of the command that makes a video again. Raises: InputError."""
    from pavdm_cli.commands.config_file import to_toml

    if not metadata:
        raise InputError(
            f"{video.path} does not say how it was made", "only videos generated by pavdm can be reproduced"
        )
    verb, argument, words = reproducing_command(metadata)
    typer_command = ctx.find_root().command.commands[verb]  # type: ignore[attr-defined]
    context = typer_command.make_context(verb, [*words, "--", argument], parent=ctx.parent, resilient_parsing=True)
    values = {
        key: context.params[option.name]
        for key, option in command_options(typer_command).items()
        if is_on_command_line(context, option)
    }
    redo_commands, name = _redo_commands(metadata, video), printable(video.path.name)
    result = f"makes the original of {name}; then run:" if redo_commands else f"makes {name} again."
    output = "".join(f" {quote(word)}" for word in _original_output(metadata))
    print(f"# `pavdm {verb} --config THIS_FILE{output}` {result}")
    for line in redo_commands:
        print(f"# {line}")
    print(to_toml(values), end="")


def command(metadata: dict[str, Any], output: Sequence[str] = ()) -> str:
    """The command line that makes the same frames again, on the same machine, versions and threads.

    output: more options, which say where the frames go.
    """
    verb, argument, words = reproducing_command(metadata)
    return command_line(("pavdm", verb), argument, [*words, *output])


def _original_output(metadata: dict[str, Any]) -> list[str]:
    """The option that writes a redone video's original where its redo command reads it."""
    records = metadata.get("redo", [])
    return ["-o", records[0]["source"]] if records else []


def reproducing_command(metadata: dict[str, Any]) -> tuple[str, str, list[str]]:
    """The command that makes the same frames again, its argument and its options."""
    prompt = metadata.get("caption") or metadata["prompt"]  # a caption is complete, so nothing is sampled from the seed
    words = ["--prompt", prompt] if "source" in metadata else []
    words += ["--seconds", "forever"] if metadata.get("forever") else []
    for name in stored_flags():
        words += [f"--{name.replace('_', '-')}", str(metadata[name])] if metadata.get(name) is not None else []
    for name, option in registry.options().items():
        words += _flag_args(option.name, metadata.get(name))
    words += ["--fps", str(metadata["fps"])] if {"size", "fps"} <= metadata.keys() else []
    words += ["--reencode" if metadata["reencode"] else "--no-reencode"] if "reencode" in metadata else []
    words += [word for change in _changes(metadata) for word in ("--at", *change.split(": ", 1))]
    words += [word for file in metadata.get("lora", []) for word in ("--lora", file)]
    words += ["--only-new"] if metadata.get("only_new") else []
    names = [] if "source" in metadata else [name for name in ("warmup", "scale", "scale_filter") if name in metadata]
    words += [word for name in names for word in (f"--{name.replace('_', '-')}", str(metadata[name]))]
    words += ["--loop"] if metadata.get("loop") else []
    words += ["--compile"] if metadata.get("compile") else []
    words += ["--keep-state"] if any(record.get("stored_latents") for record in metadata.get("redo", [])) else []
    if "source" in metadata:
        return "extend", metadata["source"], words
    return "generate", prompt, words


def _redo_row(record: dict[str, Any]) -> str:
    """A redo record as one line."""
    omitted = ("source", "first", "end", "new_end", "caption", "timeline")
    fields = {name: value for name, value in record.items() if name not in omitted}
    return f"frames {record['first']} to {record['end'] - 1} of {record['source']}, {_plain(fields)}"


def _redo_commands(metadata: dict[str, Any], video: VideoInfo) -> list[str]:
    """The `redo` commands that reproduce the regenerated spans, in order."""
    times = [time - video.start for time in [*video.times, video.end]]
    records = metadata.get("redo", [])
    outputs = [*(record["source"] for record in records[1:]), ""]  # each writes the file that the next one reads
    return [redo_command(record, metadata, times, output) for record, output in zip(records, outputs, strict=False)]


def redo_command(record: dict[str, Any], metadata: dict[str, Any], times: list[Fraction], output: str = "") -> str:
    """The `redo` command that reproduces a span; times: of all frames, and the end; output: a later redo's source.

    Rounded to whole microseconds within the span, so that it does not reach into the segments around it.
    """
    frames = record["first"], record.get("new_end", record["end"])
    first, end = (times[min(frame, len(times) - 1)] * 10**6 for frame in frames)
    words = ["--from", format_seconds(math.ceil(first) / 10**6), "--to", format_seconds(math.floor(end) / 10**6)]
    is_same = record["prompt"] == (metadata.get("caption") or metadata.get("prompt"))  # with its later prompts, if any
    flag_values = {"seed": record["seed"]}
    if not is_same or record.get("timeline") == []:  # empty where a prompt replaced all of the original
        flag_values["prompt"] = record.get("caption") or record["prompt"]
    flag_values |= {name: record[name] for name in ("device", "threads") if name in record}
    words += [word for name, value in flag_values.items() for word in (f"--{name}", str(value))]
    words += ["-o", output] if output else []
    words += ["--force"] if output == record["source"] else []
    return command_line(("pavdm", "redo"), record["source"], words)


def stored_flags() -> list[str]:
    """Metadata fields that are flags of both `generate` and `extend`."""
    from pavdm_cli.generation.config import GenerationConfig
    from pavdm_cli.models.execution import ExecutionConfig
    from pavdm_cli.runtime.untrusted import stored_kinds

    own_words = ("warmup", "reencode", "compile", "timeline", "forever", "loop")
    names = [*stored_kinds(GenerationConfig), "model", *stored_kinds(ExecutionConfig)]
    return [*(name for name in names if name not in own_words), "image", "size", "crf", "start", "audio"]


def _changes(metadata: dict[str, Any]) -> list[str]:
    """Later prompts, each with its time: as captions, which leave nothing to the seed."""
    from pavdm_cli.generation.timeline import PromptChange

    changes = metadata.get("timeline", [])
    return [str(PromptChange(change["at"], change.get("caption") or change["prompt"])) for change in changes]


def _flag_args(name: str, value: object) -> list[str]:
    """A model's own option as words of the command line; empty if it was not set."""
    if isinstance(value, bool):
        return [f"--{name}"] * value
    return [] if value is None else [f"--{name}", str(value)]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)
