"""Text of unknown origin is safe on a terminal, and as an argument pasted into a shell."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import pytest

from pavdm_cli import ui
from pavdm_cli.runtime.printable import command_line, pluralize, printable, quote

HOSTILE = {
    "escape": "\x1b[2J\x1b]0;title\x07",
    "lines": "one\ntwo\rthree\x0b\x0c\x85\u2028\u2029",
    "direction": "abc\u202egnp.exe\u2066\u2069\u200e\u061c",
    "zero width": "a\u200b\u200d\u2060\ufeff\u00ad\U000e0041",
    "control": "\x00\x08\x7f\x9b31m",
    "surrogates": "\udcff\ud800",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_moves_the_cursor_hides_or_reorders_letters(text):
    escaped = printable(text)
    assert escaped.isprintable()
    assert "\\" in escaped


def test_other_text_is_printed_as_it_is():
    for text in ("a red ball", "größer 球 مرحبا 🎈", "back\\slash [red]", "non-breaking\u00a0space\u3000"):
        assert printable(text) == text


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide terminal without colors."""
    for name, value in (("TERM", "xterm"), ("NO_COLOR", "1"), ("COLUMNS", "400")):
        monkeypatch.setenv(name, value)


def said(say: Callable[[], None]) -> str:
    """What a terminal shows of both streams, without the line ends and the escape sequences that rich sends."""
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    with redirect_stdout(screen), redirect_stderr(screen):
        say()
    return re.sub(r"\x1b\[(\?25[lh]|2K|[0-9;]*m)|[\r\n]", "", screen.getvalue())


def everything(text: str) -> None:
    ui.info(text)
    ui.note(text)
    ui.fail(text, text)
    ui.print_lines([text])
    ui.show_table(text, (text, ""), [(text, "")])
    ui.show_table("", ("", ""), [(text, "")], to_stderr=True)
    with ui.progress(text, 2) as advance:
        advance(1, text)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_every_way_to_a_terminal_escapes(text: str):
    output = said(lambda: everything(f"<{text}>"))
    assert output.isprintable()
    assert output.count(f"<{printable(text)}>") >= 10


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("text", ["[red]a[/red]", "[/nothing]", "[link=http://x]y[/link]", ":smile: \\[b]", "[[["])
def test_markup_of_others_is_text(text: str):
    assert said(lambda: everything(f"<{text}>")).count(f"<{text}>") >= 10


WORDS = (
    *HOSTILE.values(), "", "-f", "a b", "it's", "$(id)", "`id`", "a;b|c&d", "~", "!x", "\\'\x1b'", "\x1b0123", "\\x41\n"
)  # fmt: skip


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("word", WORDS)
def test_a_shell_reads_a_quoted_word_back(word: str):
    if "\0" in word or "\ud800" in word:
        word = word.replace("\0", "").replace("\ud800", "")  # no shell can hold the first, no file name the second
    assert quote(word).isprintable()
    result = subprocess.run(["bash", "-c", f"printf %s {quote(word)}"], capture_output=True, check=True)
    assert result.stdout == os.fsencode(word)
    assert result.stderr == b""


def test_an_argument_that_begins_with_a_dash_comes_after_the_end_of_options():
    assert command_line(("pavdm", "extend"), "a b.mp4", ("--frames", "3")) == "pavdm extend 'a b.mp4' --frames 3"
    assert command_line(("pavdm", "extend"), "-f", ("--frames", "3")) == "pavdm extend --frames 3 -- -f"


@pytest.mark.parametrize(("count", "text"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (-1, "-1 frames")])
def test_nouns_agree_with_their_number(count: int, text: str) -> None:
    assert pluralize(count, "frame") == text
