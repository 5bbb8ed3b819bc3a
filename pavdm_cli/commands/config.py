"""Option values from `PAVDM_` environment variables, `--config FILE`, ./pavdm.toml and the user's file.

Earlier sources override later ones; all override a command's defaults and the model card. Typer reads the variables and
the merged files (its `default_map`); this module finds, checks and merges the files, and says where a value is from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from platformdirs import user_config_path

from pavdm_cli import ui
from pavdm_cli.commands.config_file import read_config
from pavdm_cli.commands.option_values import Option, check_value, command_options, option_key, suggest_name
from pavdm_cli.errors import PavdmError, UsageError

PROJECT_FILE = Path("pavdm.toml")
COMMON = ("generate", "extend", "batch")  # commands that top-level keys apply to
ALTERNATIVES = (("seconds", "frames"), ("at", "timeline"))  # mutually exclusive; the source with higher precedence wins
DISPLAY_OPTIONS = ("plan", "json", "quiet", "verbose")  # options that say what a command prints
OTHER_VARIABLES = ("PAVDM_FFMPEG", "PAVDM_TRACEBACK", "PAVDM_BATCH_WORKER")
RANKS = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")  # Typer's parameter sources, lowest precedence first
MAX_MISTAKES = 5  # of a file, in one message
_ORIGINS = "pavdm.origins"


@dataclass(frozen=True, slots=True)
class ValueOrigin:
    """The file and key that a value comes from."""

    path: Path
    key: str  # as the file has it


def user_file() -> Path:
    """The user's own configuration file."""
    return user_config_path("pavdm", appauthor=False) / "config.toml"


def load_config_files(context: typer.Context, path: Path | None) -> Path | None:
    """The callback of --config: the files become the command's `default_map`. Raises: UsageError."""
    standard = [file for file in (user_file(), PROJECT_FILE) if os.path.lexists(file)]
    values: dict[str, Any] = {}
    origins: dict[str, ValueOrigin] = {}
    for file in [*standard, *([path] if path else [])]:
        for section in _sections_or_note(context, file) if file != path else _sections_for(context, file):
            for other in {other for name in section for other in _exclusive_options(name)} - section.keys():
                values.pop(other, None)
            values |= {name: value for name, (value, _) in section.items()}
            origins |= {name: ValueOrigin(file, key) for name, (_, key) in section.items()}
    context.default_map, context.meta[_ORIGINS] = values, origins
    return path


def _sections_or_note(context: typer.Context, file: Path) -> list[dict[str, tuple[Any, str]]]:
    """As `_sections_for`, of a file that every command reads: where it has nothing for one, mistakes are only noted."""
    words = command_path(context)
    try:
        return [*_sections_for(context, file)]
    except UsageError as error:
        if words[0] in COMMON or _has_section(file, words[0]):
            raise
        ui.note(f"{file.name} is ignored: {error.as_line()}")
        return []


def _has_section(file: Path, word: str) -> bool:
    """Whether a readable file has a section of this command."""
    try:
        return isinstance(read_config(file).get(word), dict)
    except UsageError:
        return False


def _sections_for(context: typer.Context, file: Path) -> Iterator[dict[str, tuple[Any, str]]]:
    """A file's values for this command, lowest precedence first: {parameter: (value, key)}."""
    words, own = command_path(context), command_options(context.command)
    sections = checked_sections(read_config(file), context.find_root().command, file)
    for section in ((), words):
        if section or words[0] in COMMON:
            values = sections.get(section, {})
            keys = {key: own.get(key.replace("-", "_")) for key in values}
            yield {one.name: (check_value(one, values[key]).value, key) for key, one in keys.items() if one}


def _exclusive_options(name: str) -> set[str]:
    """Options that exclude this one."""
    return {other for group in ALTERNATIVES if name in group for other in group if other != name}


def checked_sections(values: Mapping[str, Any], command: Any, file: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """The keys of every section, by the words of its command.

    Raises: UsageError with all unknown keys and invalid values.
    """
    errors = [*_section_errors(values, command)]
    if len(errors) == 1:
        raise UsageError(f"{file}: {errors[0].message}", errors[0].hint)
    if errors:
        hint = "; ".join(dict.fromkeys(error.hint for error in errors[:MAX_MISTAKES]))
        lines = "; ".join(error.message for error in errors[:MAX_MISTAKES])
        more = f" and {len(errors) - MAX_MISTAKES} more" if len(errors) > MAX_MISTAKES else ""
        raise UsageError(f"{file} has {len(errors)} mistakes: {lines}{more}", hint)
    return dict(_sections(values, command))


def _tables(values: Mapping[str, Any], command: Any) -> dict[str, dict[str, Any]]:
    """The sections in a section: those of subcommands."""
    commands = getattr(command, "commands", {})
    return {key: value for key, value in values.items() if key in commands and isinstance(value, dict)}


def _sections(
    values: Mapping[str, Any], command: Any, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    tables = _tables(values, command)
    yield words, {key: value for key, value in values.items() if key not in tables}
    for key, inner in tables.items():
        yield from _sections(inner, command.commands[key], (*words, key))


def _section_errors(values: Mapping[str, Any], command: Any, words: tuple[str, ...] = ()) -> Iterator[UsageError]:
    """Every mistake in a section and those below it."""
    tables, known = _tables(values, command), _options(command, words)
    place = f"[{'.'.join(words)}] " if words else ""
    hint = f"`{' '.join(('pavdm', *(words or COMMON[:1])))} --help` lists the options"
    names = (*(name.replace("_", "-") for name in known), *getattr(command, "commands", {}))
    for key, value in values.items():
        option = known.get(key.replace("-", "_")) if isinstance(key, str) else None
        if key in tables:
            yield from _section_errors(tables[key], command.commands[key], (*words, key))
        elif option is None:
            what = f"section {key!r}" if isinstance(value, dict) else f"option {key!r}"
            yield UsageError(f"{place}unknown {what}", suggest_name(key, names) or hint)
        elif error := check_value(option, value).error:
            yield UsageError(f"{place}{key} is {error}", suggest_name(value, option.choices) or hint)


def _options(command: Any, words: tuple[str, ...]) -> dict[str, Option]:
    """The valid options of a section; top-level keys may be options of any command in COMMON."""
    if words:
        return {} if hasattr(command, "commands") else command_options(command)
    shared = [command_options(command.commands[name]) for name in reversed(COMMON) if name in command.commands]
    return {key: option for options in shared for key, option in options.items()}


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
    parts = ("pavdm", *(() if not words or words[0] in COMMON else words), key)
    return "_".join(parts).replace("-", "_").upper()


def set_variable_names(context: typer.Context) -> None:
    """Set the environment variable of every parameter."""
    parameters: list[Any] = context.command.params
    for parameter in parameters:
        parameter.envvar = variable_name(option_key(parameter), command_path(context))
        parameter.show_envvar = False  # the help of --config explains them all


def resolve_exclusive_options(context: typer.Context) -> None:
    """Of mutually exclusive options, keep only those with the highest precedence."""
    for group in ALTERNATIVES:
        ranks = {name: RANKS.index(_source(context, name)) for name in group if name in context.params}
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
    return source.name if source and source.name in RANKS else "DEFAULT"


def value_source(context: typer.Context, parameter: Any) -> str:
    """The flag, variable or file that set a parameter; empty for a default."""
    source = _source(context, parameter.name)
    if source == "DEFAULT_MAP":
        return str(context.meta[_ORIGINS][parameter.name].path)
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
    key = f": {context.meta[_ORIGINS][parameter.name].key}" if is_file else ""
    hint = f"`{context.command_path} --help` lists the options"
    return UsageError(f"{value_source(context, parameter)}{key}: {message}", hint)


def warn_unknown_variables(root: Any) -> None:
    """Warn about PAVDM_ variables that no command reads, such as misspelled ones."""
    variables = [name for name in os.environ if name.startswith("PAVDM_") and os.environ[name]]
    known = {*OTHER_VARIABLES, *_variables(root)} if variables else set()
    for name in sorted({*variables} - known):
        word = suggest_name(name, known)
        ui.note(f"{name} does not set any option of pavdm{f': {word}' if word else ''}")


def _variables(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    for name, below in getattr(command, "commands", {}).items():
        yield from _variables(below, (*words, name))
    if words:
        yield from (variable_name(option_key(parameter), words) for parameter in command.params)
