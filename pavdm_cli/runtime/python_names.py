"""Messages that name options as the command line does, with the names of the Python API and of JSON instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pavdm_cli.errors import PavdmError

NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w:]|\.\d)"
FLAG = re.compile(rf"(?<![\w-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?: (\d+x\d+\b|{NUMBER}))?")
COMMAND = re.compile(r"(`pavdm [^`]*`)")  # is for a terminal


def with_python_names(text: str) -> str:
    """`--cfg-batching` becomes `cfg_batching`, `--frames 9` `frames=9`; commands in backticks stay as they are."""
    parts = COMMAND.split(text)
    return "".join(part if COMMAND.fullmatch(part) else FLAG.sub(_python_name, part) for part in parts)


def _python_name(match: re.Match[str]) -> str:
    name, value = match[1].replace("-", "_"), match[2]
    if value:
        return f'{name}="{value}"' if "x" in value else f"{name}={value}"
    if name == "force":
        return "force=True"
    return f"{name.removeprefix('no_')}=False" if name.startswith("no_") else name


@contextmanager
def python_names() -> Iterator[None]:
    """Errors that are raised inside name Python's parameters."""
    try:
        yield
    except PavdmError as error:
        error.message, error.hint = with_python_names(error.message), with_python_names(error.hint)
        error.args = (error.message,)
        raise
