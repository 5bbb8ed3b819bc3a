"""Open-Sora v1.2: reads and checks the transformer's configuration; dtype of the text encoder, timestep shift."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.config_checks import HINT, check_number, check_whole, within
from pavdm_cli.hub.json_file import read_json
from pavdm_cli.models.opensora.text_encoder import MAX_TOKENS, check_sizes
from pavdm_cli.models.opensora.vae import SHIFT
from pavdm_cli.models.stdit.transformer import STDiTConfig
from pavdm_cli.runtime.untrusted import summarize

XL2 = STDiTConfig(hidden=1152, depth=28, heads=16, in_channels=4, out_channels=8, text_width=4096, text_length=300)


def text_encoder_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a CUDA GPU, as published; else float32."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def timestep_shift(height: int, width: int, frames: int) -> float:
    """The timestep shift at `height` x `width` pixels and the number of frames that the model processes at once.

    Latents are counted as in training, without a last unit of less than 17 frames, or as one per 4 frames below 17.
    """
    latents = frames // 17 * 5 or math.ceil(frames / 4)
    return math.sqrt(height * width / 512**2 * latents)


SIZES = {
    "hidden": "hidden_size",
    "depth": "depth",
    "heads": "num_heads",
    "in_channels": "in_channels",
    "text_width": "caption_channels",
    "text_length": "model_max_length",
    "mlp_ratio": "mlp_ratio",
    "input_sq_size": "input_sq_size",
}  # our name to the published one
LIMITS = {
    **within(
        {published_name: int(getattr(XL2, ours)) for ours, published_name in SIZES.items() if ours != "mlp_ratio"}
    ),
    "in_channels": (len(SHIFT), len(SHIFT)),  # those of the VAE's latents
    "model_max_length": (MAX_TOKENS, 8 * MAX_TOKENS),  # at least what T5 encodes of a prompt
    "patch_size of time": (1, 1),
    "patch_size of height": (1, 64),
    "patch_size of width": (1, 64),
}
WHAT = "the transformer's configuration"


def read_config(folder: Path) -> STDiTConfig:
    """The transformer's sizes from a folder of all parts.

    Raises: ModelError, also if they do not match the text encoder's.
    """
    config = parse_config(read_json(folder / "transformer" / "config.json"))
    path = folder / "text_encoder" / "config.json"
    encoder = read_json(path) if path.is_file() else {}
    check_sizes(encoder)
    width = encoder.get("d_model", config.text_width)
    if width != config.text_width:
        expected = f"but the transformer expects {config.text_width} (caption_channels)"
        raise ModelError(f"the text encoder in {path.parent} has hidden size {width} (d_model), {expected}", HINT)
    return config


def parse_config(config_values: dict[str, Any]) -> STDiTConfig:
    """The sizes in a published configuration; those it omits are as in XL/2, and runtime settings are ignored.

    Raises: ModelError.
    """
    supported = {"qk_norm": True, "skip_y_embedder": False}
    switches = {name: config_values.get(name, default) for name, default in supported.items()}
    if switches != supported or config_values.get("model_type", "STDiT3") != "STDiT3":
        raise ModelError(f"the configuration is of another network: {config_values.get('model_type')}, {switches}")
    check_whole(WHAT, config_values, LIMITS)
    check_number(WHAT, "mlp_ratio", config_values.get("mlp_ratio", XL2.mlp_ratio), 64)
    sizes = {ours: config_values[name] for ours, name in SIZES.items() if name in config_values}
    config = _with_sizes(sizes, _patch(config_values.get("patch_size", XL2.patch)))
    return replace(config, out_channels=config.in_channels * (2 if config_values.get("pred_sigma", True) else 1))


def _with_sizes(sizes: dict[str, Any], patch: tuple[int, int, int]) -> STDiTConfig:
    """XL/2 in other sizes. Raises: ModelError for sizes that exclude one another."""
    try:
        config = replace(XL2, **sizes, patch=patch)
        assert int(config.hidden * config.mlp_ratio)
    except AssertionError as error:
        raise ModelError(f"{WHAT} is invalid: {sizes} do not fit together", HINT) from error
    return config


def _patch(value: Any) -> tuple[int, int, int]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ModelError(f"{WHAT} is invalid: patch_size is {summarize(value)}, not three integers", HINT)
    time, height, width = value
    sides = {"patch_size of time": time, "patch_size of height": height, "patch_size of width": width}
    check_whole(WHAT, sides, LIMITS)
    return time, height, width
