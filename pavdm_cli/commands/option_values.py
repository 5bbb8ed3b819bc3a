"""Describes a command's options as data, and validates values from files."""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from typer.models import ParameterInfo

from pavdm_cli.generation.option_names import nearest_option
from pavdm_cli.generation.timeline import is_time
from pavdm_cli.runtime.untrusted import FLAG, Kind, one_of, summarize

MAX_TEXT = 100_000  # characters
NOT_IN_FILES = ("config",)  # the option that names the file


@dataclass(frozen=True, slots=True)
class Option:
    """An option or an argument of a command, with the type that its function declares."""

    parameter: Any  # Typer's
    type: Any  # of one value: bool, int, float, str, Path or a Literal
    is_list: bool
    minimum: float = -math.inf
    maximum: float = math.inf
    words: tuple[str, ...] = ()  # strings accepted instead of a number, such as "forever"
    is_time: bool = False  # whether strings such as "1:30" are accepted instead of a number

    @property
    def name(self) -> str:
        """The parameter of the function."""
        return str(self.parameter.name)

    @property
    def is_timeline(self) -> bool:
        """Whether its values are prompts with their times, which are separated by semicolons in text."""
        return self.name == "at"

    @property
    def choices(self) -> tuple[Any, ...]:
        """The allowed values; empty if unrestricted."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def kind(self) -> Kind:
        """The kind of its values, or of a list's items."""
        if self.choices:
            return one_of(*self.choices)
        if self.type is bool:
            return FLAG
        return _number(self) if self.type in (int, float) else TEXT


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A validated value, or an error message."""

    value: Any
    error: str = ""


def command_options(command: Any) -> dict[str, Option]:
    """A command's options by key: the long option with underscores, or an argument's name."""
    hints = get_type_hints(command.callback, include_extras=True)
    parameters = [
        parameter for parameter in command.params if parameter.name in hints and parameter.name not in NOT_IN_FILES
    ]
    return {option_key(parameter): _option(parameter, hints[parameter.name]) for parameter in parameters}


def option_key(parameter: Any) -> str:
    """context_cache for --context-cache; reencode for --reencode/--no-reencode."""
    return str(max(parameter.opts, key=len)).lstrip("-").replace("-", "_")


def check_value(option: Option, value: Any) -> CheckResult:
    """Validate a value from a file; true and false are accepted for on and off."""
    if type(value) is bool and {"on", "off"} <= {*option.choices}:
        value = "on" if value else "off"
    if option.is_timeline and type(value) is dict and all(type(prompt) is str for prompt in value.values()):
        value = [f"{time}: {prompt}" for time, prompt in value.items()]
    kind, values = option.kind, value if option.is_list and type(value) is list else [value]
    wrong = [item for item in values if not kind.fits(item)]
    if wrong:
        return CheckResult(
            value, f"{summarize(wrong[0])}, not {kind.description}{' or a list of them' * option.is_list}"
        )
    return CheckResult(values if option.is_list else value)


def split_annotation(hint: Any) -> tuple[Any, ParameterInfo | None]:
    """The type of an annotated parameter, and Typer's description of it, if any."""
    value, *details = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
    return value, next((detail for detail in details if isinstance(detail, ParameterInfo)), None)


def suggest_name(word: object, names: Iterable[str]) -> str:
    """'did you mean steps?', for the closest name; empty if none is close."""
    close = difflib.get_close_matches(str(word)[:100], list(map(str, names)), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def suggest_option(word: object, names: Iterable[str]) -> str:
    """Like `suggest_name`, for the name of an option; also knows names that other programs use."""
    name = nearest_option(word, names)
    return f"did you mean {name}?" if name else ""


def _option(parameter: Any, hint: Any) -> Option:
    value, info = split_annotation(hint)
    if get_origin(value) in (Union, types.UnionType):
        value = next(member for member in get_args(value) if member is not types.NoneType)
    is_list = get_origin(value) is list
    minimum, maximum = getattr(info, "min", None), getattr(info, "max", None)
    bounds = -math.inf if minimum is None else minimum, math.inf if maximum is None else maximum
    metavar = getattr(info, "metavar", None) or ""  # as in TIME|forever
    words, is_time = tuple(re.findall(r"\|([a-z]+)", metavar)), value is float and metavar.startswith("TIME")
    return Option(parameter, get_args(value)[0] if is_list else value, is_list, *bounds, words, is_time)


def _number(option: Option) -> Kind:
    is_integer, minimum, maximum = option.type is int, option.minimum, option.maximum
    description = "an integer" if is_integer else "a number or a time" if option.is_time else "a number"
    if minimum > -math.inf:
        description += f" from {minimum:g}" if maximum == math.inf else f" from {minimum:g} to {maximum:g}"
    description += "".join(f" or {word}" for word in option.words)
    types_ = (int,) if is_integer else (int, float)

    def fits(value: Any) -> bool:
        fitting = type(value) in types_ and minimum <= value <= maximum and abs(value) < math.inf
        is_text = type(value) is str and (value in option.words or (option.is_time and is_time(value)))
        return fitting or is_text

    return Kind(description, fits)


TEXT = Kind("a string", lambda value: type(value) is str and len(value) <= MAX_TEXT and "\0" not in value)
