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
    likely = [spec for spec in specs if entries.intersection(spec.architectures)]
    if not likely and CONFIG in entries and PIPELINE not in entries:
        likely = [spec for spec in specs if _is_declared(folder / CONFIG, spec, ROOT)]
    if PIPELINE in entries and not any(_is_declared(folder / PIPELINE, spec, PIPELINE) for spec in likely):
        _refuse(folder, _read(folder / PIPELINE), specs, hint)
    if not likely and CONFIG in entries:
        _refuse(folder, _read(folder / CONFIG), specs, hint)
    for spec in () if likely else specs:
        if entries.intersection(spec.files):
            missing = ", ".join(sorted(set(spec.files) - entries))
            hint = f"a folder of {spec.name} holds {' and '.join(spec.files)}"
            raise ModelError(f"{folder} has no {missing}", hint)
    if not likely:
        raise ModelError(f"{folder} holds no model: {_first(sorted(entries))}", hint)
    foreign = [_foreign(folder, spec) for spec in likely]
    own = [spec for spec, wrong in zip(likely, foreign, strict=True) if not wrong]
    if not own:
        raise ModelError(foreign[0], hint)
    return max(own, key=lambda spec: _similarity(folder, spec)).name  # the first of equals


def _is_declared(path: Path, spec: ModelSpec, part: str) -> bool:
    """Whether a configuration declares an architecture of the part. Raises: ModelError."""
    return any(name.lower() in spec.architectures.get(part, ()) for name in _declared(path, _read(path)))


def _similarity(folder: Path, spec: ModelSpec) -> int:
    """Distinguishing values in the configurations that match the model's, minus those that do not."""
    score = 0
    for part, values in spec.distinguishing.items():
        path = folder / part / CONFIG
        if path.is_file():
            config = _read(path)
            score += sum(1 if config.get(name) == value else -1 for name, value in values.items())
    return score


def _foreign(folder: Path, spec: ModelSpec) -> str:
    """A message about a part that declares an architecture other than the model's, or empty. Raises: ModelError."""
    for part, architectures in spec.architectures.items():
        path = folder / PIPELINE if part == PIPELINE else folder / part / CONFIG
        if part == ROOT and any((folder / other).exists() for other in spec.architectures if other != ROOT):
            continue
        declared = _declared(path, _read(path)) if os.path.lexists(path) else []
        if declared and not any(name.lower() in architectures for name in declared):
            return f"{folder / part} is of an architecture unknown here: {summarize(declared[0])}"
    return ""


def unknown_model_error(name: str, names: Iterable[str], repositories: Mapping[str, str]) -> ModelError:
    """The error for a name that is neither a model nor a folder, with the nearest known name.

    names: of the known models; repositories: on the hub, with the model that each belongs to.
    """
    short = name if len(name) <= 100 else f"{name[:100]}..."
    hub_id = name.removeprefix(HUB).rstrip("/")
    models = {repository.lower(): model for repository, model in repositories.items()}
    known = f"known models: {', '.join(names)}"
    if hub_id.lower() in models:
        model = models[hub_id.lower()]
        return ModelError(f"{short} is a part of {model}", f"use the model's name: {model}")
    near = _nearest(hub_id.rpartition("/")[2], names)
    hint = f"did you mean {near}? {known}" if near else known
    if HUB_ID.fullmatch(hub_id):
        return ModelError(f"there is no folder {short}, and no hub repository of that name that pavdm knows", hint)
    if "/" in name or "\\" in name:
        fetch = [
            f"`pavdm models pull {one} --folder {quote(short)}` downloads weights there"
            for one in [*models.values()][:1]
        ]
        return ModelError(f"there is no folder {short}", "; ".join([hint, *fetch]))
    return ModelError(f"no model is called {short!r}", hint)


def _nearest(name: str, names: Iterable[str]) -> str:
    """The known name nearest to a name by letters and digits, or empty."""
    bare = {re.sub("[^a-z0-9]", "", one.lower()): one for one in names}
    key = re.sub("[^a-z0-9]", "", name[:100].lower())
    prefixed = [one for one in bare if len(key) > 2 and (one.startswith(key) or key.startswith(one))]
    near = prefixed or difflib.get_close_matches(key, bare, 1, 0.6)
    return bare[near[0]] if near else ""


def _entries(folder: Path, specs: Sequence[ModelSpec], hint: str) -> set[str]:
    """The visible names in a folder. Raises: ModelError if there are none, or it cannot be read."""
    try:
        entries = {entry for entry in os.listdir(folder) if not entry.startswith(".")}
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}", hint) from error
    if not entries:
        fetch = _pull(specs, str(folder.resolve()))
        raise ModelError(f"{folder} is empty", f"{fetch}; {hint}")
    return entries


def _refuse(folder: Path, config: dict[str, Any], specs: Sequence[ModelSpec], hint: str) -> None:
    """Refuse a folder by its only configuration: it is one part of a model, or an unknown one. Raises: ModelError."""
    declared = _declared(folder, config)
    folders = [(part, names, spec) for spec in specs for part, names in spec.architectures.items()]
    parts = [one for one in folders if one[0] not in (ROOT, PIPELINE)]
    for part, architectures, spec in parts:
        if any(name.lower() in architectures for name in declared):
            whole = f"give the folder that holds {', '.join(one[0] for one in parts if one[2] is spec)}"
            raise ModelError(f"{folder} is only the {part} of a model", f"{whole}; {hint}")
    what = summarize(declared[0]) if declared else "it does not say which"
    raise ModelError(f"{folder} is a model of an architecture unknown here: {what}", hint)


def _declared(path: Path, config: dict[str, Any]) -> list[str]:
    """The architectures that a configuration declares. Raises: ModelError if they are not strings."""
    if wrong := untrusted.mismatches(config, DECLARATIONS):
        raise ModelError(f"{path} does not say what it is: {wrong[0]}", "is it a model's configuration?")
    single = [config.get("_class_name"), *(config.get("architectures") or []), config.get("model_type")]
    return [one for one in single if one]


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


def _pull(specs: Sequence[ModelSpec], folder: str) -> str:
    """The command that downloads the first model with published weights into a folder."""
    name = next((spec.name for spec in specs if spec.parts), "NAME")
    return f"`pavdm models pull {name} --folder {quote(folder)}` downloads weights there"


def _first(names: list[str]) -> str:
    return ", ".join(map(summarize, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
