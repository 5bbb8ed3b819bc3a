"""The bundled model with its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.models.adapter import Init, LoadedModel, Placement, TextEmbedding, TextEncoder
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.text_encoder import PocketText, batch_ids
from pavdm_cli.models.pocket.transformer import PocketConfig, one_thread
from pavdm_cli.models.pocket.vae import CodecConfig, PocketCodec
from pavdm_cli.models.random_weights import init_random
from pavdm_cli.models.stdit.loaded import STDiTModel, narrow_matmuls
from pavdm_cli.models.stdit.transformer import STDiT, frequencies
from pavdm_cli.models.streams import UnitStream, unit_stream
from pavdm_cli.pocket_world.vocabulary import PAD


@dataclass(frozen=True, slots=True)
class LoadedPocket(STDiTModel):
    """As `LoadedModel`."""

    vae: PocketCodec

    def encode_stream(self) -> UnitStream:
        """As `LoadedModel.encode_stream`."""
        return unit_stream(self.vae.encode, self.vae.config.frames_per_latent)

    def decode_stream(self, context: Tensor | None = None) -> UnitStream:
        """As `LoadedModel.decode_stream`; every latent by itself."""
        return unit_stream(self.vae.decode, 1)

    def upcast(self, part: Literal["transformer", "vae"], device: torch.device) -> LoadedPocket:
        """As `LoadedModel.upcast`."""
        if part == "transformer":
            return self.upcast_transformer(device)
        return replace(self, vae=deepcopy(self.vae).to(device, torch.float32))

    def export(self, weights: Mapping[str, Tensor], folder: Path, metadata: Mapping[str, Any]) -> Path:
        """Pocket's own training writes its weights: they are those of the text encoder too."""
        raise UsageError("pocket is not fine-tuned on videos", "see `pavdm train denoiser --help`")


@dataclass(frozen=True, slots=True)
class PocketTextEncoder:
    """As `TextEncoder`."""

    text: PocketText

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """As `TextEncoder.encode`; each prompt by itself."""
        return [self._encode(prompt) for prompt in prompts]

    @torch.no_grad()
    def _encode(self, prompt: str) -> TextEmbedding:
        ids = batch_ids([prompt], self.text.places.device)
        with one_thread():
            return TextEmbedding(self.text(ids)[0], ids[0] != PAD)

    def memory(self, prompt: str, /) -> dict[str, int]:
        """Nothing: it is small and always there."""
        return {}


def load_text_encoder(path: Path, placement: Placement, init: Init) -> TextEncoder:
    """As `VideoModel.load_text_encoder`."""
    config = PocketConfig().text
    if init == "meta":
        with torch.device("meta"):
            return PocketTextEncoder(PocketText(config))
    if init == "random":
        return PocketTextEncoder(init_random(lambda: PocketText(config), placement.device, torch.float32, {}))
    return PocketTextEncoder(checkpoint.load_text(path).to(placement.device))


def load(codec: Path, denoiser: Path, placement: Placement, init: Init) -> LoadedModel:
    """As `VideoModel.load`."""
    vae, stdit = _init(placement, init) if init != "weights" else _read(codec, denoiser, placement)
    if placement.precision == "bf16":
        vae.decoder.to(torch.bfloat16)
        narrow_matmuls(stdit, torch.bfloat16)
    return LoadedPocket(stdit, vae, scaled=False, null_tokens=1)


def _read(codec: Path, denoiser: Path, placement: Placement) -> tuple[PocketCodec, STDiT]:
    device = placement.weights
    return checkpoint.load_codec(codec).to(device), checkpoint.load_stdit(denoiser).to(device)


def _init(placement: Placement, init: Init) -> tuple[PocketCodec, STDiT]:
    config = PocketConfig().stdit
    if init == "meta":
        with torch.device("meta"):
            vae, stdit = PocketCodec(CodecConfig()), STDiT(config)
        return vae.eval().requires_grad_(False), stdit.to("meta").eval().requires_grad_(False)
    known, device = {"rope.freqs": frequencies(config)}, placement.weights
    vae = init_random(lambda: PocketCodec(CodecConfig()), device, torch.float32, {})
    return vae, init_random(lambda: STDiT(config), device, torch.float32, known)
