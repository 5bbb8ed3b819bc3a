"""Model parts as safetensors: 16-bit weights with their configuration in the header."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pavdm_cli.errors import ModelError
from pavdm_cli.models.pocket import Pocket, PocketConfig
from pavdm_cli.models.pocket_codec import CodecConfig, PocketCodec
from pavdm_cli.models.pocket_text import TextConfig
from pavdm_cli.models.stdit import STDiTConfig

M = TypeVar("M", bound=nn.Module)


def save(model: PocketCodec | Pocket, path: Path, about: dict[str, Any]) -> Path:
    """Write the weights in float16 beside the path, then put them in place; `about` goes into the header."""
    weights = {name: _narrow(value) for name, value in model.state_dict().items()}
    header = {"config": json.dumps(asdict(model.config)), "about": json.dumps(about)}
    beside = path.with_suffix(".tmp")
    save_file(weights, beside, header)
    os.replace(beside, path)
    return path


def load_codec(path: Path) -> PocketCodec:
    """The codec of a file, in float32."""
    weights, config = _read(path)
    config["widths"] = tuple(config["widths"])
    return _fill(PocketCodec(CodecConfig(**config)), weights, path)


def load_denoiser(path: Path) -> Pocket:
    """The text encoder and transformer of a file, in float32."""
    weights, config = _read(path)
    stdit = config["stdit"] | {"patch": tuple(config["stdit"]["patch"])}
    return _fill(Pocket(PocketConfig(TextConfig(**config["text"]), STDiTConfig(**stdit))), weights, path)


def about(path: Path) -> dict[str, Any]:
    """What the header says of how the weights were made."""
    with _opened(path) as file:
        found: dict[str, Any] = json.loads((file.metadata() or {}).get("about", "{}"))
        return found


def digest(*paths: Path) -> str:
    """The first 16 hexadecimal digits of the files' SHA-256."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _narrow(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float16 if value.is_floating_point() else value.dtype).contiguous()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _opened(path) as file:
        config = json.loads((file.metadata() or {}).get("config", "null"))
        if not isinstance(config, dict):
            raise ModelError(f"{path.name} has no configuration in its header", "it is not a file `pavdm train` wrote")
        return {name: file.get_tensor(name) for name in file.keys()}, config  # noqa: SIM118 - not a dict


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except FileNotFoundError as error:
        raise ModelError(f"no weights at {path}", "`pavdm models list` shows what is there") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a safetensors file", "it may be cut short: fetch or train it again") from error


def _fill(model: M, weights: dict[str, Tensor], path: Path) -> M:
    expected = model.state_dict()
    wrong = [n for n in expected.keys() | weights.keys() if n not in weights or n not in expected]
    wrong += [n for n in expected.keys() & weights.keys() if expected[n].shape != weights[n].shape]
    if wrong:
        raise ModelError(f"{path.name} does not fit the model: {', '.join(sorted(wrong)[:5])}", "use matching weights")
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
