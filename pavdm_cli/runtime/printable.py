"""Text of unknown origin, safe to print: in a line for people, and as a command for a shell."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence

# Control and format characters (escape sequences, text direction, zero width), surrogates, line and paragraph breaks.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """The text in one line, with everything that would move the cursor, hide or reorder letters as an escape."""
    if text.isprintable():
        return text
    return "".join(_escaped(letter) if unicodedata.category(letter) in HIDDEN else letter for letter in text)


def quote(word: str) -> str:
    """A word as bash and zsh read it back, in printable letters; bytes of a file name that are no text included."""
    if printable(word) == word:
        return shlex.quote(word)
    return f"$'{''.join(map(_octal, word))}'"


def command_line(verb: Sequence[str], argument: str, options: Sequence[str] = ()) -> str:
    """A command with one argument: before its options, or where it begins with a dash, after them and `--`."""
    words = [*options, "--", argument] if argument.startswith("-") else [argument, *options]
    return " ".join([*verb, *map(quote, words)])


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _octal(letter: str) -> str:
    """A letter inside $'...': octal digits of its bytes where it is not plain."""
    if letter in "\\'":
        return f"\\{letter}"
    if printable(letter) == letter:
        return letter
    return "".join(f"\\{byte:03o}" for byte in letter.encode("utf-8", "surrogateescape"))
