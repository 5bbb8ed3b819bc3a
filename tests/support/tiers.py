"""Which tier of the tests a parameter belongs to."""

from __future__ import annotations

from typing import Any

import pytest


def integration(*values: Any) -> list[Any]:
    """Parameters for the `integration` tier only; a tuple holds the values of several arguments."""
    mark = pytest.mark.integration
    return [pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=mark) for value in values]
