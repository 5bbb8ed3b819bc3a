"""Networks to be timed with random weights: any shape, no download, and no picture at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pavdm_cli.errors import UsageError
from pavdm_cli.models.load import Loaded, load
from pavdm_cli.models.opensora.config import XL2, precision
from pavdm_cli.models.random_weights import made_up
from pavdm_cli.models.specs import MODELS, OPENSORA, ModelSpec
from pavdm_cli.models.stdit.transformer import STDiT, STDiTConfig, frequencies

PROMPT = "a red ball over hills"  # its words do not matter: what a shape reads has its own length


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network is shown, and the network where it is no model's own."""

    spec: ModelSpec
    words: int  # text tokens
    config: STDiTConfig | None = None


MID = STDiTConfig(hidden=384, depth=6, heads=6, in_channels=4, out_channels=8, text_width=512, text_length=60)
MID_SPEC = replace(
    OPENSORA,
    name="mid",
    about="Open-Sora's window and steps at a size that a CPU can run",
    folder=Path(),
    size=(96, 160),
    scaled=False,
)
SHAPES = {"mid": Shape(MID_SPEC, 60, MID), "opensora-v1.2": Shape(OPENSORA, 300), "pocket": Shape(MODELS["pocket"], 12)}


def find_shape(name: str) -> Shape:
    """Raises: UsageError."""
    if name not in SHAPES:
        raise UsageError(f"no shape is called {name!r}", f"there is: {', '.join(SHAPES)}")
    return SHAPES[name]


class RandomText:
    """Stands where a text encoder stands: a prompt of so many random tokens."""

    def __init__(self, words: int, width: int) -> None:
        self.vectors = torch.randn(words, width, generator=torch.Generator().manual_seed(1))

    def embed(self, prompts: list[str], /) -> tuple[Tensor, Tensor]:
        """Token vectors (B, L, width), all of which belong to the prompt."""
        shape = (len(prompts), len(self.vectors))
        return self.vectors.expand(*shape, -1), torch.ones(shape, dtype=torch.bool)


class NoCodec:
    """Random weights make no picture."""

    def encode(self, frames: Tensor, /) -> Tensor:
        """Never asked for."""
        raise AssertionError("a shape has no codec")

    def decode(self, latents: Tensor, /) -> Tensor:
        """Never asked for."""
        raise AssertionError("a shape has no codec")


def random_model(shape: Shape, device: torch.device, whole: bool = False) -> Loaded:
    """The network with every weight random, so that no product is with zeros and no layer without effect.

    whole: with the model's codec. Open-Sora's needs libraries that its network does not, and is left out otherwise.
    """
    config = shape.config or (XL2 if shape.spec.family == OPENSORA.family and not whole else None)
    if config is None:
        model = load(shape.spec, device, random=True)
        return replace(model, text=RandomText(shape.words, model.denoiser.config.text_width))
    network = made_up(lambda: STDiT(config), device, precision(device), {"rope.freqs": frequencies(config)})
    return Loaded(shape.spec, NoCodec(), network, RandomText(shape.words, config.text_width), device, "random")
