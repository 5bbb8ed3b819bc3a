"""`pavdm bench compare`: whether a second set of results is slower than the first, beyond noise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from pavdm_cli.bench.stats import median_deviation
from pavdm_cli.errors import InputError, UsageError
from pavdm_cli.runtime.untrusted import (
    InvalidError,
    Kind,
    mapping_of,
    mismatches,
    number,
    parse_json,
    read_text,
    string,
)

MIN_CHANGE = 0.03  # smaller changes never count
MIN_SAMPLES = 3  # samples from which a deviation can be estimated
Row = dict[str, Any]


MAX_BYTES = 64 << 20  # bytes of a file of rows
SECONDS = number(0, 1e9)


def _are_seconds(value: Any) -> bool:
    return all(map(SECONDS.fits, value)) if isinstance(value, list) else SECONDS.fits(value)


FIELDS = {
    "kind": string(100),
    "config": Kind("an object", lambda value: isinstance(value, dict)),
    "samples": mapping_of(Kind("seconds, or a list of them", _are_seconds), 1000),
}


class Comparison(NamedTuple):
    """One kind of sample in both rows: medians in seconds, and the tolerated change."""

    name: str
    before: float
    after: float
    allowed: float | None  # share of `before`; None: too few samples to decide

    @property
    def ratio(self) -> float:
        """Above 1: slower."""
        return self.after / self.before

    @property
    def slower(self) -> bool:
        """Beyond the tolerance; False if there are too few samples."""
        return self.allowed is not None and self.ratio > 1 + self.allowed


def compare(first: Path, second: Path) -> list[Comparison]:
    """Every kind of raw sample that both files have, for every configuration that they share.

    Raises: InputError for a file without rows; UsageError where no configuration is in both.
    """
    before, after = rows(first), rows(second)
    common = [key for key in after if key in before]
    if not common:
        setting, value_before, value_after = next(
            differences(_identity(list(before.values())[-1]), _identity(list(after.values())[-1]))
        )
        raise UsageError(
            f"the rows differ in {setting}: {value_before} and {value_after}", "compare rows of the same configuration"
        )
    return [pair for key in common for pair in pairs(before[key], after[key])]


def rows(path: Path) -> dict[str, Row]:
    """The last row of every kind and configuration in a .json or .jsonl file. Raises: InputError."""
    hint = "give a file that `pavdm bench ... --output FILE` wrote"
    try:
        values = parse(read_text(path, MAX_BYTES))
    except (OSError, InvalidError) as error:
        raise InputError(f"cannot read {path}: {error}", hint) from None
    with_samples = [row for row in values if isinstance(row, dict) and FIELDS.keys() <= row.keys()]
    if not with_samples:
        raise InputError(f"{path} has no row with raw samples", hint)
    if wrong := [line for row in with_samples for line in mismatches(row, FIELDS)]:
        raise InputError(f"{path} has a row that cannot be compared: {wrong[0]}", hint)
    return {key(row): row for row in with_samples}


def parse(content: str) -> list[Any]:
    """Values of a JSON text, one or a list, or one a line. Raises: InvalidError."""
    try:
        value = parse_json(content)
    except InvalidError:
        return [parse_json(line) for line in content.split("\n") if line.strip()]
    return value if isinstance(value, list) else [value]


def key(row: Row) -> str:
    """What two rows must share to be compared."""
    return json.dumps(_identity(row), sort_keys=True)


def _identity(row: Row) -> Row:
    return {"kind": row["kind"], "config": row["config"]}


def differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that differ, by their path, each with both values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in [*before, *(name for name in after if name not in before)]:
            inner = f"{path}.{name}" if path else name
            yield from differences(before.get(name), after.get(name), inner)
    elif before != after:
        yield path, before, after


def pairs(before: Row, after: Row) -> Iterator[Comparison]:
    """Every kind of sample that both rows have."""
    for name in before["samples"]:
        earlier_samples, later_samples = (_as_list(row["samples"].get(name)) for row in (before, after))
        if earlier_samples and later_samples and median(earlier_samples) and median(later_samples):
            yield Comparison(
                name.removesuffix("_s"),
                median(earlier_samples),
                median(later_samples),
                noise_tolerance(earlier_samples, later_samples),
            )


def noise_tolerance(samples: list[float], other_samples: list[float]) -> float | None:
    """Relative difference of medians within noise; None if either row has too few samples."""
    if min(len(samples), len(other_samples)) < MIN_SAMPLES:
        return None
    return max(MIN_CHANGE, *(3 * median_deviation(values) / median(values) for values in (samples, other_samples)))


def _as_list(samples: Any) -> list[float]:
    """Samples of a row; one number is a list of one."""
    return samples if isinstance(samples, list) else [samples] if isinstance(samples, (int, float)) else []


def lines(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """A table row per pair of samples: label, before, after, ratio and verdict."""
    return [
        (pair.name, _duration(pair.before), _duration(pair.after), f"{pair.ratio:.3f}", _verdict(pair))
        for pair in comparisons
    ]


def _duration(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-4 else f"{1e6 * seconds:.2f} us"


def _verdict(pair: Comparison) -> str:
    if pair.allowed is None:
        return "too few samples to decide"
    return f"slower: more than {pair.allowed:.0%}" if pair.slower else f"within {pair.allowed:.0%}"
