"""`pavdm` in this process, as a script sees it: nothing is imported twice."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from pavdm_cli import app


class Said(NamedTuple):
    """What a command leaves behind."""

    code: int
    out: str
    err: str


def pavdm(*words: object) -> Said:
    """Run a command in the current folder, its exit code and both streams included."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["pavdm", *map(str, words)])
        try:
            code = app.main() or 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Said(code, out.getvalue(), err.getvalue())
