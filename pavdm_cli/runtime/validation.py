"""Checks of single values that a user types."""

from __future__ import annotations

from pavdm_cli.errors import UsageError


def check_text(what: str, text: str) -> None:
    """Refuse bytes that a terminal or a script passed on though they are no text. Raises: UsageError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} is not UTF-8: {text!r}", "write it in UTF-8") from error


def check_name(option: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse what is none of the names that an option takes. Raises: UsageError."""
    if name not in known:
        raise UsageError(f"{option} must be one of {', '.join(known)}, got {name!r}", f"{known[0]} is the default")
