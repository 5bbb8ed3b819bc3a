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
from pavdm_cli.models.meta_init import meta_init
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.frame_format import CODED_FPS, frame_format
from pavdm_cli.models.pocket.streams import DecodeStream, decode_stream, encode_stream
from pavdm_cli.models.pocket.text_encoder import PocketTextModel, batch_ids
from pavdm_cli.models.pocket.transformer import PocketConfig, single_thread
from pavdm_cli.models.pocket.vae import PocketVAE, PocketVAEConfig
from pavdm_cli.models.random_weights import init_random
from pavdm_cli.models.spec import ModelSpec
from pavdm_cli.models.stdit.layers import rotary_frequencies
from pavdm_cli.models.stdit.loaded import STDiTModel, cast_linears
from pavdm_cli.models.stdit.transformer import STDiT
from pavdm_cli.models.streams import ClipEncodeStream
from pavdm_cli.pocket_world.vocabulary import PAD


@dataclass(frozen=True, slots=True)
class LoadedPocket(STDiTModel):
    """As `LoadedModel`."""

    vae: PocketVAE

    def model_fps(self, fps: float) -> float:
        """See `STDiTModel.model_fps`: latents are the same at any frame rate."""
        return CODED_FPS

    def encode_stream(self, spec: ModelSpec) -> ClipEncodeStream:
        """As `LoadedModel.encode_stream`."""
        return encode_stream(self.vae, frame_format(spec.size, spec.fps))

    def decode_stream(self, spec: ModelSpec, context: Tensor | None = None) -> DecodeStream:
        """As `LoadedModel.decode_stream`."""
        return decode_stream(self.vae, frame_format(spec.size, spec.fps), context)

    def upcast(self, part: Literal["transformer", "vae"], device: torch.device) -> LoadedPocket:
        """As `LoadedModel.upcast`."""
        if part == "transformer":
            return self.upcast_transformer(device)
        return replace(self, vae=deepcopy(self.vae).to(device, torch.float32))

    def export(self, weights: Mapping[str, Tensor], folder: Path, metadata: Mapping[str, Any]) -> Path:
        """Refused: `pavdm train denoiser` writes pocket's weights, which include its text encoder."""
        raise UsageError("pocket is not fine-tuned on videos", "see `pavdm train denoiser --help`")


@dataclass(frozen=True, slots=True)
class PocketTextEncoder:
    """As `TextEncoder`."""

    text: PocketTextModel

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """As `TextEncoder.encode`; each prompt on its own."""
        return [self._encode(prompt) for prompt in prompts]

    @torch.no_grad()
    def _encode(self, prompt: str) -> TextEmbedding:
        ids = batch_ids([prompt], self.text.places.device)
        with single_thread():
            return TextEmbedding(self.text(ids)[0], ids[0] != PAD)

    def memory_bytes(self, prompt: str, /) -> dict[str, int]:
        """Nothing: it is small and always loaded."""
        return {}


def load_text_encoder(path: Path, placement: Placement, init: Init) -> TextEncoder:
    """As `VideoModel.load_text_encoder`."""
    config = PocketConfig().text
    if init == "meta":
        with meta_init():
            return PocketTextEncoder(PocketTextModel(config))
    if init == "random":
        return PocketTextEncoder(init_random(lambda: PocketTextModel(config), placement.device, torch.float32, {}))
    return PocketTextEncoder(checkpoint.load_text(path).to(placement.device))


def load(vae_file: Path, denoiser: Path, placement: Placement, init: Init) -> LoadedModel:
    """As `VideoModel.load`."""
    vae, stdit = _init(placement, init) if init != "weights" else _read(vae_file, denoiser, placement)
    if placement.precision == "bf16":
        vae.decoder.to(torch.bfloat16)
        vae.large_decoder.to(torch.bfloat16)
        cast_linears(stdit, torch.bfloat16)
    return LoadedPocket(stdit, vae, scales_positions=False, num_null_tokens=1)


def _read(vae_file: Path, denoiser: Path, placement: Placement) -> tuple[PocketVAE, STDiT]:
    device = placement.weights_device
    return checkpoint.load_vae(vae_file).to(device), checkpoint.load_stdit(denoiser).to(device)


def _init(placement: Placement, init: Init) -> tuple[PocketVAE, STDiT]:
    config = PocketConfig().stdit
    if init == "meta":
        with meta_init():
            vae, stdit = PocketVAE(PocketVAEConfig()), STDiT(config)
        return vae.eval().requires_grad_(False), stdit.to("meta").eval().requires_grad_(False)
    known, device = {"rope.freqs": rotary_frequencies(config.head_dim)}, placement.weights_device
    vae = init_random(lambda: PocketVAE(PocketVAEConfig()), device, torch.float32, {})
    return vae, init_random(lambda: STDiT(config), device, torch.float32, known)
