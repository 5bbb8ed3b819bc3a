"""Errors that come from elsewhere, the system, a device or a mistake in the code, as one line and a hint."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

from pavdm_cli.errors import DeviceError, OutputError, PavdmError

PACKAGE = Path(__file__).parents[1]
FULL = "free some space there, or choose another place with -o"
LOST = "the disk or its connection fails: see the system's log, and choose another place with -o"
WRITING = {  # what the system refuses to a program that writes, and what would help
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "the file system or `ulimit -f` takes no larger file: choose another place with -o, or a higher --crf",
    errno.EROFS: "the file system takes no writes: choose another place with -o",
}
REASONS = WRITING | {
    errno.EIO: LOST,
    errno.ESTALE: LOST,
    errno.ENXIO: LOST,
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "too many files are open: close other programs",
}
MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "ALLOC_FAILED")
AGAIN = "run it again in a new process; if it fails again, the system's log and `nvidia-smi` say whether the GPU does"
CPU = "see `pavdm doctor`, or use --device cpu"
DEVICES = {  # words of a RuntimeError, the first that fit; and what would help
    "device-side assert": "CUDA_LAUNCH_BLOCKING=1 names the operation; with --device cpu it says what is wrong",
    "no kernel image": f"this torch was not built for this GPU: {CPU}",
    "NVIDIA driver": f"the driver and torch do not fit: {CPU}",
    "CUDA driver": f"the driver and torch do not fit: {CPU}",
    "NCCL": "see that every process still runs and reaches the others; NCCL_DEBUG=INFO says more",
    "for the MPS device": "PYTORCH_ENABLE_MPS_FALLBACK=1 lets the CPU do that, or use --device cpu",
    **dict.fromkeys(("MPS backend", "MPS device", "Metal"), "use --device cpu"),
    **dict.fromkeys(("CUDA error", "HIP error", "Triton Error", "cuDNN error", "CUDNN_STATUS"), AGAIN),
    **dict.fromkeys(("CUBLAS_STATUS", "CUSOLVER_STATUS", "CUFFT_STATUS", "cuSOLVER error", "cuFFT error"), AGAIN),
}
BUG = "a mistake in pavdm or in a library that it uses: `pavdm -v ...` or PAVDM_TRACEBACK=1 shows where it is"


def diagnose(error: Exception) -> PavdmError:
    """The error as one of ours, with its notes at the end of the message."""
    if isinstance(error, PavdmError):
        return error
    notes = "".join(f": {note}" for note in getattr(error, "__notes__", ()))
    if lacks_memory(error):
        return DeviceError(f"out of memory{notes}", "close other programs, or make it smaller")
    if advice := device_advice(error):
        return DeviceError(f"the device failed: {first_line(error)}{notes}", advice)
    if isinstance(error, OSError):
        kind = OutputError if error.errno in WRITING else PavdmError
        return kind(f"{error}{notes}", REASONS.get(error.errno or 0, ""))
    return PavdmError(f"{type(error).__name__}{_place(error)}: {first_line(error)}{notes}", BUG)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not to be had, on a device or on the host."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY)
    )


def device_advice(error: BaseException) -> str:
    """What helps where a device failed; empty for an error of another kind."""
    if not isinstance(error, RuntimeError):
        return ""
    return next((advice for words, advice in DEVICES.items() if words in str(error)), "")


def write_advice(error: OSError) -> str:
    """What helps where a file could not be written; empty where nothing is known."""
    return REASONS.get(error.errno or 0, "")


def interrupted(error: BaseException) -> bool:
    """Whether an error is what a library made of an interrupt."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that follow it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _place(error: BaseException) -> str:
    """The last line of this package that ran."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(frame.filename).parents]
    return f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
