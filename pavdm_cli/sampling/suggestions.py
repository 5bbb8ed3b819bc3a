"""Suggests the nearest valid combinations of steps, window and chunk."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

MAX_VALUE = 10_000  # steps, or latents of a window or a chunk


def is_valid(steps: int, window: int, chunk: int) -> bool:
    """Whether the window is a whole number of chunks that divides the steps or is divided by them."""
    count, remainder = divmod(window, chunk)
    return not remainder and count > 0 and (steps % count == 0 or count % steps == 0)


def suggest(steps: int, window: int, chunk: int) -> str:
    """A hint with the nearest valid value of each option, given the other two."""
    chunks = _nearest(chunk, lambda value: is_valid(steps, window, value))
    multiples = (value for value in range(2 * chunk, window + 1, chunk) if is_valid(steps, window, value))
    options = {
        "steps": _nearest(steps, lambda value: is_valid(value, window, chunk)),
        "window": _nearest(window, lambda value: is_valid(steps, value, chunk)),
        "chunk": sorted({*chunks, *islice(multiples, 1)}),
    }
    parts = [f"--{name} {', '.join(map(str, values))}" for name, values in options.items() if values]
    return f"try {'one of ' * (len(parts) > 1)}{'; '.join(parts) or f'--window {chunk}'}"


def _nearest(value: int, fits: Callable[[int], bool]) -> list[int]:
    """The nearest fitting values below and above, between half and twice the value."""
    below = (other for other in range(value - 1, (value - 1) // 2, -1) if fits(other))
    above = (other for other in range(value + 1, min(2 * value, MAX_VALUE) + 1) if fits(other))
    return [other for other in (next(below, None), next(above, None)) if other is not None]
