"""The families of models: what each is made of, read from its weights or made up."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pavdm_cli.errors import ModelError
from pavdm_cli.hub.checkpoint import digest, load_into, read_json, shapes, tensors
from pavdm_cli.hub.weight_memory import check_room, weight_bytes
from pavdm_cli.hub.weights_dir import cache_folder, home, pulling
from pavdm_cli.models.opensora import config as opensora
from pavdm_cli.models.opensora.text_encoder import UNUSED, T5Text, cut_note, parameters, working_bytes
from pavdm_cli.models.opensora.vae import OpenSoraVAE, VAEConfig, normalisation, vae_config
from pavdm_cli.models.pocket import checkpoint as store
from pavdm_cli.models.pocket.transformer import Pocket, PocketConfig
from pavdm_cli.models.pocket.vae import CodecConfig, PocketCodec
from pavdm_cli.models.random_weights import made_up
from pavdm_cli.models.specs import OPENSORA, ModelSpec
from pavdm_cli.models.stdit.transformer import STDiT, frequencies
from pavdm_cli.runtime.optional_imports import check_installed


class Codec(Protocol):
    """Frames to latents and back, in groups of the model's own size (`ModelSpec.group`)."""

    def encode(self, frames: Tensor, /) -> Tensor:
        """Frames (B, n, 3, H, W), 0 to 1, on any device, to latents (B, T, C, h, w) on the codec's own."""

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


class Placing(NamedTuple):
    """Where a model runs, where its prompt is read, where its weights rest, and what is to be read before they come."""

    device: torch.device
    reader: torch.device
    rest: torch.device
    wording: str = ""


def _read_pocket(spec: ModelSpec, placing: Placing) -> Parts:
    codec, pocket = store.load_codec(spec.codec), store.load_denoiser(spec.denoiser)
    codec, pocket = codec.to(placing.device), pocket.to(placing.device)
    return Parts(codec, pocket.stdit, pocket, store.digest(spec.codec, spec.denoiser))


def _random_pocket(placing: Placing) -> Parts:
    config, device = PocketConfig(), placing.device
    codec = made_up(lambda: PocketCodec(CodecConfig()), device, torch.float32, {})
    pocket = made_up(lambda: Pocket(config), device, torch.float32, {"stdit.rope.freqs": frequencies(config.stdit)})
    return Parts(codec, pocket.stdit, pocket, "random")


def _read_opensora(spec: ModelSpec, placing: Placing) -> Parts:
    need_weights(spec, words=bool(placing.wording))
    check_installed()
    folder, dtype, rest, reader = home(spec), opensora.precision(placing.device), placing.rest, placing.reader
    config = opensora.read_config(folder)
    sizes = vae_config(shapes(tensors(folder / "vae")))
    wanted = sum(weight_bytes(folder / part, dtype) for part in ("transformer", "vae"))
    check_room("Open-Sora", wanted, rest, "free some, or use --device cpu")
    text = T5Text(folder / "text_encoder", reader, opensora.precision(reader), cache_folder() / "prompts")
    if placing.wording:  # while nothing else is there
        text.embed([placing.wording])
    denoiser = load_into(lambda: STDiT(config), folder / "transformer", rest, dtype)
    codec = load_into(lambda: OpenSoraVAE(sizes), folder / "vae", rest, dtype)
    return Parts(codec, denoiser, text, digest(folder))


def need_weights(spec: ModelSpec, words: bool = True) -> None:
    """Raises: ModelError where a model's weights are not there, or a part of them; without words T5 is not needed."""
    folder = home(spec)
    if not folder.is_dir():
        raise ModelError(f"no weights of {spec.name} in {folder}", f"{pulling(folder)} fetches them")
    needed = [part.folder for part in spec.parts if words or part.folder != "text_encoder"]
    lacking = [part for part in needed if not any((folder / part).glob("*"))]
    if lacking:
        raise ModelError(f"{folder} has no {' and no '.join(lacking)}", _missing(spec))


def _missing(spec: ModelSpec) -> str:
    """Where missing parts come from; a folder of one's own is not fetched into, which would replace what is in it."""
    fetched = home(OPENSORA)
    if home(spec) == fetched:
        return "`pavdm models pull opensora-v1.2` fetches what is missing"
    return f"copy or link it from {fetched}, where `pavdm models pull opensora-v1.2` puts it"


def prompt_notes(spec: ModelSpec, wording: str) -> list[str]:
    """What the model will not read of a prompt, in a line; none for a model that is not there or says so itself."""
    return [] if spec.family == "pocket" or not wording else cut_note(home(spec) / "text_encoder", wording)


def reading_bytes(spec: ModelSpec, wording: str, reader: torch.device) -> list[tuple[str, int]]:
    """What reading a prompt takes, by part; nothing where it was read before, or where no encoder is needed."""
    if spec.family == "pocket" or not wording:
        return []
    folder, dtype = home(spec) / "text_encoder", opensora.precision(reader)
    config, weights = dict[str, Any](), dtype.itemsize * parameters({})
    if folder.is_dir():
        config, weights = read_json(folder / "config.json"), weight_bytes(folder, dtype, UNUSED)
        if T5Text(folder, reader, dtype, cache_folder() / "prompts").knows(wording):
            return []
    return [("weights", weights), ("activations", working_bytes(config, dtype))]


def _random_opensora(placing: Placing) -> Parts:
    dtype, config, rest = opensora.precision(placing.device), opensora.XL2, placing.rest
    denoiser = made_up(lambda: STDiT(config), rest, dtype, {"rope.freqs": frequencies(config)})
    codec = made_up(lambda: OpenSoraVAE(VAEConfig()), rest, dtype, normalisation())
    return Parts(codec, denoiser, opensora.RandomText(config.text_width), "random")


FAMILIES = {"pocket": (_read_pocket, _random_pocket), "opensora": (_read_opensora, _random_opensora)}
