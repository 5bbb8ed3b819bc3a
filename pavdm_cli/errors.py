"""The exceptions that pavdm raises, and their exit codes.

PavdmError              1   failed
+-- InvalidOutputError  1   the model produced NaN or out-of-range values
+-- UsageError          2   an invalid option, or options that cannot be combined
+-- InputError          3   an input file cannot be read
+-- OutputError         4   an output cannot be written
+-- ModelError          5   a model or its weights
+-- DeviceError         6   device or memory
"""

from __future__ import annotations


class PavdmError(Exception):
    """Base class. `message` says what went wrong, `hint` how to fix it; both are single lines."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_line(self) -> str:
        """Message and hint in one line, for lists of errors."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def as_dict(self) -> dict[str, str | int]:
        """The error as JSON-ready values, for `--json`."""
        kind = type(self).__name__
        return {"kind": kind, "message": self.message, "hint": self.hint, "exit_code": self.exit_code}


class InvalidOutputError(PavdmError):
    """The model produced NaN or out-of-range values, even in float32."""


class UsageError(PavdmError):
    """An invalid option value, or options that cannot be combined."""

    exit_code = 2


class InputError(PavdmError):
    """An input file is unreadable or not in the expected format."""

    exit_code = 3


class OutputError(PavdmError):
    """An output file cannot be written."""

    exit_code = 4


class ModelError(PavdmError):
    """A model or its weights are missing or wrong."""

    exit_code = 5


class DeviceError(PavdmError):
    """The device is missing, or has too little memory."""

    exit_code = 6
