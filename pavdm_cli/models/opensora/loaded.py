"""Open-Sora v1.2 with its weights, with random ones, or on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pavdm_cli.hub.checkpoint import StoredTensors, check_tensors, load_into, locate_tensors, tensor_shapes
from pavdm_cli.hub.weight_memory import check_room, weight_bytes
from pavdm_cli.hub.weights_dir import cache_folder, require_weights, weights_folder
from pavdm_cli.models.adapter import Init, Placement, TextEncoder
from pavdm_cli.models.meta_init import meta_init
from pavdm_cli.models.opensora.config import XL2, read_config, text_encoder_dtype
from pavdm_cli.models.opensora.export import export
from pavdm_cli.models.opensora.spec import SPEC
from pavdm_cli.models.opensora.text_encoder import open_text_encoder, unloaded_text_encoder
from pavdm_cli.models.opensora.vae import FRAMES, LATENTS, OpenSoraVAE, VAEConfig, infer_vae_config, latent_statistics
from pavdm_cli.models.random_weights import init_random
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.models.stdit.layers import rotary_frequencies
from pavdm_cli.models.stdit.loaded import STDiTModel
from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig
from pavdm_cli.models.streams import UnitStream, unit_stream
from pavdm_cli.models.t5 import RandomTextEncoder
from pavdm_cli.runtime.optional_imports import check_installed

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class LoadedOpenSora(STDiTModel):
    """Implements `LoadedModel`."""

    source: Path  # the folder of its weights
    stored_transformer: StoredTensors | None = None  # see `LoadedModel.stored_transformer`

    def encode_stream(self, spec: ModelSpec) -> UnitStream:
        """As `LoadedModel.encode_stream`."""
        return unit_stream(self._vae.encode, FRAMES)

    def decode_stream(self, spec: ModelSpec, context: Tensor | None = None) -> UnitStream:
        """As `LoadedModel.decode_stream`."""
        return unit_stream(self._vae.decode, LATENTS, context)

    @property
    def _vae(self) -> OpenSoraVAE:
        assert isinstance(self.vae, OpenSoraVAE)
        return self.vae

    def upcast(self, part: Literal["transformer", "vae"], device: torch.device) -> LoadedOpenSora:
        """See `LoadedModel.upcast`."""
        if part == "transformer":
            return self.upcast_transformer(device)
        vae = deepcopy(self._vae).to(device, torch.float32)
        vae.vae_batch_size = 1
        return replace(self, vae=vae)

    def export(self, weights: Mapping[str, Tensor], folder: Path, metadata: Mapping[str, Any]) -> Path:
        """See `LoadedModel.export`."""
        return export(dict(weights), self.source, folder, dict(metadata))


def load_text_encoder(spec: ModelSpec, placement: Placement, init: Init) -> TextEncoder:
    """See `VideoModel.load_text_encoder`."""
    if init == "random":
        return RandomTextEncoder(XL2.text_width)
    if init == "weights":
        check_loadable(spec, placement)
    folder, dtype = weights_folder(spec) / "text_encoder", text_encoder_dtype(placement.text_encoder_device)
    if init == "meta" and not folder.is_dir():
        return unloaded_text_encoder(dtype)
    return open_text_encoder(folder, placement.text_encoder_device, dtype, cache_folder() / "prompts")


def check_loadable(spec: ModelSpec, placement: Placement) -> None:
    """Reject what cannot be loaded, before any weight is read. Raises: ModelError, DeviceError."""
    require_weights(spec, text=False, published=SPEC)
    check_installed()
    folder, parts = weights_folder(spec), ["transformer"] * placement.load_transformer + ["vae"] * placement.load_vae
    read_config(folder)
    sizes = {part: weight_bytes(folder / part, DTYPES[placement.precision]) for part in parts}
    bytes_by_device = placement.bytes_by_device(sizes.get("transformer", 0), sizes.get("vae", 0))
    for device, num_bytes in bytes_by_device.items():
        check_room("Open-Sora", num_bytes, device, "free some, or use --device cpu")


def load(spec: ModelSpec, placement: Placement) -> LoadedOpenSora:
    """The published weights. Raises: ModelError, DeviceError."""
    check_loadable(spec, placement)
    folder, dtype, device = weights_folder(spec), DTYPES[placement.precision], placement.weights_device
    config = read_config(folder)
    sizes = infer_vae_config(tensor_shapes(locate_tensors(folder / "vae"))) if placement.load_vae else VAEConfig()
    stored_transformer: StoredTensors | None = None
    if placement.loads_shards or not placement.load_transformer:
        transformer = _meta_transformer(config, dtype)
        if placement.load_transformer:
            stored_transformer = StoredTensors(folder / "transformer", locate_tensors(folder / "transformer"))
            check_tensors(transformer.state_dict(), stored_transformer)
    else:
        transformer = load_into(lambda: STDiT(config), folder / "transformer", device, dtype)
    vae = load_into(lambda: OpenSoraVAE(sizes), folder / "vae", device, dtype) if placement.load_vae else nn.Identity()
    model = _model(transformer, vae, placement, folder, scales_positions=True)
    return replace(model, stored_transformer=stored_transformer)


def _meta_transformer(config: STDiTConfig, dtype: torch.dtype) -> STDiT:
    with meta_init():
        transformer = STDiT(config)
    transformer.to("meta", dtype)  # the rotary frequencies are computed on the CPU
    return transformer.eval().requires_grad_(False)


def load_without_weights(
    spec: ModelSpec, placement: Placement, init: Init, sizes: Mapping[str, Any], scales_positions: bool
) -> LoadedOpenSora:
    """Random weights, or meta tensors; a part that is not downloaded has its published size."""
    folder = weights_folder(spec)
    config, vae_sizes = XL2 if init == "random" else _config(folder), VAEConfig()
    config = replace(config, **sizes)
    if init == "meta" and (folder / "vae").is_dir():
        vae_sizes = infer_vae_config(tensor_shapes(locate_tensors(folder / "vae")))
    dtype = DTYPES[placement.precision]
    if init == "random":
        device, fixed_weights = placement.weights_device, {"rope.freqs": rotary_frequencies(config.head_dim)}
        transformer = init_random(lambda: STDiT(config), device, dtype, fixed_weights)
        vae = (
            init_random(lambda: OpenSoraVAE(vae_sizes), device, dtype, latent_statistics())
            if placement.load_vae
            else nn.Identity()
        )
    else:
        transformer = _meta_transformer(config, dtype)
        with meta_init():
            vae = OpenSoraVAE(vae_sizes)
        vae.to("meta", dtype).eval().requires_grad_(False)
    return _model(transformer, vae, placement, folder, scales_positions)


def _config(folder: Path) -> STDiTConfig:
    return read_config(folder) if (folder / "transformer").is_dir() else XL2


def _model(
    transformer: STDiT, vae: nn.Module, placement: Placement, folder: Path, scales_positions: bool
) -> LoadedOpenSora:
    if isinstance(vae, OpenSoraVAE):
        vae.vae_batch_size, vae.tiled = placement.vae_batch_size, placement.tiled
    return LoadedOpenSora(transformer, vae, scales_positions, num_null_tokens=300, source=folder.resolve())
