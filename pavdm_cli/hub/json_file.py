"""Reads a model's JSON files: configurations, indexes and manifests. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pavdm_cli.errors import ModelError
from pavdm_cli.runtime import untrusted
from pavdm_cli.runtime.untrusted import InvalidError

PULL_HINT = "`pavdm models pull` downloads them"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: ModelError."""
    try:
        value = untrusted.read_json(path)
    except FileNotFoundError as error:
        raise ModelError(f"no {path.name} in {path.parent}", PULL_HINT) from error
    except (OSError, InvalidError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "it may be truncated: `pavdm models verify`") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not describe a model", "it may be another file of that name")
    return value
