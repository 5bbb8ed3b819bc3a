"""Measurements stored as JSON lines, so that an interrupted evaluation continues with the next video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pavdm_cli.errors import InputError, OutputError
from pavdm_cli.evaluation.measure import Measurement
from pavdm_cli.runtime.untrusted import (
    InvalidError,
    NotJSONError,
    integer,
    list_of,
    mapping_of,
    mismatches,
    number,
    optional,
    parse_json,
    record_of,
    string,
)

SCHEMA = "pavdm.evaluate/1"
METRIC = number(-1e12, 1e12)
SPAN = {
    "start": number(0, 1e12),
    "end": optional(number(0, 1e12)),
    "caption": string(20_000),
    "metrics": mapping_of(optional(METRIC), 100),
}


FIELDS = {
    "path": string(4096),
    **dict.fromkeys(("frames", "width", "height"), integer(0, 10**9)),
    "fps": number(0, 10**6),
    "chunk_frames": optional(integer(2, 10**4)),
    "metrics": mapping_of(optional(METRIC), 100),
    "clips": mapping_of(list_of(METRIC, 10**6), 100),
    "features": list_of(list_of(METRIC, 1000), 10**6),
    "spans": list_of(record_of("a span of a prompt", SPAN), 1001),
}


class ResultsFile:
    """Stored measurements by file, size, time of modification and how they were measured (`key`)."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._rows = _read(path) if path is not None and path.exists() else []

    def find(self, video: Path, key: dict[str, Any]) -> Measurement | None:
        """The latest measurement of the unchanged file with the same key."""
        full_key = _full_key(video, key)
        row = next((row for row in reversed(self._rows) if row.get("key") == full_key), None)
        if row is None or mismatches(row["measurement"], FIELDS, required=FIELDS):  # or it is of another version
            return None
        return Measurement(**{name: row["measurement"][name] for name in FIELDS})

    def add(self, video: Path, key: dict[str, Any], measurement: Measurement) -> None:
        """Append a row. Raises: OutputError."""
        if self.path is None:
            return
        row = {"schema": SCHEMA, "key": _full_key(video, key), "measurement": measurement.to_json()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror}", "choose another file with --output"
            ) from None


def _full_key(video: Path, key: dict[str, Any]) -> dict[str, Any]:
    status = video.stat()
    return {"path": str(video.absolute()), "bytes": status.st_size, "modified": status.st_mtime_ns} | key


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of the file, without a truncated last line. Raises: InputError."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", "choose another file with --output") from None
    for count, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
        except (NotJSONError, InvalidError):
            if count == len(lines):
                break
            raise InputError(f"{path}, line {count}, is not JSON", "choose another file with --output") from None
        if not isinstance(row, dict) or row.get("schema") != SCHEMA or not isinstance(row.get("measurement"), dict):
            raise InputError(
                f"{path}, line {count}, is not a row of `pavdm evaluate`", "choose another file with --output"
            )
        rows.append(row)
    return rows
