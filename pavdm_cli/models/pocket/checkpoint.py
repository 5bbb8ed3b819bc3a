"""Model parts as safetensors: 16-bit weights with their configuration in the header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.atomic import in_place_of
from pavdm_cli.hub.finite import check_finite, extremes
from pavdm_cli.hub.safetensors_file import open_weights
from pavdm_cli.models.pocket.text_encoder import PocketText, TextConfig
from pavdm_cli.models.pocket.transformer import Pocket, PocketConfig
from pavdm_cli.models.pocket.vae import CodecConfig, PocketCodec
from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_cli.pocket_world.vocabulary import VOCABULARY
from pavdm_cli.runtime.untrusted import InvalidError, Kind, integer, list_of, mismatches, number, parse_json

M = TypeVar("M", bound=nn.Module)
PARTS = ("text.", "stdit.")  # of a denoiser's file


def save(model: PocketCodec | Pocket, path: Path, about: dict[str, Any]) -> Path:
    """Write the weights in float16; `about` goes into the header. Raises: OutputError."""
    weights = {name: _narrow(value) for name, value in model.state_dict().items()}
    header = {"config": json.dumps(asdict(model.config)), "about": json.dumps(about)}
    with in_place_of(path) as beside:
        save_file(weights, beside, header)
    return path


def load_codec(path: Path) -> PocketCodec:
    """The codec of a file, in float32. Raises: ModelError."""
    return _load(path, _codec)


def load_denoiser(path: Path) -> Pocket:
    """The text encoder and transformer of a file, in float32. Raises: ModelError."""
    return _known(_load(path, _denoiser), path, lambda model: model.config.text)


def load_text(path: Path) -> PocketText:
    """The text encoder of such a file. Raises: ModelError."""
    return _known(_load(path, lambda config: PocketText(_text(config)), "text."), path, lambda model: model.config)


def load_stdit(path: Path) -> STDiT:
    """The transformer of such a file. Raises: ModelError."""
    return _load(path, lambda config: STDiT(_stdit(config)), "stdit.")


def _known(model: M, path: Path, config: Callable[[M], TextConfig]) -> M:
    """The model, unless its vocabulary is of another version. Raises: ModelError."""
    known = config(model).words - 1
    if known != len(VOCABULARY):
        raise ModelError(f"{path} knows {known} words, this version {len(VOCABULARY)}", "train it again")
    return model


def about(path: Path) -> dict[str, Any]:
    """What the header says of how the weights were made. Raises: ModelError."""
    with _opened(path) as file:
        return _section(file, "about", path)


def digest(*paths: Path) -> str:
    """The first 16 hexadecimal digits of the files' SHA-256."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _narrow(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float16 if value.is_floating_point() else value.dtype).contiguous()


def _codec(config: dict[str, Any]) -> PocketCodec:
    sizes = _sizes(config, CodecConfig())
    return PocketCodec(CodecConfig(**sizes | {"widths": tuple(sizes["widths"])}))


def _denoiser(config: dict[str, Any]) -> Pocket:
    return Pocket(PocketConfig(_text(config), _stdit(config)))


def _text(config: dict[str, Any]) -> TextConfig:
    return TextConfig(**_sizes(config["text"], PocketConfig().text))


def _stdit(config: dict[str, Any]) -> STDiTConfig:
    sizes = _sizes(config["stdit"], PocketConfig().stdit)
    return STDiTConfig(**sizes | {"patch": tuple(sizes["patch"])})


def _sizes(config: dict[str, Any], card: CodecConfig | TextConfig | STDiTConfig) -> dict[str, Any]:
    """Sizes that are each within 16 times the card's. Raises: ValueError, also for other names."""
    if wrong := mismatches(config, {name: _like(size) for name, size in asdict(card).items()}, required=asdict(card)):
        raise ValueError(wrong[0])
    return config


def _like(size: Any) -> Kind:
    if isinstance(size, float):
        return number(0, 16 * size)
    if isinstance(size, int):
        return integer(1, 16 * size)
    return list_of(integer(1, 16 * max(size)), len(size), len(size))


def _load(path: Path, build: Callable[[dict[str, Any]], M], part: str = "") -> M:
    """The model of a file, or the part whose names begin like that. Raises: ModelError."""
    with _opened(path) as file:
        config = _section(file, "config", path)
        names = [name for name in file.keys() if not (part and name.startswith(PARTS)) or name.startswith(part)]  # noqa: SIM118
        weights = {name.removeprefix(part): file.get_tensor(name) for name in names}
    try:
        with torch.random.fork_rng(devices=[]):  # their first, random weights are replaced
            model = build(config)
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, AssertionError, ArithmeticError) as error:
        why = f": {error}" if isinstance(error, ValueError) else ""
        raise ModelError(f"{path} describes no model of this kind{why}", "is it the file of another part?") from error
    return _fill(model, weights, path)


def _section(file: Any, name: str, path: Path) -> dict[str, Any]:
    try:
        found = parse_json((file.metadata() or {})[name])
    except (KeyError, InvalidError):
        found = None
    if not isinstance(found, dict):
        raise ModelError(f"{path} has no {name!r} in its header", "it is not a file that `pavdm train` wrote")
    return found


def _opened(path: Path) -> Any:
    try:
        return open_weights(path)
    except FileNotFoundError as error:
        raise ModelError(f"no weights at {path}", "`pavdm models list` shows what is there") from error
    except (SafetensorError, InvalidError, OSError) as error:
        raise ModelError(f"{path} is not a safetensors file", "it may be cut short: fetch or train it again") from error


def _fill(model: M, weights: dict[str, Tensor], path: Path) -> M:
    expected = model.state_dict()
    wrong = [n for n in expected.keys() | weights.keys() if n not in weights or n not in expected]
    wrong += [n for n in expected.keys() & weights.keys() if expected[n].shape != weights[n].shape]
    wrong += [
        f"{n} ({w.dtype})".replace("torch.", "")
        for n, w in weights.items()
        if n in expected and w.is_floating_point() != expected[n].is_floating_point()
    ]
    if wrong:
        named = ", ".join(sorted(wrong)[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ModelError(f"{path} does not fit its own configuration: {named}", "fetch or train it again")
    own = {n: w.to(expected[n].dtype, copy=True, memory_format=torch.contiguous_format) for n, w in weights.items()}
    check_finite({name: extremes(weight) for name, weight in own.items()}, lambda name: path)
    model.load_state_dict(own, assign=True)
    return model.eval().requires_grad_(False)
