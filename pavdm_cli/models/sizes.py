"""Sizes that a published configuration gives: numbers within reason, else one clear line before anything is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pavdm_cli.errors import ModelError

Limits = Mapping[str, tuple[int, int]]  # the least and the most of every whole number
HINT = "is it cut short, or another model's?"


def check_whole(what: str, given: Mapping[str, Any], limits: Limits) -> None:
    """Refuse what is no whole number within its limits; names without limits are not looked at. Raises: ModelError."""
    pairs = [(name, value, limits[name]) for name, value in given.items() if name in limits]
    wrong = [f"{name} is {shown(value)}, not {_range(*limit)}" for name, value, limit in pairs if not _is(value, limit)]
    if wrong:
        raise ModelError(f"{what} makes no sense: {', '.join(wrong[:5])}", HINT)


def check_number(what: str, name: str, value: object, most: float) -> None:
    """Refuse what is no number above zero and up to a limit. Raises: ModelError."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 < number <= most:
        raise ModelError(f"{what} makes no sense: {name} is {shown(value)}, not above 0 and up to {most:g}", HINT)


def shown(value: object) -> str:
    """A value of any kind, in a few letters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _is(value: object, limit: tuple[int, int]) -> bool:
    return type(value) is int and limit[0] <= value <= limit[1]  # True is an int too


def _range(least: int, most: int) -> str:
    return f"{least}" if least == most else f"a whole number from {least} to {most}"
