"""What can go wrong for a user, each kind with its exit code.

PavdmError            1   failed
+-- FaultyValues      1   the model gave values that are no video
+-- UsageError        2   a value on the command line
+-- InputError        3   an input file cannot be read
+-- OutputError       4   an output cannot be written
+-- ModelError        5   a model or its weights
+-- DeviceError       6   device or memory
"""

from __future__ import annotations


class PavdmError(Exception):
    """A failure with one line that says what is wrong (`message`) and one that says what would be right (`hint`)."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, str | int]:
        """For scripts: the kind of error, its two lines and the exit code."""
        kind = type(self).__name__
        return {"kind": kind, "message": self.message, "hint": self.hint, "exit_code": self.exit_code}


class FaultyValues(PavdmError):
    """The model gave values that are no video, in float32 too."""


class UsageError(PavdmError):
    """A value the user gave cannot work."""

    exit_code = 2


class InputError(PavdmError):
    """An input file cannot be read as what it should be."""

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
