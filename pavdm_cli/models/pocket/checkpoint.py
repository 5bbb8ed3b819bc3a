"""Parts of the model as safetensors files: 16-bit weights, with their configuration in the header."""

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
from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.hub.finite import check_finite, min_max
from pavdm_cli.models.meta_init import meta_init
from pavdm_cli.models.pocket.shards import files_of, open_file_or_shards, save_shards
from pavdm_cli.models.pocket.text_encoder import PocketTextModel, TextConfig
from pavdm_cli.models.pocket.transformer import Pocket, PocketConfig
from pavdm_cli.models.pocket.vae import PocketVAE, PocketVAEConfig
from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_cli.pocket_world.vocabulary import LENGTH, VOCABULARY
from pavdm_cli.runtime.untrusted import InvalidError, Kind, integer, list_of, mismatches, number, parse_json, string

M = TypeVar("M", bound=nn.Module)
PARTS = ("text.", "stdit.")  # prefixes of names in a denoiser's file
WORD_LIST = list_of(string(100), 10_000)
# Of denoisers whose header does not list its words.
FIRST_EDITION = (
    "a above across air an and at ball balloon blue boat bobbing bouncing bright by calm camera circles circling "
    "crimson dawn day daylight desert drifting dunes dusk early evening floating flying gliding golden green hanging "
    "hills hopping hot hovering in is kite left looping meadows moon moonlight morning mountain mountains moves night "
    "noon ocean of on over panning pans paper peaks purple red resting right rolling sailboat sailing sand sea snow "
    "static still sunny sunrise sunset tall the under video violet water white with yellow"
)


def save(model: PocketVAE | Pocket, path: Path, metadata: dict[str, Any], max_file_bytes: int | None = None) -> Path:
    """Write the weights in float16; the header stores the metadata and a denoiser's words.

    max_file_bytes: larger weights are written as several files and an index. Raises: OutputError.
    """
    weights = {name: _half(value) for name, value in model.state_dict().items()}
    header = {"config": json.dumps(asdict(model.config)), "about": json.dumps(metadata)}
    if isinstance(model, Pocket):
        header["words"] = json.dumps([*VOCABULARY])
    if max_file_bytes is not None:
        save_shards(weights, path, header, max_file_bytes)
        return path
    with atomic_write(path) as temporary:
        save_file(weights, temporary, header)
    return path


def load_vae(path: Path) -> PocketVAE:
    """The VAE of a file, in float32. Raises: ModelError."""
    return _load(path, _build_vae)


def load_denoiser(path: Path) -> Pocket:
    """The text encoder and transformer of a file, in float32. Raises: ModelError, also for other words."""
    model, words = load_denoiser_with_words(path)
    _check_words(words, model.text, path)
    return model


def load_denoiser_with_words(path: Path) -> tuple[Pocket, list[str]]:
    """A denoiser of any vocabulary, and its words in the order of their token ids. Raises: ModelError."""
    model = _load(path, _build_denoiser)
    return model, _stored_words(path, model.text)


def load_text(path: Path) -> PocketTextModel:
    """The text encoder of a denoiser's file. Raises: ModelError, also for other words."""
    model = _load(path, _build_text, "text.")
    _check_words(_stored_words(path, model), model, path)
    return model


def load_stdit(path: Path) -> STDiT:
    """The transformer of a denoiser's file. Raises: ModelError."""
    return _load(path, lambda config: STDiT(_stdit_config(config)), "stdit.")


def _stored_words(path: Path, text: PocketTextModel) -> list[str]:
    """The words of a file, one for each row of its word embedding but the first. Raises: ModelError."""
    with _opened(path) as file:
        header = (file.metadata() or {}).get("words")
    try:
        words: Any = FIRST_EDITION.split() if header is None else parse_json(header)
    except InvalidError:
        words = None
    if not WORD_LIST.fits(words) or len(words) != text.config.words - 1:
        raise ModelError(
            f"{path} does not list the {text.config.words - 1} words that it knows", "download or train it again"
        )
    return list(words)


def _check_words(words: list[str], text: PocketTextModel, path: Path) -> None:
    """Refuse a model with the vocabulary of another version. Raises: ModelError."""
    hint = f"continue its training: `pavdm train denoiser --init {path}`"
    if words != [*VOCABULARY]:
        difference = ", ".join(sorted({*words} ^ {*VOCABULARY})[:5]) or "their order"
        counts = f"{len(words)} words, but this version knows {len(VOCABULARY)}"
        raise ModelError(f"{path} knows {counts}; they differ in {difference}", hint)
    if len(text.places) != LENGTH:
        raise ModelError(f"{path} reads {len(text.places)} prompt words, but this version reads {LENGTH}", hint)


def training_metadata(path: Path) -> dict[str, Any]:
    """How the weights were trained, from the header. Raises: ModelError."""
    with _opened(path) as file:
        return _section(file, "about", path)


def digest(*paths: Path) -> str:
    """The first 16 hexadecimal digits of the files' SHA-256."""
    total = hashlib.sha256()
    for path in paths:
        for file in files_of(path):
            total.update(file.read_bytes())
    return total.hexdigest()[:16]


def _half(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float16 if value.is_floating_point() else value.dtype).contiguous()


def _build_vae(config: dict[str, Any]) -> PocketVAE:
    sizes = _sizes(config, PocketVAEConfig())
    return PocketVAE(PocketVAEConfig(**sizes | {"widths": tuple(sizes["widths"])}))


def _build_denoiser(config: dict[str, Any]) -> Pocket:
    return Pocket(PocketConfig(_text_config(config), _stdit_config(config)))


def _build_text(config: dict[str, Any]) -> PocketTextModel:
    return PocketTextModel(_text_config(config), _stdit_config(config).text_length)


def _text_config(config: dict[str, Any]) -> TextConfig:
    return TextConfig(**_sizes(config["text"], PocketConfig().text))


def _stdit_config(config: dict[str, Any]) -> STDiTConfig:
    sizes = _sizes(config["stdit"], PocketConfig().stdit)
    return STDiTConfig(**sizes | {"patch": tuple(sizes["patch"])})


def _sizes(config: dict[str, Any], card: PocketVAEConfig | TextConfig | STDiTConfig) -> dict[str, Any]:
    """Sizes of at most 16 times the published ones. Raises: ValueError, also for other names."""
    if wrong := mismatches(
        config, {name: _kind_of(size) for name, size in asdict(card).items()}, required=asdict(card)
    ):
        raise ValueError(wrong[0])
    return config


def _kind_of(size: Any) -> Kind:
    if isinstance(size, float):
        return number(0, 16 * size)
    if isinstance(size, int):
        return integer(1, 16 * size)
    return list_of(integer(1, 16 * max(size)), len(size), len(size))


def _load(path: Path, build: Callable[[dict[str, Any]], M], part: str = "") -> M:
    """The model of a file, or the part of it with a prefix. Raises: ModelError."""
    with _opened(path) as file:
        config = _section(file, "config", path)
        names = [name for name in file.keys() if not (part and name.startswith(PARTS)) or name.startswith(part)]  # noqa: SIM118
        weights = {name.removeprefix(part): file.get_tensor(name) for name in names}
    try:
        with meta_init():
            model = build(config)
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, AssertionError, ArithmeticError) as error:
        why = f": {error}" if isinstance(error, ValueError) else ""
        message = f"{path} does not describe a model of this kind{why}"
        raise ModelError(message, "is it the file of another part?") from error
    return _fill(model, weights, path)


def _section(file: Any, name: str, path: Path) -> dict[str, Any]:
    try:
        section = parse_json((file.metadata() or {})[name])
    except (KeyError, InvalidError):
        section = None
    if not isinstance(section, dict):
        raise ModelError(f"{path} has no {name!r} in its header", "it is not a file that `pavdm train` wrote")
    return section


def _opened(path: Path) -> Any:
    try:
        return open_file_or_shards(path)
    except FileNotFoundError as error:
        raise ModelError(f"no weights at {path}", "`pavdm models list` shows the models") from error
    except (SafetensorError, InvalidError, OSError) as error:
        raise ModelError(
            f"{path} is not a safetensors file", "it may be truncated: download or train it again"
        ) from error


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
        listed = ", ".join(sorted(wrong)[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ModelError(f"{path} does not fit its own configuration: {listed}", "download or train it again")
    own = {n: w.to(expected[n].dtype, copy=True, memory_format=torch.contiguous_format) for n, w in weights.items()}
    check_finite({name: min_max(weight) for name, weight in own.items()}, lambda name: path)
    model.load_state_dict(own, assign=True)
    return model.eval().requires_grad_(False)
