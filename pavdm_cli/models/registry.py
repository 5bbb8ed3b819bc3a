"""The models by name, one line each; a model's module is imported on first use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.recognize import recognize, unknown_model_error
from pavdm_cli.models.adapter import VideoModel
from pavdm_cli.models.spec import ModelOption, ModelSpec

MODELS = {
    "pocket": "pavdm_cli.models.pocket.model",
    "opensora-v1.2": "pavdm_cli.models.opensora.model",
    "skyreels-v2-df-1.3b": "pavdm_cli.models.wan.model",
    "skyreels-v2-df-14b-540p": "pavdm_cli.models.wan.model",
    "skyreels-v2-df-14b-720p": "pavdm_cli.models.wan.model",
    "wan2.1-t2v-1.3b": "pavdm_cli.models.wan.model",
    "wan2.1-t2v-14b": "pavdm_cli.models.wan.model",
    "wan2.2-ti2v-5b": "pavdm_cli.models.wan.model",
}  # each module defines MODEL, or several MODELS by name
ARCHITECTURES = {"mid": "pavdm_cli.models.opensora.mid"}  # only for benchmarks, with random weights
DEFAULT = "pocket"


@cache
def _import_model(name: str, module: str) -> VideoModel:
    content = import_module(module)
    model: VideoModel = content.MODELS[name] if hasattr(content, "MODELS") else content.MODEL
    return model


def get(name: str) -> VideoModel:
    """The model or benchmark architecture with this name."""
    return _import_model(name, (MODELS | ARCHITECTURES)[name])


def all_models() -> Iterator[VideoModel]:
    """Imports the modules of all models."""
    return map(get, MODELS)


def specs() -> list[ModelSpec]:
    """The specs of all models."""
    return [model.spec for model in all_models()]


def options() -> dict[str, ModelOption]:
    """The options that models add, by key; if several models have one, that of the first."""
    options_by_key: dict[str, ModelOption] = {}
    for model in all_models():
        options_by_key = {option.key: option for option in model.options} | options_by_key
    return options_by_key


def shared_default(key: str) -> Any:
    """The default of an option if all models that have it agree, else None."""
    defaults = [option.default for model in all_models() for option in model.options if option.key == key]
    return defaults[0] if all(default == defaults[0] for default in defaults) else None


def find(name: str) -> VideoModel:
    """The model with this name, or of the weights in this folder, by its configuration files. Raises: ModelError."""
    if name in MODELS:
        return get(name)
    if os.path.isfile(name):
        raise ModelError(f"{name} is a file", f"give a folder of weights, or a name: {', '.join(MODELS)}")
    if not name or not os.path.isdir(name):
        repositories = {part.repo: spec.name for spec in specs() for part in spec.parts}
        raise unknown_model_error(name, MODELS, repositories)
    return get(recognize(Path(name), specs())).with_weights(name, Path(name).resolve())
