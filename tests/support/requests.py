"""Requests from flat values, named as the options of the command line."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pavdm_cli.generation.request import Output, Request, build_request, field_names
from pavdm_cli.models import registry
from pavdm_cli.models.execution import ExecutionConfig

KNOWN = field_names(Request) | field_names(ExecutionConfig) | field_names(Output) | registry.options().keys()


def make_request(prompt: str = "", *, execution: ExecutionConfig | None = None, **values: Any) -> Request:
    """Like `build_request`, and no misspelt name; values replace those of `execution`."""
    assert values.keys() <= KNOWN, values.keys() - KNOWN
    return build_request((asdict(execution) if execution else {}) | values | {"prompt": prompt})
