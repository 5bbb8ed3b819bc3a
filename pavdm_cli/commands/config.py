"""Configuration files: `--config FILE`, ./pavdm.toml and the user's file are found, checked and merged.

Earlier ones override later ones. The result is Typer's `default_map`, which flags and variables override.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from platformdirs import user_config_path

from pavdm_cli import ui
from pavdm_cli.commands.config_file import read_config
from pavdm_cli.commands.option_sources import ALTERNATIVES, ORIGINS, TOP_LEVEL_COMMANDS, ValueOrigin, command_path
from pavdm_cli.commands.option_values import Option, check_value, command_options, suggest_name, suggest_option
from pavdm_cli.errors import UsageError

PROJECT_FILE = Path("pavdm.toml")
MAX_MISTAKES = 5  # of a file, in one message


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
            for excluded in {excluded for name in section for excluded in _exclusive_options(name)} - section.keys():
                values.pop(excluded, None)
            values |= {name: value for name, (value, _) in section.items()}
            origins |= {name: ValueOrigin(file, key) for name, (_, key) in section.items()}
    context.default_map, context.meta[ORIGINS] = values, origins
    return path


def _sections_or_note(context: typer.Context, file: Path) -> list[dict[str, tuple[Any, str]]]:
    """Like `_sections_for`, but mistakes are notes if a shared file has nothing for this command."""
    words = command_path(context)
    try:
        return [*_sections_for(context, file)]
    except UsageError as error:
        if words[0] in TOP_LEVEL_COMMANDS or _has_section(file, words[0]):
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
    words, options = command_path(context), command_options(context.command)
    sections = checked_sections(read_config(file), context.find_root().command, file)
    for section in ((), words):
        if section or words[0] in TOP_LEVEL_COMMANDS:
            values = sections.get(section, {})
            keys = {key: options.get(key.replace("-", "_")) for key in values}
            yield {option.name: (check_value(option, values[key]).value, key) for key, option in keys.items() if option}


def _exclusive_options(name: str) -> set[str]:
    """Options that exclude this one."""
    return {alternative for group in ALTERNATIVES if name in group for alternative in group if alternative != name}


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
        remainder = f" and {len(errors) - MAX_MISTAKES} more" if len(errors) > MAX_MISTAKES else ""
        raise UsageError(f"{file} has {len(errors)} mistakes: {lines}{remainder}", hint)
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
    tables, options = _tables(values, command), _options(command, words)
    place = f"[{'.'.join(words)}] " if words else ""
    hint = f"`{' '.join(('pavdm', *(words or TOP_LEVEL_COMMANDS[:1])))} --help` lists the options"
    names = (*(name.replace("_", "-") for name in options), *getattr(command, "commands", {}))
    for key, value in values.items():
        option = options.get(key.replace("-", "_")) if isinstance(key, str) else None
        if key in tables:
            yield from _section_errors(tables[key], command.commands[key], (*words, key))
        elif option is None:
            entry = f"section {key!r}" if isinstance(value, dict) else f"option {key!r}"
            yield UsageError(f"{place}unknown {entry}", suggest_option(key, names) or hint)
        elif error := check_value(option, value).error:
            yield UsageError(f"{place}{key} is {error}", suggest_name(value, option.choices) or hint)


def _options(command: Any, words: tuple[str, ...]) -> dict[str, Option]:
    """The valid options of a section; top-level keys may be options of any command in TOP_LEVEL_COMMANDS."""
    if words:
        return {} if hasattr(command, "commands") else command_options(command)
    common_options = [
        command_options(command.commands[name]) for name in reversed(TOP_LEVEL_COMMANDS) if name in command.commands
    ]
    return {key: option for options in common_options for key, option in options.items()}
