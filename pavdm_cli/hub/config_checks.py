"""Sizes that a published configuration gives: numbers within reason, else one clear line before anything is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pavdm_cli.errors import ModelError
from pavdm_cli.runtime.untrusted import integer, mismatches, summarize

Limits = Mapping[str, tuple[int, int]]  # the least and the most of every whole number
HINT = "is it cut short, or another model's?"


def within(card: Mapping[str, int], times: int = 8) -> dict[str, tuple[int, int]]:
    """Limits of sizes: from 1 to so many times those of the model's card."""
    return {name: (1, times * size) for name, size in card.items()}


def check_whole(what: str, given: Mapping[str, Any], limits: Limits) -> None:
    """Refuse what is no whole number within its limits; names without limits are not looked at. Raises: ModelError."""
    if wrong := mismatches(given, {name: integer(*limit) for name, limit in limits.items()}):
        raise ModelError(f"{what} makes no sense: {', '.join(wrong[:5])}", HINT)


def check_number(what: str, name: str, value: object, most: float) -> None:
    """Refuse what is no number above zero and up to a limit. Raises: ModelError."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 < number <= most:
        raise ModelError(f"{what} makes no sense: {name} is {summarize(value)}, not above 0 and up to {most:g}", HINT)
