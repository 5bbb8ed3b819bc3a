"""The families of models: what each is made of, read from its weights or made up."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pavdm_cli.errors import ModelError
from pavdm_cli.models import opensora, store
from pavdm_cli.models.checkpoint import FETCH, digest, load_into, read_json, shapes, tensors
from pavdm_cli.models.home import cache_folder, home
from pavdm_cli.models.libraries import check_installed
from pavdm_cli.models.made_up import made_up
from pavdm_cli.models.memory import check_room, free_bytes, gigabytes, weight_bytes
from pavdm_cli.models.opensora_text import UNUSED, T5Text, cut_note
from pavdm_cli.models.opensora_vae import OpenSoraVAE, VAEConfig, decoding_bytes, normalisation, vae_config
from pavdm_cli.models.pocket import Pocket, PocketConfig
from pavdm_cli.models.pocket_codec import CodecConfig, PocketCodec
from pavdm_cli.models.stdit import STDiT, frequencies
from pavdm_cli.specs import ModelSpec


class Codec(Protocol):
    """Frames to latents and back, in groups of the model's own size (`ModelSpec.group`)."""

    def encode(self, frames: Tensor, /) -> Tensor:
        """Frames (B, n, 3, H, W), 0 to 1, to latents (B, T, C, h, w)."""

    def decode(self, latents: Tensor, /) -> Tensor:
        """Latents (B, T, C, h, w), whole groups, to frames (B, n, 3, H, W), 0 to 1."""


class TextEncoder(Protocol):
    """Prompts to what the transformer reads of them."""

    def embed(self, prompts: list[str], /) -> tuple[Tensor, Tensor]:
        """Token vectors (B, L, width), and which of them belong to the prompt (B, L)."""


class Parts(NamedTuple):
    """What a model is made of, and a mark of its weights."""

    codec: Codec
    denoiser: STDiT
    text: TextEncoder
    digest: str


def _read_pocket(spec: ModelSpec, device: torch.device, reader: torch.device) -> Parts:
    codec, pocket = store.load_codec(spec.codec).to(device), store.load_denoiser(spec.denoiser).to(device)
    return Parts(codec, pocket.stdit, pocket, store.digest(spec.codec, spec.denoiser))


def _random_pocket(device: torch.device) -> Parts:
    config = PocketConfig()
    codec = made_up(lambda: PocketCodec(CodecConfig()), device, torch.float32, {})
    pocket = made_up(lambda: Pocket(config), device, torch.float32, {"stdit.rope.freqs": frequencies(config.stdit)})
    return Parts(codec, pocket.stdit, pocket, "random")


def _read_opensora(spec: ModelSpec, device: torch.device, reader: torch.device) -> Parts:
    folder, dtype = home(spec), opensora.precision(device)
    if not folder.is_dir():
        raise ModelError(f"no weights of {spec.name} in {folder}", FETCH)
    check_installed()
    config = opensora.config_of(read_json(folder / "transformer" / "config.json"))
    sizes = vae_config(shapes(tensors(folder / "vae")))
    kept = sum(opensora_needs(folder, dtype).values())
    check_room("Open-Sora", kept, device, "free some, or use --device cpu")
    tiled = needs_tiles(spec, kept, device)
    denoiser = load_into(lambda: STDiT(config), folder / "transformer", device, dtype)
    codec = load_into(lambda: OpenSoraVAE(sizes), folder / "vae", device, dtype)
    codec.tile(tiled)
    text = T5Text(folder / "text_encoder", reader, opensora.precision(reader), cache_folder() / "prompts")
    return Parts(codec, denoiser, text, digest(folder))


def opensora_needs(folder: Path, dtype: torch.dtype) -> dict[str, int]:
    """Bytes that stay on the model's device for the whole video. Raises: ModelError."""
    return {part: weight_bytes(folder / part, dtype) for part in ("transformer", "vae")}


def needs_tiles(spec: ModelSpec, kept: int, device: torch.device) -> bool:
    """Whether pictures of this size can be decoded in tiles only, beside so many bytes of weights."""
    free = free_bytes(device)
    return free is not None and kept + decoding_bytes(spec.size, opensora.precision(device)) > free


def prompt_notes(spec: ModelSpec, wording: str) -> list[str]:
    """What the model will not read of a prompt, in a line; none for a model that is not there or says so itself."""
    return [] if spec.family == "pocket" or not wording else cut_note(home(spec) / "text_encoder", wording)


def memory_plan(spec: ModelSpec, device: torch.device, reader: torch.device) -> list[str]:
    """What the weights will take, and whether tiles are needed; none for a model that is small or not there."""
    folder = home(spec)
    if spec.family == "pocket" or not folder.is_dir():
        return []
    kept = opensora_needs(folder, opensora.precision(device))
    text = weight_bytes(folder / "text_encoder", opensora.precision(reader), UNUSED)
    parts = ", ".join(f"{part} {gigabytes(size)}" for part, size in kept.items())
    free = free_bytes(device)
    rest = "" if free is None else f"; {gigabytes(free)} free on {device.type}"
    notes = [
        f"weights on {device.type}: {parts}; T5 on {reader.type} while a new prompt is read: {gigabytes(text)}{rest}"
    ]
    if needs_tiles(spec, sum(kept.values()), device):
        notes.append("memory is short: pictures are decoded in tiles, blended where they overlap")
    return notes


def _random_opensora(device: torch.device) -> Parts:
    dtype, config = opensora.precision(device), opensora.XL2
    denoiser = made_up(lambda: STDiT(config), device, dtype, {"rope.freqs": frequencies(config)})
    codec = made_up(lambda: OpenSoraVAE(VAEConfig()), device, dtype, normalisation())
    return Parts(codec, denoiser, opensora.RandomText(config.text_width), "random")


FAMILIES = {"pocket": (_read_pocket, _random_pocket), "opensora": (_read_opensora, _random_opensora)}
