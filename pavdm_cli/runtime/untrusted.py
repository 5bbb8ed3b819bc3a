"""Files and JSON that somebody else may have written: regular files of bounded size, JSON of bounded depth."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST = 8 << 20  # bytes of a JSON file; the index of a model of 10,000 tensors has 1 MB
DEEPEST = 32  # brackets inside each other
DIGITS = 40  # of a whole number: more has no meaning here, and Python refuses to read 4301


class InvalidError(ValueError):
    """What was read is not what it should be; the text says why, without naming the file."""


class NotJSONError(InvalidError):
    """The text is not JSON at all."""


def read_file(path: str | os.PathLike[str], most: int = LARGEST) -> bytes:
    """All bytes of a regular file of at most so many. Raises: InvalidError, OSError.

    A pipe without a writer is refused at once instead of being waited for.
    """
    with open(path, "rb", opener=open_at_once) as file:
        check_regular(os.fstat(file.fileno()))
        data = file.read(most + 1)
    if len(data) > most:
        raise InvalidError(f"it has more than {most} bytes")
    return data


def read_text(path: str | os.PathLike[str], most: int = LARGEST) -> str:
    """The text of a regular file, in UTF-8 with or without its mark. Raises: InvalidError, OSError."""
    try:
        return read_file(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidError("it is not text in UTF-8") from error


def read_json(path: str | os.PathLike[str], most: int = LARGEST) -> Any:
    """The value of a JSON file. Raises: InvalidError, OSError."""
    return parse_json(read_text(path, most))


def open_at_once(path: str, flags: int) -> int:
    """An `opener` that does not wait for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_regular(status: os.stat_result) -> None:
    """Refuse folders, pipes, devices and sockets. Raises: InvalidError."""
    if not stat.S_ISREG(status.st_mode):
        raise InvalidError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")


def is_regular(path: Path) -> bool:
    """Whether a path is a regular file, so that opening it does not block; False for a path that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def parse_json(text: str) -> Any:
    """The value of a JSON text, without what JSON leaves open: no NaN, no infinity, no name twice in an object.

    Strings hold Unicode, and at most the surrogates that stand for the bytes of a file name (PEP 383).
    Raises: InvalidError.
    """
    if len(text) > LARGEST:
        raise InvalidError(f"it has more than {LARGEST} characters")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise InvalidError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NotJSONError(f"it is not JSON: {error.msg} in line {error.lineno}") from None
    _check_depth(value)
    return value


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be, in words and as a test."""

    what: str
    fits: Callable[[Any], bool]


def whole(least: int, most: int) -> Kind:
    """A whole number within limits."""
    what = f"{least}" if least == most else f"a whole number from {least} to {most}"
    return Kind(what, lambda value: type(value) is int and least <= value <= most)  # True is an int too


def number(least: float, most: float) -> Kind:
    """A number within limits; neither NaN nor a truth value."""
    return Kind(
        f"a number from {least:g} to {most:g}", lambda value: type(value) in (int, float) and least <= value <= most
    )


def string(longest: int) -> Kind:
    """A string of at most so many characters."""
    return Kind(f"a text of up to {longest} characters", lambda value: type(value) is str and len(value) <= longest)


def one_of(*values: Any) -> Kind:
    """One of a few values, of the same type."""
    what = f"{', '.join(map(repr, values[:-1]))} or {values[-1]!r}" if values[1:] else repr(values[0])
    return Kind(what, lambda value: any(type(value) is type(one) and value == one for one in values))


FLAG = Kind("true or false", lambda value: type(value) is bool)


def list_of(kind: Kind, most: int, least: int = 0) -> Kind:
    """A list of values of one kind, of limited length."""
    length = f"{least}" if least == most else f"{least} to {most}" if least else f"up to {most}"
    return Kind(
        f"a list of {length}, each {kind.what}",
        lambda value: type(value) is list and least <= len(value) <= most and all(map(kind.fits, value)),
    )


def table_of(kind: Kind, most: int) -> Kind:
    """An object of at most so many entries, whose values are of one kind."""
    return Kind(
        f"an object of up to {most} entries, each {kind.what}",
        lambda value: type(value) is dict and len(value) <= most and all(map(kind.fits, value.values())),
    )


def optional(kind: Kind) -> Kind:
    """None, or a value of a kind."""
    return Kind(f"{kind.what}, or null", lambda value: value is None or kind.fits(value))


def mismatches(values: Mapping[str, Any], kinds: Mapping[str, Kind], required: Iterable[str] = ()) -> list[str]:
    """What is wrong with the values, in words; names without a kind are not looked at."""
    missing = [f"{name} is missing" for name in required if name not in values]
    wrong = [name for name, value in values.items() if name in kinds and not kinds[name].fits(value)]
    return missing + [f"{name} is {shown(values[name])}, not {kinds[name].what}" for name in wrong]


def shown(value: object, longest: int = 40) -> str:
    """A value of any kind, in a few ASCII letters."""
    if isinstance(value, (list, tuple, dict)) and value:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    words = ascii(value[: longest + 1] if isinstance(value, str) else value)
    return words if len(words) <= longest else f"{words[:longest]}..."


def _refuse_constant(name: str) -> float:
    raise InvalidError(f"it has {name}, which is not JSON")


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise InvalidError(f"it has a number out of range: {digits[:20]}")
    return value


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise InvalidError(f"it has a number out of range: {digits[:20]}...")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise InvalidError("it has an object with the same name twice")
    return value


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_number, parse_int=_whole, object_pairs_hook=_object
)


def _check_depth(value: Any) -> None:
    """Walk through lists and objects, level by level. Raises: InvalidError, also for text that is not Unicode."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise InvalidError("it is nested too deeply")
        strings = [one for one in level if isinstance(one, str)]
        strings += [name for one in level if isinstance(one, dict) for name in one]
        if any(_is_broken(string) for string in strings):
            raise InvalidError("it has text that is not Unicode")
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level, depth = [item for items in inner for item in items], depth + 1


def _is_broken(string: str) -> bool:
    """Whether a string has surrogates that stand for no byte."""
    try:
        string.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return True
    return False
