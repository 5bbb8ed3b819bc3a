"""`pavdm` as a process of its own, and signals to it from the moment it can take them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "pavdm_cli")
QUICK = ("generate", "a red ball", "--seed", "1", "--threads", "1", "--steps", "6", "--warmup", "0")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU) if os.name == "posix" else ()


def start(*words: object, cwd: Path, **given: Any) -> subprocess.Popen[str]:
    """Start a command whose signals are as a terminal has them, whatever started the tests ignores."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": default_signals} | given
    return subprocess.Popen([*COMMAND, *map(str, words)], cwd=cwd, text=True, **given)


def wait_for_signals(process: subprocess.Popen[str], timeout: float = 60) -> None:
    """Wait until the program, and no longer the bare interpreter, answers signals."""
    status, until = Path(f"/proc/{process.pid}/status"), time.monotonic() + timeout
    while time.monotonic() < until:
        caught = [line for line in status.read_text().splitlines() if line.startswith("SigCgt")]
        if caught and int(caught[0].split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)
    raise TimeoutError("it never answers signals")


def strike(process: subprocess.Popen[str], signals: list[tuple[float, int]]) -> None:
    """Send each signal after its seconds from the one before, for as long as the process lives."""
    for seconds, number in signals:
        time.sleep(seconds)
        if process.poll() is None:
            process.send_signal(number)


def default_signals() -> None:
    """Restore the handlers that a process has unless it was started in the background, where SIGINT is ignored."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
