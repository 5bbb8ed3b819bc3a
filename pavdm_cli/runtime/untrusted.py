"""Files and JSON of unknown origin: regular files of bounded size, JSON of bounded depth, checked values."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_BYTES = 8 << 20  # bytes of a JSON file; the index of a model of 10,000 tensors has 1 MB
MAX_DEPTH = 32  # of nested lists and objects
MAX_DIGITS = 40  # of an integer; Python refuses more than 4300


class InvalidError(ValueError):
    """The input is not valid; the message gives the reason without naming the file."""


class NotJSONError(InvalidError):
    """The text is not JSON at all."""


def read_file(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most `max_bytes`. Raises: InvalidError, OSError.

    A pipe without a writer is rejected immediately, without waiting for a writer.
    """
    with open(path, "rb", opener=open_nonblocking) as file:
        check_regular(os.fstat(file.fileno()))
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InvalidError(f"it has more than {max_bytes} bytes")
    return data


def read_text(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> str:
    """The text of a regular file, in UTF-8 with or without a byte-order mark. Raises: InvalidError, OSError."""
    try:
        return read_file(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidError("it is not text in UTF-8") from error


def read_json(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> Any:
    """The value of a JSON file. Raises: InvalidError, OSError."""
    return parse_json(read_text(path, max_bytes))


def open_nonblocking(path: str, flags: int) -> int:
    """An `opener` for `open` that does not wait for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_regular(status: os.stat_result) -> None:
    """Reject folders, pipes, devices and sockets. Raises: InvalidError."""
    if not stat.S_ISREG(status.st_mode):
        raise InvalidError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")


def is_regular(path: Path) -> bool:
    """Whether a path is a regular file, so that opening it does not block; False for an impossible path."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def parse_json(text: str) -> Any:
    """The value of a JSON text, read strictly: no NaN, no infinity, no duplicate names in an object.

    Strings are Unicode; the only surrogates allowed are those that stand for bytes of a file name (PEP 383).
    Raises: InvalidError.
    """
    if len(text) > MAX_BYTES:
        raise InvalidError(f"it has more than {MAX_BYTES} characters")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise InvalidError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NotJSONError(f"it is not JSON: {error.msg} in line {error.lineno}") from None
    check_depth(value)
    return value


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be, as text and as a test."""

    description: str
    fits: Callable[[Any], bool]


def integer(minimum: int, maximum: int) -> Kind:
    """An integer within limits."""
    description = f"{minimum}" if minimum == maximum else f"an integer from {minimum} to {maximum}"
    return Kind(description, lambda value: type(value) is int and minimum <= value <= maximum)  # True is an int too


def number(minimum: float, maximum: float) -> Kind:
    """A number within limits, neither NaN nor a boolean."""
    return Kind(
        f"a number from {minimum:g} to {maximum:g}",
        lambda value: type(value) in (int, float) and minimum <= value <= maximum,
    )


def string(max_length: int) -> Kind:
    """A string of at most `max_length` characters."""
    description = f"a string of up to {max_length} characters"
    return Kind(description, lambda value: type(value) is str and len(value) <= max_length)


def one_of(*values: Any) -> Kind:
    """One of a few values, of the same type."""
    description = f"{', '.join(map(repr, values[:-1]))} or {values[-1]!r}" if values[1:] else repr(values[0])
    return Kind(description, lambda value: any(type(value) is type(choice) and value == choice for choice in values))


FLAG = Kind("true or false", lambda value: type(value) is bool)


def list_of(kind: Kind, max_length: int, min_length: int = 0) -> Kind:
    """A list of values of one kind, of limited length."""
    length = (
        f"{min_length}"
        if min_length == max_length
        else f"{min_length} to {max_length}"
        if min_length
        else f"up to {max_length}"
    )
    return Kind(
        f"a list of {length}, each {kind.description}",
        lambda value: type(value) is list and min_length <= len(value) <= max_length and all(map(kind.fits, value)),
    )


def mapping_of(kind: Kind, max_length: int) -> Kind:
    """An object of at most `max_length` entries, whose values are of one kind."""
    return Kind(
        f"an object of up to {max_length} entries, each {kind.description}",
        lambda value: type(value) is dict and len(value) <= max_length and all(map(kind.fits, value.values())),
    )


def record_of(description: str, kinds: Mapping[str, Kind]) -> Kind:
    """An object with exactly these fields."""
    return Kind(
        description, lambda value: type(value) is dict and value.keys() == kinds.keys() and not mismatches(value, kinds)
    )


def optional(kind: Kind) -> Kind:
    """A value of a kind, or None."""
    return Kind(f"{kind.description}, or null", lambda value: value is None or kind.fits(value))


def changes_frames(kind: Kind) -> dict[str, Kind]:
    """Metadata of a dataclass field that changes a video's frames, so that its file stores it: the kind of value."""
    return {"kind": kind}


def stored_kinds(config: type[DataclassInstance]) -> dict[str, Kind]:
    """The kinds of a dataclass's fields that `changes_frames` marks."""
    return {field.name: field.metadata["kind"] for field in fields(config) if "kind" in field.metadata}


def stored_values(config: DataclassInstance) -> dict[str, Any]:
    """The values of the fields that `changes_frames` marks."""
    return {name: getattr(config, name) for name in stored_kinds(type(config))}


def mismatches(values: Mapping[str, Any], kinds: Mapping[str, Kind], required: Iterable[str] = ()) -> list[str]:
    """What is wrong with the values, as text; names without a kind are not checked."""
    missing = [f"{name} is missing" for name in required if name not in values]
    wrong = [name for name, value in values.items() if name in kinds and not kinds[name].fits(value)]
    return missing + [f"{name} is {summarize(values[name])}, not {kinds[name].description}" for name in wrong]


def summarize(value: object, max_length: int = 40) -> str:
    """Any value in at most a few ASCII characters."""
    if isinstance(value, (list, tuple, dict)) and value:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = ascii(value[: max_length + 1] if isinstance(value, str) else value)
    return text if len(text) <= max_length else f"{text[:max_length]}..."


def _reject_constant(name: str) -> float:
    raise InvalidError(f"it has {name}, which is not JSON")


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise InvalidError(f"it has a number out of range: {digits[:20]}")
    return value


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise InvalidError(f"it has a number out of range: {digits[:20]}...")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise InvalidError("it has an object with the same name twice")
    return value


_DECODER = json.JSONDecoder(
    parse_constant=_reject_constant, parse_float=_number, parse_int=_whole, object_pairs_hook=_object
)


def check_depth(value: Any, max_depth: int = MAX_DEPTH) -> None:
    """Check nested lists and objects, level by level. Raises: InvalidError, also for text that is not Unicode."""
    level, depth = [value], 0
    while level:
        if depth > max_depth:
            raise InvalidError("it is nested too deeply")
        strings = [item for item in level if isinstance(item, str)]
        strings += [name for item in level if isinstance(item, dict) for name in item]
        if any(_is_broken(string) for string in strings):
            raise InvalidError("it has text that is not Unicode")
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level, depth = [item for items in inner for item in items], depth + 1


def _is_broken(string: str) -> bool:
    """Whether a string has surrogates that do not stand for a byte."""
    try:
        string.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return True
    return False
