"""Command lines that are parsed and not run, and a value for any option."""

from __future__ import annotations

from typing import Any, Literal, get_origin

import typer

from pavdm_cli.app import app
from pavdm_cli.commands.option_values import Option

ROOT = typer.main.get_command(app)


def parsed(command: str, *words: str) -> Any:
    """The context of a command line."""
    root = ROOT.make_context("pavdm", [command])
    return ROOT.commands[command].make_context(command, list(words), parent=root)


def as_text(option: Option, values: list[Any]) -> str:
    """A list as it is written in a variable or a cell."""
    return ("; " if option.is_timeline else " ").join(map(str, values))


def sample(option: Option) -> Any:
    """A value that an option takes."""
    if get_origin(option.type) is Literal:
        return option.choices[-1]
    if option.is_timeline:
        return ["1s: a/b.c", "2s: a"]
    value = {bool: True, int: max(1, int(max(option.minimum, 0))), float: 0.5}.get(option.type, "a/b.c")
    return [value, value] if option.is_list else value
