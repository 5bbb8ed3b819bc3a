"""Runs `pavdm` as a script sees it: in this process, where nothing is imported twice, or in one of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from pavdm_cli import app

# A short video of pocket. Its size is given, since another process would take the model's default.
QUICK = ("--size", "96x64", "--fps", "8", "--steps", "6", "--warmup", "0", "--scale", "1")
QUICK += ("--threads", "1", "--device", "cpu")


class CommandResult(NamedTuple):
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


def pavdm(*words: object, folder: str | Path = ".") -> CommandResult:
    """Run a command in this process, in a folder."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["pavdm", *map(str, words)])
        try:
            code = app.main() or 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return CommandResult(code, out.getvalue(), err.getvalue())


def pavdm_process(
    *words: object,
    folder: str | Path = ".",
    env: Mapping[str, str] | None = None,
    start: Sequence[str] = (sys.executable, "-m", "pavdm_cli"),
) -> CommandResult:
    """Run a command in a process of its own, in a folder, with these environment variables changed."""
    line, environment = [*start, *map(str, words)], os.environ | dict(env or {})
    result = subprocess.run(line, capture_output=True, text=True, cwd=folder, env=environment, timeout=300, check=False)
    return CommandResult(result.returncode, result.stdout, result.stderr)
