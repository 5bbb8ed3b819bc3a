"""Converts the flags of `generate`, `extend` and `bench` to a `Request`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pavdm_cli.commands.run import pick_seed
from pavdm_cli.generation.request import Request, build_request, frame_size
from pavdm_cli.models.registry import find


def request_from_params(params: Mapping[str, Any], **overrides: Any) -> Request:
    """Build a request from a command's parameters; `overrides` replace some. Raises: ModelError, UsageError."""
    values = dict(params)
    values |= {"path": values.pop("output", None), "ffmpeg": os.environ.get("PAVDM_FFMPEG", "")}
    values |= overrides
    values["size"] = frame_size(values.get("size"), values.get("aspect", ""), find(values["model"]).spec)
    values["seed"] = pick_seed(values["seed"])
    return build_request(values)
