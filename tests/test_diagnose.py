"""System and device errors become one line, with a useful hint and the right exit code."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from pavdm_cli import app
from pavdm_cli.errors import InputError
from pavdm_cli.runtime.diagnose import diagnose, find_interrupt


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number), "v.mp4")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 6, "close other programs"),
        (MemoryError("std::bad_alloc"), 6, "close other programs"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), 6, "smaller"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), 6, "smaller"),
        (system(errno.ENOMEM), 6, "smaller"),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors"), 6, "nvidia-smi"),
        (RuntimeError("CUDA error: device-side assert triggered"), 6, "CUDA_LAUNCH_BLOCKING=1"),
        (RuntimeError("CUDA error: no kernel image is available for execution"), 6, "not built for this GPU"),
        (RuntimeError("Found no NVIDIA driver on your system."), 6, "driver"),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled system error"), 6, "NCCL_DEBUG"),
        (NotImplementedError("The operator 'aten::x' is not implemented for the MPS device."), 6, "FALLBACK"),
        (system(errno.ENOSPC), 4, "free some space"),
        (system(errno.EDQUOT), 4, "free some space"),
        (system(errno.EROFS), 4, "read-only"),
        (system(errno.EFBIG), 4, "limits file sizes"),
        (system(errno.EIO), 1, "the disk or its connection"),
        (system(errno.ESTALE), 1, "the disk or its connection"),
        (InputError("it is no video"), 3, ""),
    ],
)
def test_what_fails_outside_is_one_line_with_its_hint(error: Exception, code: int, words: str) -> None:
    error_found = diagnose(error)
    assert error_found.exit_code == code
    assert "\n" not in error_found.message
    assert words in error_found.hint


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu!"),
        KeyError("window"),
        AssertionError(),
    ],
)
def test_a_mistake_of_our_own_is_called_one(error: Exception) -> None:
    error.add_note("kept v.partial.mp4, 12 frames")
    error_found = diagnose(error)
    assert error_found.exit_code == 1
    assert error_found.message.startswith(type(error).__name__)
    assert error_found.message.endswith(": kept v.partial.mp4, 12 frames")
    assert "PAVDM_TRACEBACK=1" in error_found.hint


def test_an_interrupt_that_a_library_turned_into_another_error_is_known() -> None:
    converted = ImportError("numpy failed to import")
    converted.__context__ = KeyboardInterrupt()
    assert find_interrupt(converted)
    assert not find_interrupt(ImportError())


def fails(**options: object) -> None:
    raise ZeroDivisionError("division by zero")


def test_the_traceback_of_a_mistake_is_shown_if_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "app", fails)
    monkeypatch.setattr(sys, "argv", ["pavdm"])
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert stop.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ZeroDivisionError in app.py, line ")
    assert lines[1].startswith("hint: a bug in pavdm")
    monkeypatch.setenv("PAVDM_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        app.main()
