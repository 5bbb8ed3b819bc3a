"""Schema of the metadata in video files, which is untrusted input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.prompt_ranges import STORED_RANGES
from pavdm_cli.generation.request import MAX_SCALE, SCALE_FILTERS
from pavdm_cli.generation.timeline import STORED_PROMPT, TIMELINE_KIND
from pavdm_cli.models import registry
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.spec import ModelOption
from pavdm_cli.runtime.untrusted import (
    FLAG,
    Kind,
    integer,
    list_of,
    mapping_of,
    mismatches,
    number,
    one_of,
    optional,
    stored_kinds,
    string,
)

MAX_NAME_LENGTH, MAX_TEXT_LENGTH = 64, 20_000  # characters
COUNT, PATH, SCORE = integer(0, 10**9), string(4096), optional(number(0, 100))


def _is_size_text(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("[0-9]{1,5}x[0-9]{1,5}", value))


def _is_plain(value: object) -> bool:
    return value is None or type(value) in (bool, int, float) or string(MAX_TEXT_LENGTH).fits(value)


def _is_redo(value: object) -> bool:
    """Whether a value is a record of a redo."""
    if not isinstance(value, dict) or not REDO.keys() <= value.keys():
        return False
    kinds = REDO | {"timeline": TIMELINE_KIND, "new_end": COUNT}
    unknown_fields = {name: other for name, other in value.items() if name not in kinds}
    if mismatches(value, kinds) or len(unknown_fields) > 100:
        return False
    return all(map(UNKNOWN_KIND.fits, unknown_fields.values()))


def _kind_of(option: ModelOption) -> Kind:
    """The kind of a model option's value."""
    if option.type is bool:
        return FLAG
    return optional(string(1000)) if option.type is str else SCORE


REDO = {
    "source": PATH,
    "first": COUNT,
    "end": COUNT,
    "seed": integer(0, 2**63 - 1),
    "prompt": STORED_PROMPT,
}
FIELDS = {
    "pavdm": string(50),
    **dict.fromkeys(("prompt", "caption"), STORED_PROMPT),
    "fps": number(0.001, 1000),
    "size": Kind("WIDTHxHEIGHT", _is_size_text),
    "model": PATH,
    **stored_kinds(GenerationConfig),
    **stored_kinds(ExecutionConfig),
    "lora": list_of(PATH, 100),
    **dict.fromkeys(("weights", "image_digest"), string(100)),
    "attention_reason": string(1000),
    "versions": mapping_of(string(100), 100),
    "crf": integer(0, 51),
    "scale": integer(1, MAX_SCALE),
    "scale_filter": one_of(*SCALE_FILTERS),
    **dict.fromkeys(("image", "source"), PATH),
    "only_new": FLAG,
    "copied": COUNT,
    "start": one_of("clip", "noised"),
    "audio": one_of("keep", "silence", "drop"),
    "redo": list_of(Kind("a redo record", _is_redo), 1000),
    "prompt_ranges": STORED_RANGES,
}
FIELDS |= {option.key: _kind_of(option) for option in registry.options().values()}
PLAIN = Kind("a number or a string", _is_plain)
UNKNOWN_KINDS = (PLAIN, list_of(PLAIN, 100), mapping_of(PLAIN, 100))  # of fields that other versions write
UNKNOWN_KIND = Kind(
    "a number, a string, or a few of them", lambda value: any(kind.fits(value) for kind in UNKNOWN_KINDS)
)


def valid_fields(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Split metadata into valid fields and error messages for the rest."""
    valid, errors = {}, []
    for name, value in metadata.items():
        if len(name) > MAX_NAME_LENGTH:
            errors.append(f"a name of {len(name)} characters")
        elif lines := mismatches({name: value}, {name: FIELDS.get(name, UNKNOWN_KIND)}):
            errors += lines
        else:
            valid[name] = value
    return valid, errors


def first_lines(lines: list[str], count: int = 5) -> list[str]:
    """The first `count` lines, plus "and n more"."""
    return lines[:count] + ([f"and {len(lines) - count} more"] if len(lines) > count else [])
