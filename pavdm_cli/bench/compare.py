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

LEAST = 0.03  # smaller changes never count
FEWEST = 3  # samples from which a deviation can be estimated
Row = dict[str, Any]


LONGEST = 64 << 20  # bytes of a file of rows
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

    what: str
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
        where, one, other = next(differences(_identity(list(before.values())[-1]), _identity(list(after.values())[-1])))
        raise UsageError(f"the rows differ in {where}: {one} and {other}", "compare rows of the same configuration")
    return [pair for key in common for pair in pairs(before[key], after[key])]


def rows(path: Path) -> dict[str, Row]:
    """The last row of every kind and configuration in a .json or .jsonl file. Raises: InputError."""
    hint = "give a file that `pavdm bench ... --out FILE` wrote"
    try:
        values = parse(read_text(path, LONGEST))
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
        whole = parse_json(content)
    except InvalidError:
        return [parse_json(line) for line in content.split("\n") if line.strip()]
    return whole if isinstance(whole, list) else [whole]


def key(row: Row) -> str:
    """What two rows must share to be compared."""
    return json.dumps(_identity(row), sort_keys=True)


def _identity(row: Row) -> Row:
    return {"kind": row["kind"], "config": row["config"]}


def differences(one: Any, other: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that differ, by their path, each with both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in [*one, *(name for name in other if name not in one)]:
            inner = f"{where}.{name}" if where else name
            yield from differences(one.get(name), other.get(name), inner)
    elif one != other:
        yield where, one, other


def pairs(before: Row, after: Row) -> Iterator[Comparison]:
    """Every kind of sample that both rows have."""
    for name in before["samples"]:
        samples, others = (_as_list(row["samples"].get(name)) for row in (before, after))
        if samples and others and median(samples) and median(others):
            yield Comparison(name.removesuffix("_s"), median(samples), median(others), noise_tolerance(samples, others))


def noise_tolerance(samples: list[float], others: list[float]) -> float | None:
    """Relative difference of medians within noise; None if either row has too few samples."""
    if min(len(samples), len(others)) < FEWEST:
        return None
    return max(LEAST, *(3 * median_deviation(one) / median(one) for one in (samples, others)))


def _as_list(samples: Any) -> list[float]:
    """Samples of a row; one number is a list of one."""
    return samples if isinstance(samples, list) else [samples] if isinstance(samples, (int, float)) else []


def lines(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """A table row per pair of samples: label, before, after, ratio and verdict."""
    return [
        (one.what, _duration(one.before), _duration(one.after), f"{one.ratio:.3f}", _verdict(one))
        for one in comparisons
    ]


def _duration(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-4 else f"{1e6 * seconds:.2f} us"


def _verdict(one: Comparison) -> str:
    if one.allowed is None:
        return "too few samples to decide"
    return f"slower: more than {one.allowed:.0%}" if one.slower else f"within {one.allowed:.0%}"
