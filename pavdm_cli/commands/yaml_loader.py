"""A YAML loader for configuration files: the core schema of YAML 1.2, without aliases, tags and deep nesting.

PyYAML implements YAML 1.1, which reads `on` as true and `9:16` as 556. Imported only where YAML is read.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"
CORE = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
)


class ConfigLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Rejects aliases, tags and deep nesting with yaml.MarkedYAMLError before building large values."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as in the base class

    def __init__(self, text: str, max_depth: int) -> None:
        super().__init__(text)
        self.depth, self.max_depth = 0, max_depth

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Like the base class, but rejects aliases, tags and deep nesting."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not supported", problem_mark=event.start_mark)
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem="tags are not supported", problem_mark=event.start_mark)
        self.depth += 1
        if self.depth > self.max_depth + 1:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Like the base class, but rejects duplicate and non-string keys."""
        keys = Counter(str(key.value) for key, _ in node.value)
        if duplicate := next((key for key, count in keys.items() if count > 1), None):
            raise yaml.MarkedYAMLError(problem=f"duplicate key {duplicate!r}", problem_mark=node.start_mark)
        if any(key.tag != f"{TAG}str" for key, _ in node.value):
            raise yaml.MarkedYAMLError(problem="keys must be strings", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


for name, pattern, first in CORE:
    ConfigLoader.add_implicit_resolver(f"{TAG}{name}", re.compile(rf"^(?:{pattern})$"), list(first))
