"""Text for the terminal: of unknown origin but safe to print, quoted for a shell, or with a number."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence

# Control and format characters (escape sequences, text direction, zero width), surrogates, line and paragraph breaks.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def pluralize(count: int, noun: str) -> str:
    """'1 frame', '2 frames': for nouns with a plural in s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def format_estimate(seconds: float) -> str:
    """'12.3 s', '15 min', '3.5 h' or '3.8 days': in the largest unit that leaves a number of at least two."""
    for unit, name, digits in ((86400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds:.1f} s"


def truncate(text: str, max_length: int = 60) -> str:
    """The text, or its beginning and "..." if it is longer."""
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def printable(text: str) -> str:
    """The text in one line, with escapes for all that would move the cursor, or hide or reorder characters."""
    if text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in HIDDEN else char for char in text)


def quote(word: str) -> str:
    """A word quoted for bash and zsh in printable characters, including file names that are not valid Unicode."""
    if printable(word) == word:
        return shlex.quote(word)
    return f"$'{''.join(map(_octal, word))}'"


def command_line(verb: Sequence[str], argument: str, options: Sequence[str] = ()) -> str:
    """A command with one argument: before its options, or after them and `--` if it starts with a dash."""
    words = [*options, "--", argument] if argument.startswith("-") else [argument, *options]
    return " ".join([*verb, *map(quote, words)])


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _octal(char: str) -> str:
    """A character inside $'...': its bytes in octal unless it is printable."""
    if char in "\\'":
        return f"\\{char}"
    if printable(char) == char:
        return char
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))
