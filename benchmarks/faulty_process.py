"""Runs `pavdm` with an injected fault: `python faulty_process.py FAULT NUMBER WORDS...`; for `faults.py` and tests.

Every checkpoint is reported on stderr at once. NUMBER: the call, counted from 1, at which the fault occurs.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pavdm_cli import ui
from pavdm_cli.__main__ import main

KILLS = ("fsync", "replace", "link", "unlink")  # functions of `os` before which the process is killed
PARTIAL_WRITES = ("half a segment", "half a checkpoint")  # killed after half of this write


def at_call(number: int, act: Callable[..., None], call: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function: `act` runs before its call of this number, counted from 1."""
    count = 0

    def count_call(*values: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            act(*values)
        return call(*values, **options)

    return count_call


def kill(*values: object) -> None:
    """Kill the process, as a power failure would."""
    os.kill(os.getpid(), signal.SIGKILL)


def write_half_and_kill(file: Any, data: bytes) -> None:
    """A `GrowingFile._write` that kills the process after half of the data."""
    file._file.write(data[: len(data) // 2])
    kill()


def write_half_checkpoint_and_kill(path: Path, parts: list[bytes]) -> None:
    """A `write_durably` that kills the process after half of the data."""
    path.with_name(path.name + ".tmp").write_bytes(parts[0][: len(parts[0]) // 2])
    kill()


def inject(fault: str, number: int) -> None:
    """Patch the program with the fault."""
    if fault in KILLS:
        setattr(os, fault, at_call(number, kill, getattr(os, fault)))
    elif fault == "half a segment":
        from pavdm_cli.video.write.growing_file import GrowingFile

        GrowingFile._write = at_call(number, write_half_and_kill, GrowingFile._write)  # type: ignore[method-assign]
    elif fault == "half a checkpoint":
        from pavdm_cli.generation import checkpoint

        writes = at_call(number, write_half_checkpoint_and_kill, checkpoint.write_durably)
        checkpoint.write_durably = writes
    elif fault != "none":
        _inject_in_sampling(fault, number)


def _inject_in_sampling(fault: str, number: int) -> None:
    """NaN from a step on, an out-of-memory error, or a removed folder."""
    from pavdm_cli.sampling import loop

    step, count = loop.denoise_step, 0

    def faulty(*values: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        window, history = step(*values, **options)
        if fault == "nan" and count >= number:
            window = window * float("nan")
        elif fault == "out of memory" and count == number:
            raise MemoryError("not enough memory: you tried to allocate 99999999999 bytes")
        elif fault == "removed folder" and count == number:
            shutil.rmtree(os.getcwd())
        return window, history

    loop.denoise_step = faulty


if __name__ == "__main__":
    kind, position, *words = sys.argv[1:]
    ui.SECONDS_BETWEEN_LINES = 0.0
    inject(kind, int(position))
    sys.argv = ["pavdm", *words]
    main()
