"""Errors of the system, of a device or of the code itself, as one line and a hint."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

from pavdm_cli.errors import DeviceError, OutputError, PavdmError

PACKAGE = Path(__file__).parents[1]
FULL = "free some space there, or choose another folder with -o"
LOST = "the disk or its connection is failing: see the system log, and choose another folder with -o"
WRITE_HINTS = {  # by the errno of a failed write
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "the file system or `ulimit -f` limits file sizes: choose another folder with -o, or a higher --crf",
    errno.EROFS: "the file system is read-only: choose another folder with -o",
}
OS_HINTS = WRITE_HINTS | {
    errno.EIO: LOST,
    errno.ESTALE: LOST,
    errno.ENXIO: LOST,
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "too many files are open: close other programs",
}
OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "ALLOC_FAILED")
AGAIN = "run it again in a new process; if it fails again, see `nvidia-smi` and the system log for a faulty GPU"
CPU = "see `pavdm doctor`, or use --device cpu"
DEVICE_HINTS = {  # by text in a RuntimeError; the first that matches
    "device-side assert": "CUDA_LAUNCH_BLOCKING=1 names the operation; --device cpu shows the error itself",
    "no kernel image": f"this torch was not built for this GPU: {CPU}",
    "NVIDIA driver": f"the driver and torch do not match: {CPU}",
    "CUDA driver": f"the driver and torch do not match: {CPU}",
    "NCCL": "check that all processes are running and can reach each other; NCCL_DEBUG=INFO prints more",
    "for the MPS device": "PYTORCH_ENABLE_MPS_FALLBACK=1 runs it on the CPU, or use --device cpu",
    **dict.fromkeys(("MPS backend", "MPS device", "Metal"), "use --device cpu"),
    **dict.fromkeys(("CUDA error", "HIP error", "Triton Error", "cuDNN error", "CUDNN_STATUS"), AGAIN),
    **dict.fromkeys(("CUBLAS_STATUS", "CUSOLVER_STATUS", "CUFFT_STATUS", "cuSOLVER error", "cuFFT error"), AGAIN),
}
BUG = "a bug in pavdm or in a library that it uses: `pavdm -v ...` or PAVDM_TRACEBACK=1 shows where"


def diagnose(error: Exception) -> PavdmError:
    """The error as a PavdmError, with its notes at the end of the message."""
    if isinstance(error, PavdmError):
        return error
    notes = "".join(f": {note}" for note in getattr(error, "__notes__", ()))
    if is_out_of_memory(error):
        return DeviceError(f"out of memory{notes}", "close other programs, or choose a smaller size")
    if hint := device_hint(error):
        return DeviceError(f"the device failed: {first_line(error)}{notes}", hint)
    if isinstance(error, OSError):
        kind = OutputError if error.errno in WRITE_HINTS else PavdmError
        return kind(f"{error}{notes}", OS_HINTS.get(error.errno or 0, ""))
    return PavdmError(f"{type(error).__name__}{_location(error)}: {first_line(error)}{notes}", BUG)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a device or on the host."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
    )


def device_hint(error: BaseException) -> str:
    """What helps after a failure of a device; empty for other errors."""
    if not isinstance(error, RuntimeError):
        return ""
    return next((hint for text, hint in DEVICE_HINTS.items() if text in str(error)), "")


def write_hint(error: OSError) -> str:
    """What helps if a file cannot be written; empty if nothing is known."""
    return OS_HINTS.get(error.errno or 0, "")


def find_interrupt(error: BaseException) -> KeyboardInterrupt | None:
    """The interrupt that caused an error, as when a library wraps it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _location(error: BaseException) -> str:
    """The innermost line of this package in the traceback."""
    own_frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(frame.filename).parents
    ]
    return f" in {Path(own_frames[-1].filename).name}, line {own_frames[-1].lineno}" if own_frames else ""
