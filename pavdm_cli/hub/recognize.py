"""Resolves `--model` values that are not model names: folders, by their configurations, hub repositories, and typos."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pavdm_cli.errors import ModelError
from pavdm_cli.runtime import untrusted
from pavdm_cli.runtime.printable import quote
from pavdm_cli.runtime.untrusted import InvalidError, list_of, optional, string, summarize

if TYPE_CHECKING:
    from pavdm_cli.models.spec import ModelSpec

DECLARATIONS = {
    "_class_name": optional(string(200)),  # diffusers
    "model_type": optional(string(200)),  # transformers, as the next
    "architectures": optional(list_of(string(200), 16)),
}
PIPELINE, CONFIG = "model_index.json", "config.json"
INDEX = ".index.json"
ROOT = ""  # stands for the whole model, if all parts are in one folder
HUB = "https://huggingface.co/"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def recognize(folder: Path, specs: Sequence[ModelSpec]) -> str:
    """The name of the model in a folder, by its files and their configurations; parts may be missing.

    Raises: ModelError.
    """
    hint = f"known models: {', '.join(spec.name for spec in specs)}"
    entries = _entries(folder, specs, hint)
    for spec in specs:
        if spec.files and entries.issuperset(spec.files):
            return spec.name
    # A broken link is a missing part.
    candidates = [spec for spec in specs if entries.intersection(spec.architectures)]
    if not candidates and CONFIG in entries and PIPELINE not in entries:
        candidates = [spec for spec in specs if _declares_part(folder / CONFIG, spec, ROOT)]
    if PIPELINE in entries and not any(_declares_part(folder / PIPELINE, spec, PIPELINE) for spec in candidates):
        _reject(folder, _read(folder / PIPELINE), specs, hint)
    if not candidates and CONFIG in entries:
        _reject(folder, _read(folder / CONFIG), specs, hint)
    for spec in () if candidates else specs:
        if entries.intersection(spec.files):
            missing = ", ".join(sorted(set(spec.files) - entries))
            hint = f"a folder of {spec.name} holds {' and '.join(spec.files)}"
            raise ModelError(f"{folder} has no {missing}", hint)
    if not candidates:
        raise ModelError(f"{folder} contains no model: {_join_first(sorted(entries))}", hint)
    matching_specs = [spec for spec in candidates if not _foreign_part_error(folder, spec)]
    if not matching_specs:
        closest = max(candidates, key=lambda spec: _num_known_parts(folder, spec))
        raise ModelError(_foreign_part_error(folder, closest), hint)
    return max(matching_specs, key=lambda spec: _similarity(folder, spec)).name  # the first of equals


def _declares_part(path: Path, spec: ModelSpec, part: str) -> bool:
    """Whether a configuration declares an architecture of the part. Raises: ModelError."""
    return _matches_architecture(_architectures_of(path, _read(path)), spec.architectures.get(part, ()))


def _config_path(folder: Path, part: str) -> Path:
    return folder / PIPELINE if part == PIPELINE else folder / part / CONFIG


def _matches_architecture(names: Iterable[str], architectures: Iterable[str]) -> bool:
    """Whether any name is one of these architectures, in upper or lower case."""
    return not {name.lower() for name in names}.isdisjoint(architecture.lower() for architecture in architectures)


def _num_known_parts(folder: Path, spec: ModelSpec) -> int:
    """Number of parts in a folder that declare an architecture of the model. Raises: ModelError."""
    paths = {part: _config_path(folder, part) for part in spec.architectures}
    return sum(path.is_file() and _declares_part(path, spec, part) for part, path in paths.items())


def _similarity(folder: Path, spec: ModelSpec) -> int:
    """Distinguishing values in the configurations that match the model's, minus those that do not."""
    score = 0
    for part, values in spec.distinguishing_config.items():
        path = folder / part / CONFIG
        if path.is_file():
            config = _read(path)
            score += sum(1 if config.get(name) == value else -1 for name, value in values.items())
    return score


def _foreign_part_error(folder: Path, spec: ModelSpec) -> str:
    """A message about a part that declares an architecture other than the model's, or empty. Raises: ModelError."""
    for part, architectures in spec.architectures.items():
        path = _config_path(folder, part)
        if part == ROOT and any((folder / sibling).exists() for sibling in spec.architectures if sibling != ROOT):
            continue
        names = _architectures_of(path, _read(path)) if os.path.lexists(path) else []
        if names and not _matches_architecture(names, architectures):
            return f"{folder / part} has an unknown architecture: {summarize(names[0])}"
    return ""


def unknown_model_error(name: str, names: Iterable[str], repositories: Mapping[str, str]) -> ModelError:
    """The error for a name that is neither a model nor a folder, with the nearest known name.

    names: of the known models; repositories: on the hub, with the model that each belongs to.
    """
    short = name if len(name) <= 100 else f"{name[:100]}..."
    hub_id = name.removeprefix(HUB).rstrip("/")
    models = {repository.lower(): model for repository, model in repositories.items()}
    known_models = f"known models: {', '.join(names)}"
    if hub_id.lower() in models:
        model = models[hub_id.lower()]
        return ModelError(f"{short} is a part of {model}", f"use the model's name: {model}")
    suggestion = _nearest(hub_id.rpartition("/")[2], names)
    hint = f"did you mean {suggestion}? {known_models}" if suggestion else known_models
    if HUB_ID.fullmatch(hub_id):
        return ModelError(f"there is no folder {short}, and no hub repository of that name that pavdm knows", hint)
    if "/" in name or "\\" in name:
        pull_hints = [_pull_hint(model, short) for model in [*models.values()][:1]]
        return ModelError(f"there is no folder {short}", "; ".join([hint, *pull_hints]))
    return ModelError(f"no model is called {short!r}", hint)


def _nearest(name: str, names: Iterable[str]) -> str:
    """The known name nearest to a name by letters and digits, or empty."""
    bare = {re.sub("[^a-z0-9]", "", candidate.lower()): candidate for candidate in names}
    key = re.sub("[^a-z0-9]", "", name[:100].lower())
    prefix_matches = [
        candidate for candidate in bare if len(key) > 2 and (candidate.startswith(key) or key.startswith(candidate))
    ]
    matches = prefix_matches or difflib.get_close_matches(key, bare, 1, 0.6)
    return bare[matches[0]] if matches else ""


def _entries(folder: Path, specs: Sequence[ModelSpec], hint: str) -> set[str]:
    """The visible names in a folder; an index stands for its file.

    Raises: ModelError if there are none, or it cannot be read.
    """
    try:
        entries = {entry.removesuffix(INDEX) for entry in os.listdir(folder) if not entry.startswith(".")}
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}", hint) from error
    if not entries:
        model = next((spec.name for spec in specs if spec.parts), "NAME")
        raise ModelError(f"{folder} is empty", f"{_pull_hint(model, str(folder.resolve()))}; {hint}")
    return entries


def _reject(folder: Path, config: dict[str, Any], specs: Sequence[ModelSpec], hint: str) -> None:
    """Reject a folder by its only configuration: it is one part of a model, or an unknown one. Raises: ModelError."""
    names = _architectures_of(folder, config)
    folders = [(part, architectures, spec) for spec in specs for part, architectures in spec.architectures.items()]
    parts = [entry for entry in folders if entry[0] not in (ROOT, PIPELINE)]
    for part, architectures, spec in parts:
        if _matches_architecture(names, architectures):
            advice = f"give the folder that holds {', '.join(entry[0] for entry in parts if entry[2] is spec)}"
            raise ModelError(f"{folder} is only the {part} of a model", f"{advice}; {hint}")
    architecture = summarize(names[0]) if names else "none declared"
    raise ModelError(f"{folder} is a model with an unknown architecture: {architecture}", hint)


def _architectures_of(path: Path, config: dict[str, Any]) -> list[str]:
    """The architectures that a configuration declares. Raises: ModelError if they are not strings."""
    if wrong := untrusted.mismatches(config, DECLARATIONS):
        raise ModelError(f"{path} declares no valid architecture: {wrong[0]}", "it may not be a model configuration")
    single = [config.get("_class_name"), *(config.get("architectures") or []), config.get("model_type")]
    return [name for name in single if name]


def _read(path: Path) -> dict[str, Any]:
    """A configuration. Raises: ModelError."""
    try:
        value = untrusted.read_json(path)
    except (OSError, InvalidError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} cannot be read: {reason}", "it may be truncated, or another file") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not describe a model", "it may be another file of that name")
    return value


def _pull_hint(model: str, folder: str) -> str:
    """The command that downloads a model's weights into a folder."""
    return f"`pavdm models pull {model} --folder {quote(folder)}` downloads weights there"


def _join_first(names: list[str]) -> str:
    return ", ".join(map(summarize, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
