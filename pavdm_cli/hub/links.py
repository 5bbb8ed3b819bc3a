"""Links to files and folders, for systems that may not allow symbolic ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link_or_copy(source: Path, target: Path) -> None:
    """A symbolic link to a file or folder; else hard links to its files, or at worst copies. Raises: OSError."""
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except (OSError, NotImplementedError):  # Windows, without the right to
        if source.is_dir():
            shutil.copytree(source, target, copy_function=_hard_link_or_copy, dirs_exist_ok=True)
        else:
            _hard_link_or_copy(str(source), str(target))


def _hard_link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
