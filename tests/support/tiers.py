"""Which tier of the tests a parameter belongs to."""

from __future__ import annotations

from typing import Any

import pytest


def integration(*values: Any) -> list[Any]:
    """Parameters for the `integration` tier only; a tuple holds the values of several arguments."""
    return [_marked(value, pytest.mark.integration) for value in values]


def long(*values: Any) -> list[Any]:
    """Parameters for the `long` tier only, also of a test that is marked for another one."""
    return [_marked(value, pytest.mark.long) for value in values]


def _marked(value: Any, mark: pytest.MarkDecorator) -> Any:
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=mark)
