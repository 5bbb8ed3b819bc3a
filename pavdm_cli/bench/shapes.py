"""Networks to be timed with random weights: any shape, no download, and no picture at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pavdm_cli.errors import UsageError
from pavdm_cli.models.load import Loaded
from pavdm_cli.models.pocket import SMALL
from pavdm_cli.models.stdit import STDiT, STDiTConfig
from pavdm_cli.specs import POCKET, ModelSpec


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a network, of what it is shown, and of the video that would come of it."""

    config: STDiTConfig
    spec: ModelSpec
    words: int  # text tokens


def _spec(name: str, about: str, size: tuple[int, int], scaled: bool) -> ModelSpec:
    """Open-Sora's window: 30 noisy latents in chunks of 5 with 5 clean ones before them, 17 frames each."""
    return ModelSpec(
        name=name,
        about=about,
        family="",
        licence="",
        folder=Path(),
        size=size,
        fps=24,
        group=(5, 17),
        window=30,
        chunk=5,
        steps=30,
        trained_steps=30,
        guidance=7.0,
        method="pa",
        scaled=scaled,
        causal=False,
    )


MID = STDiTConfig(hidden=384, depth=6, heads=6, in_channels=4, out_channels=8, text_width=512, text_length=60)
XL = STDiTConfig(hidden=1152, depth=28, heads=16, in_channels=4, out_channels=8, text_width=4096, text_length=300)
SHAPES = {
    "pocket": Shape(SMALL, POCKET, 12),
    "mid": Shape(MID, _spec("mid", "0.22 TFLOP a step: seconds on a CPU", (96, 160), False), 60),
    "opensora-v1.2": Shape(
        XL, _spec("opensora-v1.2", "63 TFLOP a step: STDiT3-XL/2 at 240x424", (240, 424), True), 300
    ),
}


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
        raise NotImplementedError

    def decode(self, latents: Tensor, /) -> Tensor:
        """Never asked for."""
        raise NotImplementedError


def random_model(shape: Shape, device: torch.device) -> Loaded:
    """The network with every weight random, in float32 on a CPU and bfloat16 elsewhere."""
    with torch.device(device), torch.random.fork_rng(devices=[]):
        network = STDiT(shape.config)
    randomise(network)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    network = network.to(device, dtype).eval().requires_grad_(False)
    text = RandomText(shape.words, shape.config.text_width)
    return Loaded(shape.spec, NoCodec(), network, text, device, "random")


@torch.no_grad()
def randomise(network: nn.Module) -> None:
    """No weight is left at zero or one: zeros multiply faster, and hide what a layer does."""
    for weight in network.state_dict().values():
        generator = torch.Generator(weight.device).manual_seed(weight.numel())
        weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)
