"""Where the value of an option is from: a flag, a `PAVDM_` environment variable, or a file (the highest counts)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer

from pavdm_cli import ui
from pavdm_cli.commands.option_values import Option, command_options, option_key, suggest_option
from pavdm_cli.errors import PavdmError, UsageError
from pavdm_cli.generation.timeline import split_changes

TOP_LEVEL_COMMANDS = ("generate", "extend", "batch")  # commands that top-level keys apply to
ALTERNATIVES = (("seconds", "frames"), ("at", "timeline"))  # mutually exclusive; the source with higher precedence wins
DISPLAY_OPTIONS = ("plan", "json", "quiet", "verbose")  # options that say what a command prints
PREFIX = "PAVDM_"
OTHER_VARIABLES = ("PAVDM_FFMPEG", "PAVDM_TRACEBACK", "PAVDM_BATCH_WORKER")
# Typer's parameter sources, lowest precedence first.
PRECEDENCE = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
ORIGINS = "pavdm.origins"  # key of the context's `meta`: a ValueOrigin for every parameter that is set by a file


@dataclass(frozen=True, slots=True)
class ValueOrigin:
    """The file and key that a value comes from."""

    path: Path
    key: str  # as the file has it


def command_path(context: typer.Context) -> tuple[str, ...]:
    """The words of the command: ("train", "denoiser")."""
    words: list[str] = []
    current: Any = context
    while current.parent is not None:
        words.insert(0, current.info_name)
        current = current.parent
    return tuple(words)


def variable_name(key: str, words: tuple[str, ...]) -> str:
    """The variable of an option: PAVDM_STEPS for commands that make videos, PAVDM_TRAIN_DENOISER_STEPS for others."""
    parts = ("pavdm", *(() if not words or words[0] in TOP_LEVEL_COMMANDS else words), key)
    return "_".join(parts).replace("-", "_").upper()


def set_variable_names(context: typer.Context) -> None:
    """Set the environment variable of every parameter."""
    parameters: list[Any] = context.command.params
    for parameter in parameters:
        parameter.envvar = variable_name(option_key(parameter), command_path(context))
        parameter.show_envvar = False  # the help of --config explains them all
        if parameter.name == "at":
            parameter.value_from_envvar = partial(_changes_from_variable, parameter)


def _changes_from_variable(parameter: Any, context: Any) -> list[str] | None:
    """The later prompts in a variable, which are not separated by spaces as other lists are."""
    text = parameter.resolve_envvar_value(context)
    return split_changes(text) if text else None


def resolve_exclusive_options(context: typer.Context) -> None:
    """Of mutually exclusive options, keep only those with the highest precedence."""
    for group in ALTERNATIVES:
        ranks = {name: PRECEDENCE.index(_source(context, name)) for name in group if name in context.params}
        for name, rank in ranks.items():
            if rank < max(ranks.values()):
                reset(context, name)


def reset(context: typer.Context, name: str) -> None:
    """Reset a parameter to its default."""
    context.params[name] = options_by_parameter(context)[name].parameter.default
    sources: Any = type(context.get_parameter_source(name))
    context.set_parameter_source(name, sources.DEFAULT)


def options_by_parameter(context: typer.Context) -> dict[str, Option]:
    """The command's options, by parameter."""
    return {option.name: option for option in command_options(context.command).values()}


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source and source.name in PRECEDENCE else "DEFAULT"


def value_source(context: typer.Context, parameter: Any) -> str:
    """The flag, variable or file that set a parameter; empty for a default."""
    source = _source(context, parameter.name)
    if source == "DEFAULT_MAP":
        return str(context.meta[ORIGINS][parameter.name].path)
    flag = max(parameter.opts, key=len)
    flag = flag if flag.startswith("-") else "command line"  # an argument
    return {"COMMANDLINE": flag, "ENVIRONMENT": parameter.envvar or "", "DEFAULT": ""}[source]


def option_sources(context: typer.Context) -> dict[str, tuple[Any, str]]:
    """The value of every option that is set, and the flag, the variable or the file that it is from, by key."""
    options = command_options(context.command)
    sources = {key: value_source(context, option.parameter) for key, option in options.items()}
    sources = {key: source for key, source in sources.items() if source and key not in DISPLAY_OPTIONS}
    return {key: (context.params[options[key].name], source) for key, source in sources.items()}


def is_on_command_line(context: typer.Context, option: Option) -> bool:
    """Whether an option is on the command line."""
    return _source(context, option.name) == "COMMANDLINE"


def is_from_file_or_variable(context: typer.Context, name: str) -> bool:
    """Whether a parameter is set, but not on the command line."""
    return _source(context, name) in ("ENVIRONMENT", "DEFAULT_MAP")


def add_source(error: PavdmError, context: typer.Context) -> None:
    """Prefix an error with the file or variable that set the invalid value."""
    for key, option in command_options(context.command).items():
        flag, place = f"--{key.replace('_', '-')}", value_source(context, option.parameter)
        pattern = rf"(?<![\w-]){re.escape(flag)}(?![\w-])"
        is_number = option.type in (int, float)  # messages may name numbers without dashes: "steps must be positive"
        text = f"{error.message} {error.hint}"
        if is_from_file_or_variable(context, option.name) and (
            re.search(pattern, text) or (is_number and re.search(rf"\b{key}\b", error.message))
        ):
            is_file = _source(context, option.name) == "DEFAULT_MAP"
            message = re.sub(pattern, flag[2:], error.message) if is_file else error.message
            error.message = f"{place}: {message}"
            return


def error_with_source(message: str, parameter: Any, context: typer.Context) -> UsageError | None:
    """A UsageError for an invalid value from a variable or file; None for the command line."""
    if parameter is None or not is_from_file_or_variable(context, parameter.name):
        return None
    is_file = _source(context, parameter.name) == "DEFAULT_MAP"
    key = f": {context.meta[ORIGINS][parameter.name].key}" if is_file else ""
    hint = f"`{context.command_path} --help` lists the options"
    return UsageError(f"{value_source(context, parameter)}{key}: {message}", hint)


def warn_unknown_variables(root: Any) -> None:
    """Warn about PAVDM_ variables that no command reads, such as misspelled ones."""
    variables = [name for name in os.environ if name.startswith(PREFIX) and os.environ[name]]
    known_names = {*OTHER_VARIABLES, *_variables(root)} if variables else set()
    for name in sorted({*variables} - known_names):
        word = suggest_option(name.removeprefix(PREFIX), (known.removeprefix(PREFIX) for known in known_names))
        word = word.replace("did you mean ", f"did you mean {PREFIX}")
        ui.note(f"{name} does not set any option of pavdm{f': {word}' if word else ''}")


def _variables(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    for name, below in getattr(command, "commands", {}).items():
        yield from _variables(below, (*words, name))
    if words:
        yield from (variable_name(option_key(parameter), words) for parameter in command.params)
