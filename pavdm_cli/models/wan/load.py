"""Loads the parts of a Wan model: from a checkpoint, with random weights, or on the meta device."""

from __future__ import annotations

import torch
from torch import nn

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import StoredTensors, check_tensors, digest_files, load_stored
from pavdm_cli.hub.weight_memory import check_room
from pavdm_cli.hub.weights_dir import cache_folder, require_weights, weights_folder
from pavdm_cli.models.adapter import Init, Placement, TextEncoder
from pavdm_cli.models.lora import merge_lora
from pavdm_cli.models.meta_init import meta_init
from pavdm_cli.models.random_weights import init_random
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.models.t5 import RandomTextEncoder
from pavdm_cli.models.wan.checkpoint import (
    transformer_config,
    transformer_tensors,
    vae_config,
    vae_tensors,
)
from pavdm_cli.models.wan.config import VAEConfig, WanConfig
from pavdm_cli.models.wan.loaded import LoadedWan
from pavdm_cli.models.wan.names import original_name
from pavdm_cli.models.wan.text_encoder import open_text_encoder, text_digest, unloaded_text_encoder
from pavdm_cli.models.wan.transformer import WanTransformer, is_float32
from pavdm_cli.models.wan.vae import WanVAE
from pavdm_cli.models.wan.variants import Variant
from pavdm_cli.runtime.optional_imports import check_installed

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_text_encoder(variant: Variant, spec: ModelSpec, placement: Placement, init: Init) -> TextEncoder:
    """See `VideoModel.load_text_encoder`."""
    if init == "random":
        return RandomTextEncoder(variant.transformer.text_dim)
    dtype = torch.bfloat16 if placement.text_encoder_device.type == "cuda" else torch.float32
    folder = weights_folder(spec)
    if init == "meta" and not (spec.folder.is_absolute() or (folder / "text_encoder").is_dir()):
        return unloaded_text_encoder(dtype)
    if init == "weights":
        check_loadable(variant, spec, placement)
    return open_text_encoder(folder, placement.text_encoder_device, dtype, cache_folder() / "prompts")


def check_loadable(variant: Variant, spec: ModelSpec, placement: Placement) -> None:
    """Reject what cannot be loaded, before any weight is read. Raises: ModelError, DeviceError."""
    require_weights(spec, text=False, published=variant.spec)
    check_installed()
    sizes, vae_sizes, transformer, vae = read_headers(spec)
    if vae_sizes.channels != sizes.in_channels or sizes.in_channels != sizes.out_channels:
        reads = f"{sizes.in_channels} channels to {sizes.out_channels}"
        raise ModelError(f"{weights_folder(spec)}: transformer maps {reads}, VAE has {vae_sizes.channels}", HINT)
    if vae_sizes.scale != variant.vae.scale:
        raise ModelError(f"the VAE of {weights_folder(spec)} is not that of {variant.spec.name}", HINT)
    transformer_bytes = weight_bytes(transformer, DTYPES[placement.precision]) * placement.load_transformer
    vae_bytes = weight_bytes(vae, torch.float32) * placement.load_vae
    for device, num_bytes in placement.bytes_by_device(transformer_bytes, vae_bytes).items():
        check_room(spec.name, num_bytes, device, "free some, or use --offload or --device cpu")


HINT = "these parts seem to come from different downloads"


def read_headers(spec: ModelSpec) -> tuple[WanConfig, VAEConfig, StoredTensors, StoredTensors]:
    """Sizes and tensors of the transformer and of the VAE. Raises: ModelError."""
    folder = weights_folder(spec)
    transformer, vae = transformer_tensors(folder), vae_tensors(folder)
    return (
        transformer_config(folder, transformer.shapes()),
        vae_config(folder, vae.shapes()),
        transformer,
        vae,
    )


def weight_bytes(tensors: StoredTensors, dtype: torch.dtype) -> int:
    """Bytes of weights in the precision they are run in; some stay in float32."""
    return sum(
        torch.Size(shape).numel() * (torch.float32 if is_float32(name) else dtype).itemsize
        for name, shape in tensors.shapes().items()
    )


def part_digest(spec: ModelSpec, part: str) -> str:
    """See `VideoModel.part_digest`."""
    folder = weights_folder(spec)
    if part != "vae":
        return text_digest(folder)
    return digest_files(sorted(set(vae_tensors(folder).files.values())))


def load(variant: Variant, spec: ModelSpec, placement: Placement) -> LoadedWan:
    """The weights of a checkpoint. Raises: ModelError, DeviceError."""
    check_loadable(variant, spec, placement)
    sizes, vae_sizes, transformer_weights, vae_weights = read_headers(spec)
    dtype, device = DTYPES[placement.precision], placement.weights_device
    stored_transformer: StoredTensors | None = None
    if placement.loads_shards or not placement.load_transformer:
        transformer = _meta_transformer(sizes, dtype)
        if placement.load_transformer:
            stored_transformer = transformer_weights
            check_tensors(transformer.state_dict(), stored_transformer)
    else:
        transformer = load_stored(
            lambda: WanTransformer(sizes),
            transformer_weights,
            device,
            lambda name: torch.float32 if is_float32(name) else dtype,
        )
        merge_lora(transformer, placement.lora, original_name)
    vae: nn.Module = nn.Identity()
    if placement.load_vae:
        tiled = placement.tiled
        vae = load_stored(lambda: WanVAE(vae_sizes, tiled=tiled), vae_weights, device, lambda name: torch.float32)
    return LoadedWan(transformer, vae, weights_folder(spec).resolve(), stored_transformer=stored_transformer)


def load_without_weights(variant: Variant, spec: ModelSpec, placement: Placement, init: Init) -> LoadedWan:
    """Random weights at the published size, or meta tensors at the size of a downloaded checkpoint."""
    sizes, vae_sizes, dtype = variant.transformer, variant.vae, DTYPES[placement.precision]
    if init == "meta" and weights_folder(spec).is_dir():
        sizes, vae_sizes, _, _ = read_headers(spec)
    if init == "meta":
        transformer, vae = _meta_transformer(sizes, dtype), _meta_vae(vae_sizes, tiled=placement.tiled)
        return LoadedWan(transformer, vae, weights_folder(spec))
    device = placement.weights_device
    transformer = init_random(lambda: WanTransformer(sizes), device, dtype, {})
    for name, weight in transformer.named_parameters():
        weight.data = weight.data.float() if is_float32(name) else weight.data
    vae = init_random(lambda: WanVAE(vae_sizes, tiled=placement.tiled), device, torch.float32, {})
    return LoadedWan(transformer, vae if placement.load_vae else nn.Identity(), weights_folder(spec))


def _meta_transformer(sizes: WanConfig, dtype: torch.dtype) -> WanTransformer:
    with meta_init():
        transformer = WanTransformer(sizes)
    for name, weight in transformer.named_parameters():
        weight.data = weight.data.to(torch.float32 if is_float32(name) else dtype)
    return transformer.eval().requires_grad_(False)


def _meta_vae(sizes: VAEConfig, *, tiled: bool) -> WanVAE:
    with meta_init():
        return WanVAE(sizes, tiled=tiled).eval().requires_grad_(False)
