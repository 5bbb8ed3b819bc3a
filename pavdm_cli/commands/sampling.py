"""Options of a command to a `Sampling`: `generate`, `extend` and `bench` share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pavdm_cli.commands.run import pick_seed
from pavdm_cli.generation.request import Sampling
from pavdm_cli.models.execution import Engine
from pavdm_cli.models.registry import find


def sampling_of(params: Mapping[str, Any]) -> Sampling:
    """The options of a command, by name; a command need not have all of them. Raises: ModelError, UsageError."""
    cache, compiled = params.get("context_cache"), params.get("compiled", False)
    engine = {name: params[name] for name in _names(Engine) if name in params}
    defaults = {option.key: option.default for option in find(params["model"]).options}
    options = {key: params[key] for key in defaults if params.get(key) is not None and params[key] != defaults[key]}
    own = {name: params[name] for name in _names(Sampling) if name in params}
    return Sampling(
        **own | {"seed": pick_seed(params["seed"]), "lora": tuple(params.get("lora") or ())},
        engine=Engine(**engine, compile=compiled, reuse_context=None if cache is None else cache == "reuse"),
        options=options,
    )


def _names(kind: type[Sampling] | type[Engine]) -> set[str]:
    return {field.name for field in fields(kind)}
