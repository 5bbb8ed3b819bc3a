"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from pavdm_cli.errors import OutputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; it replaces `path` after the block, and is deleted if the block fails.

    The file gets the permissions of the umask, whatever wrote it: safetensors writes files that only their owner can
    read. Raises: OutputError.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a killed process, with permissions of its own
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:
            with suppress(OSError):  # of file systems without permissions
                temporary.chmod(mode)
        os.replace(temporary, path)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save raises the last
        raise OutputError(f"cannot write {path}: {error}", "free some space, or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
