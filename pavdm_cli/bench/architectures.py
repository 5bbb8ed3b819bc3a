"""Networks with random weights for benchmarks: no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pavdm_cli.errors import UsageError
from pavdm_cli.models.adapter import Placement, TextEmbedding, VideoModel
from pavdm_cli.models.open_runner import open_runner
from pavdm_cli.models.registry import ARCHITECTURES, MODELS, get
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.models.spec import ModelSpec

PROMPT = "a red ball over hills"  # its words do not matter: an architecture has its own number of tokens


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network with random weights, and how many text tokens it reads."""

    video_model: VideoModel
    tokens: int

    @property
    def spec(self) -> ModelSpec:
        """The spec of the model."""
        return self.video_model.spec

    @property
    def has_vae(self) -> bool:
        """Whether it has a VAE, and so can make a video."""
        return self.spec.name in MODELS


def find_architecture(name: str) -> Architecture:
    """Raises: UsageError."""
    if name not in MODELS | ARCHITECTURES:
        raise UsageError(f"unknown architecture {name!r}", f"known: {', '.join(ARCHITECTURES | MODELS)}")
    model = get(name)
    return Architecture(model, model.text_tokens)


class RandomTokens:
    """A text encoder that returns the same random tokens for any prompt."""

    def __init__(self, count: int, width: int) -> None:
        self.embeds = torch.randn(count, width, generator=torch.Generator().manual_seed(1))

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        """The same for each prompt."""
        return [TextEmbedding(self.embeds, torch.ones(len(self.embeds), dtype=torch.bool)) for _ in prompts]

    def memory_bytes(self, prompt: str, /) -> dict[str, int]:
        """Nothing."""
        return {}


def random_model(
    architecture: Architecture, device: torch.device, with_vae: bool = False, precision: str = ""
) -> ModelRunner:
    """The network with random weights, so that no matmul is with zeros and every layer has an effect.

    with_vae: with the model's VAE, which may need libraries that its transformer does not.
    """
    precision = precision or architecture.spec.precisions_on(device.type)[0]
    placement = Placement(device, precision, load_vae=with_vae)
    runner = open_runner(architecture.video_model, architecture.spec, placement, init="random")
    width = runner.model.text_shape[1]
    return replace(runner, text_encoder=RandomTokens(architecture.tokens, width))
