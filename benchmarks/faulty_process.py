"""`pavdm` with one fault: `python faulty_process.py FAULT NUMBER WORDS...`, started by `faults.py` and by tests.

Every checkpoint is announced on stderr at once. The fault comes at the given call of its kind.
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
HALVES = ("half a segment", "half a checkpoint")  # writes after half of which it is


def at_call(number: int, act: Callable[..., None], call: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which does something else first at its call of this number, counted from 1."""
    count = 0

    def count_call(*values: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            act(*values)
        return call(*values, **options)

    return count_call


def kill(*values: object) -> None:
    """End the process as a power failure would."""
    os.kill(os.getpid(), signal.SIGKILL)


def write_half_and_kill(file: Any, data: bytes) -> None:
    """Of a `GrowingFile`."""
    file._file.write(data[: len(data) // 2])
    kill()


def write_half_checkpoint_and_kill(path: Path, parts: list[bytes]) -> None:
    """Of `write_durably`."""
    path.with_name(path.name + ".tmp").write_bytes(parts[0][: len(parts[0]) // 2])
    kill()


def plant(fault: str, number: int) -> None:
    """Patch the program."""
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
        _plant_in_sampling(fault, number)


def _plant_in_sampling(fault: str, number: int) -> None:
    """NaN from a step on, a lack of memory, or a folder that is removed."""
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
    plant(kind, int(position))
    sys.argv = ["pavdm", *words]
    main()
