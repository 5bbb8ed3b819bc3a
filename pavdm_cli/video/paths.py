"""Names of the files that belong to a video while it grows."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from pavdm_cli.runtime.durable import TEMPORARY

MAX_NAME_BYTES = 255  # on all common file systems
CHECKPOINT_SUFFIX, LATENTS_SUFFIX = ".state", ".latents"
MAX_SUFFIX_BYTES = 16  # what is longer is no suffix, but the end of a sentence with a period
LONGEST_ENDING = CHECKPOINT_SUFFIX + TEMPORARY  # the longest of the files that belong to a partial one


def partial_path(path: Path) -> Path:
    """The name of a video while it grows: NAME.partial.EXT, with a NAME that is too long shortened."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= MAX_SUFFIX_BYTES else ""
    stem, ending = path.name.removesuffix(suffix), f".partial{suffix}"
    if fits(stem + ending + LONGEST_ENDING):
        return path.with_name(stem + ending)
    ending = f"-{zlib.crc32(os.fsencode(path.name)):08x}{ending}"  # distinguishes names with the same start
    return path.with_name(truncate_stem(stem, ending + LONGEST_ENDING) + ending)


def checkpoint_path(partial: Path) -> Path:
    """The name of the checkpoint of a partial file: NAME.partial.EXT.state."""
    return partial.with_name(partial.name + CHECKPOINT_SUFFIX)


def is_checkpoint(file: Path) -> bool:
    """Whether a file has the name of a checkpoint."""
    return file.name.endswith(CHECKPOINT_SUFFIX)


def latents_path(partial: Path) -> Path:
    """The name of the latents of a partial file that cannot be continued: NAME.partial.EXT.latents."""
    return partial.with_name(partial.name + LATENTS_SUFFIX)


def truncate_stem(stem: str, ending: str) -> str:
    """The longest start of `stem` that leaves room for `ending`: file systems count bytes, not characters."""
    while stem and not fits(stem + ending):
        stem = stem[:-1]
    return stem


def fits(name: str) -> bool:
    """Whether file systems allow a name of this length."""
    return len(os.fsencode(name)) <= MAX_NAME_BYTES
