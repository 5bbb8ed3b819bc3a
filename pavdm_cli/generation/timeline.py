"""The prompt timeline: prompts that change while a video runs, read from options and files, and checked."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from pavdm_cli.errors import InputError, UsageError
from pavdm_cli.runtime.untrusted import (
    InvalidError,
    Kind,
    list_of,
    mismatches,
    number,
    parse_json,
    read_text,
    string,
    summarize,
)
from pavdm_cli.runtime.validation import check_text

NUMBER = r"[0-9]+(?:\.[0-9]+)?"
CLOCK = rf"(?:(?:[0-9]+:)?[0-9]{{1,2}}:)?{NUMBER}s?"  # 20, 20s, 1:20, 1:02:03.5
UNITS = rf"(?=[0-9])(?:{NUMBER}h)?(?:{NUMBER}m)?(?:{NUMBER}s)?"  # 2m, 1h30m, 1m30s
TIME = rf"(?:{CLOCK}|{UNITS})"
UNIT_SECONDS = {"h": 3600, "m": 60, "s": 1}
ENTRY = rf"({TIME})\s*:\s+(.*)"
TIME_FORMATS = "20s, 20.5, 2m, 1m30s, 1:20 or 1:02:03"
FOREVER = "forever"
HINT = 'for example --at 20s "a blue kite at night"'
MAX_CHANGES = 1000
MAX_BLEND = 3600  # seconds
MAX_TIME = 10**9  # seconds, of a stored prompt
MAX_TIME_LENGTH = 1000  # characters
MAX_PROMPT_LENGTH = 20_000  # characters


@dataclass(frozen=True, slots=True)
class PromptChange:
    """A prompt and the time at which it takes effect."""

    at: float  # seconds
    prompt: str

    @property
    def time(self) -> Fraction:
        """Seconds, exactly as the decimal number that was typed."""
        return Fraction(str(self.at))

    def __str__(self) -> str:
        return f"{format_seconds(self.at)}: {self.prompt}"


def _is_prompt(value: object) -> bool:
    """Whether a value is text without surrogates, as on the command line."""
    return string(MAX_PROMPT_LENGTH).fits(value) and not re.search("[\ud800-\udfff]", str(value))


STORED_PROMPT = Kind(f"a string of up to {MAX_PROMPT_LENGTH} characters", _is_prompt)
CHANGE_FIELDS = {"at": number(0, MAX_TIME), "prompt": STORED_PROMPT, "caption": STORED_PROMPT}


def _is_stored_change(value: object) -> bool:
    """Whether a value is a stored prompt change."""
    if not isinstance(value, dict) or not {"at", "prompt"} <= value.keys() <= CHANGE_FIELDS.keys():
        return False
    return not mismatches(value, CHANGE_FIELDS)


TIMELINE_KIND = list_of(Kind("an object with a time and a prompt", _is_stored_change), MAX_CHANGES)


def format_seconds(seconds: float) -> str:
    """Format a time for `--at`."""
    return f"{seconds:.10f}".rstrip("0").rstrip(".") + "s"


def parse_time(text: str | float) -> float:
    """Seconds of a number, or of a string like 20s, 20.5, 2m, 1m30s, 1:20 or 1:02:03. Raises: UsageError."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        text = f"{text}"
    if not isinstance(text, str) or len(text) > MAX_TIME_LENGTH or not re.fullmatch(TIME, text.strip()):
        raise UsageError(f"{summarize(text)} is not a valid time", f"write {TIME_FORMATS}")
    if re.fullmatch(UNITS, text.strip()):
        parts = re.findall(rf"({NUMBER})([hms])", text)
        return _to_float(sum((Fraction(count) * UNIT_SECONDS[unit] for count, unit in parts), Fraction()))
    *larger, last = text.strip().removesuffix("s").split(":")
    if larger and (float(last) >= 60 or any(int(part) >= 60 for part in larger[1:])):
        raise UsageError(f"{text!r} is not a valid time: minutes and seconds must be below 60", f"write {TIME_FORMATS}")
    seconds = Fraction(last)
    for power, part in enumerate(reversed(larger), 1):
        seconds += int(part) * 60**power
    return _to_float(seconds)


def _to_float(seconds: Fraction) -> float:
    """Raises: UsageError for more than a float can hold."""
    try:
        return float(seconds)
    except OverflowError:
        raise UsageError("the time is longer than any video", f"write {TIME_FORMATS}") from None


def is_time(text: str) -> bool:
    """Whether `parse_time` accepts a string."""
    try:
        parse_time(text)
    except UsageError:
        return False
    return True


def parse_seconds(text: str | float) -> float | str:
    """A length: "forever", a number of seconds, or a string like 90s, 1:30 or 1m30s. Raises: UsageError."""
    return FOREVER if text == FOREVER else parse_duration(text, "--seconds", f" or {FOREVER}")


def parse_duration(text: str | float, flag: str, others: str = "") -> float:
    """The seconds of a number, such as 60 or 1e3, or of a time, such as 1:30. Raises: UsageError with the flag."""
    with suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return seconds
    with suppress(UsageError):
        return parse_time(text)
    raise UsageError(f"{flag} must be a time{others}, got {text!r}", f"for example {flag} 60, 90s, 1:30 or 1m30s")


def is_change(text: str) -> bool:
    """Whether a string is a `TIME: PROMPT` entry."""
    return re.fullmatch(ENTRY, text.strip(), re.DOTALL) is not None


def split_changes(text: str) -> list[str]:
    """The entries of a text like "20s: a prompt; 1:20: another one"."""
    return re.split(rf"\s*;\s*(?={TIME}\s*:\s)", text.strip())


def parse_timeline(at: Any = (), timeline: Any = ()) -> tuple[PromptChange, ...]:
    """Parse `at` (entries like "20s: a prompt", or pairs) or `timeline` (a file, or changes).

    Raises: UsageError, InputError.
    """
    if at and timeline:
        raise UsageError("--at and --timeline cannot be combined", "use only one of them")
    if isinstance(timeline, (str, Path)):
        return read_timeline(Path(timeline))
    pairs = at.items() if isinstance(at, Mapping) else [at] if isinstance(at, str) else at
    return tuple(timeline or ()) or tuple(_change(pair, "--at") for pair in pairs or ())


def read_timeline(path: Path) -> tuple[PromptChange, ...]:
    """The changes of a file: lines like `20s: a prompt`, or JSON. Raises: InputError."""
    try:
        text = read_text(path)
        entries = _json_entries(text) if text.lstrip()[:1] in ("{", "[") else _lines(text)
        if not entries:
            raise InvalidError("it is empty")
        return tuple(_change(entry, location) for location, entry in entries)
    except (OSError, InvalidError, UsageError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = 'write lines like `20s: a blue kite at night`, or JSON like {"20s": "a blue kite at night"}'
        raise InputError(f"cannot read the timeline {path}: {reason}", hint) from None


def _lines(text: str) -> list[tuple[str, Any]]:
    """(line number, entry) pairs, without blank lines and # comments."""
    lines = [(f"line {number}", line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(location, line) for location, line in lines if line and not line.startswith("#")]


def _json_entries(text: str) -> list[tuple[str, Any]]:
    """Entries of an object by time, or of a list of objects with `at` and `prompt`."""
    value = parse_json(text)
    if isinstance(value, dict):
        return [(f"entry {number}", pair) for number, pair in enumerate(value.items(), 1)]
    keys = {"at", "prompt"}
    if not all(isinstance(entry, dict) and entry.keys() == keys for entry in value):
        raise InvalidError('each entry of a list must be like {"at": "20s", "prompt": "a blue kite at night"}')
    return [(f"entry {number}", (entry["at"], entry["prompt"])) for number, entry in enumerate(value, 1)]


def _change(entry: Any, location: str) -> PromptChange:
    """One change, of a string like "20s: a prompt" or a pair of time and prompt. Raises: UsageError."""
    if isinstance(entry, str):
        match = re.fullmatch(ENTRY, entry.strip(), re.DOTALL)
        if not match:
            raise UsageError(f"{location} needs a time and a prompt, got {entry[:80]!r}", HINT)
        entry = match.groups()
    at, prompt = entry if isinstance(entry, Sequence) and len(entry) == 2 else ("", None)
    if not isinstance(prompt, str):
        raise UsageError(f"{location} needs a time and a prompt", HINT)
    try:
        return PromptChange(parse_time(at), " ".join(prompt.split()))
    except UsageError as error:
        raise UsageError(f"{location}: {error.message}", error.hint) from None


def check_prompt(subject: str, prompt: str) -> None:
    """Reject a prompt that could not be read back from the file. Raises: UsageError."""
    check_text(subject, prompt)
    if len(prompt) > MAX_PROMPT_LENGTH:
        raise UsageError(f"{subject} has {len(prompt)} characters, more than {MAX_PROMPT_LENGTH}", "shorten it")


def check_timeline(has_prompt: bool, changes: Sequence[PromptChange], blend: float, seconds: float | None) -> None:
    """Validate prompt changes against the video's length (None: unknown). Raises: UsageError.

    has_prompt: whether there is a prompt to change.
    """
    if not changes:
        if blend:
            raise UsageError("--blend needs more than one prompt", "add --at, or omit --blend")
        return
    if not has_prompt:
        raise UsageError("--at needs an initial prompt", "add an initial prompt")
    if len(changes) > MAX_CHANGES:
        raise UsageError(f"a timeline has at most {MAX_CHANGES} prompts, got {len(changes)}", "omit some")
    for change in changes:
        check_prompt(f"the prompt at {format_seconds(change.at)}", change.prompt)
        if not change.prompt:
            raise UsageError(f"the prompt at {format_seconds(change.at)} is empty", HINT)
    _check_times([change.at for change in changes], blend, seconds)


def _check_times(times: Sequence[float], blend: float, seconds: float | None) -> None:
    if not times[0] > 0:
        raise UsageError("the initial prompt starts at 0s: later prompts need a time above 0", HINT)
    if not 0 <= blend <= MAX_BLEND:
        raise UsageError(f"--blend must be 0 to {MAX_BLEND} seconds, got {blend:g}", "0 switches immediately")
    for before, after in pairwise(times):
        names = f"got {format_seconds(before)}, then {format_seconds(after)}"
        if after <= before:
            raise UsageError(f"the times of prompts must ascend: {names}", "put them in order, each time once")
        if blend > after - before:
            raise UsageError(
                f"--blend {blend:g} is longer than the time between two prompts: {names}", "make it shorter"
            )
    if seconds is not None and times[-1] >= seconds:
        late = f"the prompt at {format_seconds(times[-1])} is beyond the end of the video, {format_seconds(seconds)}"
        raise UsageError(late, "make the video longer with --seconds, or give an earlier time")


def check_reachable(changes: Sequence[PromptChange], chunks: range, chunk_start: Callable[[int], Fraction]) -> None:
    """Reject a prompt during which no chunk starts; chunk_start: a chunk's time in seconds. Raises: UsageError."""
    first_chunks = [bisect_left(chunks, change.time, key=chunk_start) for change in changes]
    for change, first, end in zip(changes, first_chunks, [*first_chunks, len(chunks)][1:], strict=True):
        if first == end:
            until = "the end of the video" if change == changes[-1] else "the next prompt"
            message = f"the prompt at {format_seconds(change.at)} has no effect: no chunk starts between it and {until}"
            raise UsageError(message, f"a chunk starts at {format_seconds(float(chunk_start(chunks[first - 1])))}")
