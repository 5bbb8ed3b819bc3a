"""Checks the sizes in a published configuration before anything is built from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pavdm_cli.errors import ModelError
from pavdm_cli.runtime.untrusted import integer, mismatches, summarize

Limits = Mapping[str, tuple[int, int]]  # minimum and maximum of every integer
HINT = "the file may be truncated, or belong to another model"


def within(card: Mapping[str, int], times: int = 8) -> dict[str, tuple[int, int]]:
    """Limits of sizes: 1 to `times` those of the published model."""
    return {name: (1, times * size) for name, size in card.items()}


def check_whole(subject: str, config: Mapping[str, Any], limits: Limits) -> None:
    """Reject values that are not integers within their limits; others are ignored. Raises: ModelError."""
    if wrong := mismatches(config, {name: integer(*limit) for name, limit in limits.items()}):
        raise ModelError(f"{subject} is invalid: {', '.join(wrong[:5])}", HINT)


def check_number(subject: str, name: str, value: object, maximum: float) -> None:
    """Reject anything but a number above 0 and up to `maximum`. Raises: ModelError."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 < number <= maximum:
        raise ModelError(f"{subject} is invalid: {name} is {summarize(value)}, not above 0 and up to {maximum:g}", HINT)
