"""Files of jobs: a prompt per line (.txt), a table (.csv) or a JSON object per line (.jsonl)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pavdm_cli.errors import InputError, UsageError
from pavdm_cli.runtime.untrusted import InvalidError, parse_json, read_text

MAX_BYTES = 64 << 20
MAX_ROWS = 100_000
DELIMITERS = (",", ";", "\t")
LINE_BREAK = re.compile(r"\r\n|\n|\r")  # JSON strings may hold the others that str.splitlines splits at


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file of jobs."""

    line: int
    values: dict[str, Any]
    is_text: bool  # whether numbers are still text, as in a table


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not a job."""

    line: int
    reason: str


def read_rows(path: Path) -> tuple[list[Row], list[BadLine]]:
    """All jobs of a file, and all lines that are none. Raises: InputError, UsageError."""
    readers = {".txt": _from_text, ".csv": _from_table, ".jsonl": _from_json_lines, ".ndjson": _from_json_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"unsupported file type: {path}", "name it .txt (a prompt per line), .csv or .jsonl")
    try:
        text = read_text(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the jobs in {path}: {reason}", "give a .txt, .csv or .jsonl file") from None
    lines = list(reader(text))
    rows = [row for row in lines if isinstance(row, Row)]
    if len(rows) > MAX_ROWS:
        raise UsageError(f"{path} has {len(rows)} jobs", f"split it into files of up to {MAX_ROWS}")
    bad = [row for row in lines if isinstance(row, BadLine)]
    if not lines:
        raise UsageError(f"{path} has no jobs", "write a prompt on a line of its own")
    return rows, bad


def _from_text(text: str) -> Iterator[Row | BadLine]:
    """A prompt per line; empty lines and those that begin with # are none."""
    for number, line in enumerate(LINE_BREAK.split(text), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield Row(number, {"prompt": line}, is_text=False)


def _from_json_lines(text: str) -> Iterator[Row | BadLine]:
    """An object of options per line."""
    for number, line in enumerate(LINE_BREAK.split(text), 1):
        if not line.strip():
            continue
        try:
            values = parse_json(line)
        except InvalidError as error:
            yield BadLine(number, str(error).replace(" in line 1", ""))
            continue
        if isinstance(values, dict):
            yield Row(number, values, is_text=False)
        else:
            yield BadLine(number, 'it is not an object of options; write {"prompt": "a red ball", "seed": 7}')


def _from_table(text: str) -> Iterator[Row | BadLine]:
    """A row per job under a row of option names, separated as that is; an empty cell leaves the option out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(text))
    header: list[str] | None = None
    begin = 1
    try:
        for cells in reader:
            line, begin = begin, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if error := _header_error(header):
                    yield BadLine(line, error)
                    return
            elif len(cells) > len(header):
                yield BadLine(line, f"it has {len(cells)} cells, and the first row has {len(header)}")
            else:
                values = {name: cell for name, cell in zip(header, cells, strict=False) if cell.strip()}
                yield Row(line, values, is_text=True)
    except csv.Error as error:
        yield BadLine(begin, f"it is not CSV: {error}")


def _delimiter(text: str) -> str:
    """The separator with which the first row has a column `prompt`: spreadsheets also write semicolons and tabs."""
    first = next((line for line in LINE_BREAK.split(text) if line.strip()), "")
    cells = {delimiter: [cell.strip(' "') for cell in first.split(delimiter)] for delimiter in DELIMITERS}
    return next((delimiter for delimiter in DELIMITERS if "prompt" in cells[delimiter]), DELIMITERS[0])


def _header_error(header: list[str]) -> str:
    if "prompt" not in header:
        return "the first row names the options, and has no column `prompt`"
    duplicate = next((name for number, name in enumerate(header) if name in header[:number]), None)
    if duplicate is not None:
        return f"the column {duplicate!r} appears twice"
    return "" if all(header) else "a column has no name"
