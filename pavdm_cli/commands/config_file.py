"""Configuration files, TOML or YAML, as plain values; malformed or malicious ones are rejected in one line."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pavdm_cli.errors import UsageError
from pavdm_cli.runtime.printable import printable
from pavdm_cli.runtime.untrusted import InvalidError, check_depth, read_text

MAX_BYTES = 64 << 10
PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*"""
LONG_KEY = re.compile(rf"(?<![\w-]){PART}(?:\.[ \t]*{PART}){{32}}")  # takes quadratic time in tomllib
MAX_DEPTH = 6  # of nested tables and lists; options need 3
YAML = (".yaml", ".yml")


def read_config(path: Path) -> dict[str, Any]:
    """The content of a configuration file. Raises: UsageError."""
    if path.suffix.lower() not in (".toml", *YAML):
        raise UsageError(f"{path} is not a TOML or YAML file", "use a file that ends in .toml, .yaml or .yml")
    try:
        text = read_text(path, MAX_BYTES)
        values = parse_toml(text) if path.suffix.lower() == ".toml" else parse_yaml(text)
        check_depth(values, MAX_DEPTH)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "give the path of a TOML or YAML file") from None
    except InvalidError as error:
        raise UsageError(f"{path}: {error}", "`pavdm info --config FILE.mp4` prints a valid one") from None
    except ValueError:  # a NUL byte in the path
        raise UsageError(f"cannot read {path}", "give the path of a TOML or YAML file") from None
    return values


def parse_toml(text: str) -> dict[str, Any]:
    """The value of a TOML document. Raises: InvalidError."""
    import tomllib  # only where there is a file

    if LONG_KEY.search(text):
        raise InvalidError("it has a key with more than 32 parts")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidError(f"it is not TOML: {error}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits; deeply nested lists
        raise InvalidError("it has a number out of range, or is nested too deeply") from None


def parse_yaml(text: str) -> dict[str, Any]:
    """The value of a YAML document, which must be a mapping. Raises: InvalidError, UsageError without PyYAML."""
    if importlib.util.find_spec("yaml") is None:
        raise UsageError("reading YAML needs PyYAML", 'pip install pyyaml, or write the file as TOML, "steps = 30"')
    import yaml

    from pavdm_cli.commands.yaml_loader import ConfigLoader

    try:
        value = ConfigLoader(text, MAX_DEPTH).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidError(f"it is not YAML: {error.problem}{line}") from None
    except yaml.YAMLError as error:
        raise InvalidError(f"it is not YAML: {str(error).splitlines()[0]}") from None
    except (ValueError, RecursionError):
        raise InvalidError("it has a number out of range, or is nested too deeply") from None
    if not isinstance(value, dict):
        raise InvalidError("it is not a mapping of options; write one `name: value` per line, such as `steps: 30`")
    return value


def to_toml(values: Mapping[str, Any]) -> str:
    """Options as TOML. Raises: UsageError for a path that is not Unicode, which TOML cannot hold."""
    return "".join(f"{key.replace('_', '-')} = {_toml_value(value)}\n" for key, value in values.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{printable(text)} is not UTF-8", "rename the file: TOML only supports Unicode") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
