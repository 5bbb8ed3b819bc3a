"""Checks of single values typed by a user."""

from __future__ import annotations

from pavdm_cli.errors import UsageError


def check_text(what: str, text: str) -> None:
    """Check that text is valid Unicode; a shell can pass any bytes. Raises: UsageError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} is not UTF-8: {text!r}", "write it in UTF-8") from error


def check_name(option: str, name: str, choices: tuple[str, ...]) -> None:
    """Check that an option's value is one of its choices; the first is the default. Raises: UsageError."""
    if name not in choices:
        raise UsageError(f"{option} must be one of {', '.join(choices)}, got {name!r}", f"{choices[0]} is the default")
