"""Changes the signatures of command functions, from which Typer builds their command lines."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from copy import copy
from pathlib import Path
from typing import Annotated, Any, get_args

from typer.models import OptionInfo

from pavdm_cli.commands.option_values import split_annotation
from pavdm_cli.errors import UsageError


def with_signature(
    function: Callable[..., Any], parameters: Iterable[inspect.Parameter], hints: dict[str, Any]
) -> Callable[..., Any]:
    """Set the parameters and annotations of a function, from which Typer builds its command line."""
    with_hints = [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters]
    function.__signature__ = inspect.Signature(with_hints)  # type: ignore[attr-defined]
    function.__annotations__ = hints
    return function


def with_path_check(name: str, hint: Any) -> Any:
    """Make path parameters reject an empty path."""
    value, info = split_annotation(hint)
    if info is None or Path not in {value, *get_args(value)}:
        return hint
    info = copy(info)
    if isinstance(info, OptionInfo):
        long = [word for word in info.param_decls or () if word.startswith("--")]
        info.parser = path_parser((*long, f"--{name.replace('_', '-')}")[0])
        info.metavar = info.metavar or "<path>"
    else:
        info.parser = path_parser(info.metavar or name.upper())
    return Annotated[value, info]


def path_parser(option: str) -> Callable[[str | Path], Path]:
    """A path parser that rejects "", as from an unset shell variable, which `Path` would read as the current folder."""

    def path(text: str | Path) -> Path:
        if not str(text):
            raise UsageError(f"{option} must not be an empty path", "give a file or folder; . is the current folder")
        return Path(text)

    return path
