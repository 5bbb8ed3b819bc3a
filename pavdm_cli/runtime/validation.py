"""Checks of single values typed by a user."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from pavdm_cli.errors import UsageError

SCALARS = {str: "text", int: "an integer", float: "a number", bool: "True or False"}
SAMPLE_VALUES = {str: "'pa'", int: "12", float: "1.5", bool: "True"}


def check_text(subject: str, text: str) -> None:
    """Check that text is valid Unicode; a shell can pass any bytes. Raises: UsageError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{subject} is not UTF-8: {text!r}", "write it in UTF-8") from error


def check_name(option: str, name: str, choices: tuple[str, ...]) -> None:
    """Check that an option's value is one of its choices; the first is the default. Raises: UsageError."""
    if name not in choices:
        raise UsageError(f"{option} must be one of {', '.join(choices)}, got {name!r}", f"{choices[0]} is the default")


def check_types(values: Mapping[str, Any], dataclass_type: type) -> None:
    """Check values against the scalar fields of the same names in a dataclass. Raises: UsageError."""
    hints = get_type_hints(dataclass_type)
    for name in values.keys() & hints.keys():
        types, value = get_args(hints[name]) or (hints[name],), values[name]
        scalars = [kind for kind in types if kind in SCALARS]
        if not scalars or set(types) - {*scalars, type(None)} or (value is None and type(None) in types):
            continue
        if not any(_is_scalar(value, kind) for kind in scalars):
            kinds = " or ".join(SCALARS[kind] for kind in scalars)
            raise UsageError(
                f"{name} must be {kinds}, got {value!r}", f"for example {name}={SAMPLE_VALUES[scalars[0]]}"
            )


def _is_scalar(value: object, kind: type) -> bool:
    """Whether a value is of a scalar type; an integer is a number too, True is neither, and NaN is not a number."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)
