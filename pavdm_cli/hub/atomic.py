"""Files that are either the old one or the new one whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pavdm_cli.errors import OutputError


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A path beside this one to write to; put in place once the block is done, removed if it fails.

    Raises: OutputError.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        yield beside
        os.replace(beside, path)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save raises the last
        raise OutputError(f"cannot write {path}: {error}", "free some space, or choose another folder") from error
    finally:
        beside.unlink(missing_ok=True)
