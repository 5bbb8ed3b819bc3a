"""The models pavdm knows, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pavdm_cli.errors import ModelError


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model was trained for, and where its weights are."""

    name: str
    about: str
    licence: str
    folder: Path
    size: tuple[int, int]  # pixels, height and width
    fps: int
    frames_per_latent: int
    window: int  # noisy latents
    chunk: int  # latents
    steps: int  # of sampling, unless asked otherwise
    trained_steps: int  # the levels it was trained at: sampling may take every second or third of them
    guidance: float
    method: str  # the one it was trained for

    @property
    def codec(self) -> Path:
        """The codec's weights."""
        return self.folder / "codec.safetensors"

    @property
    def denoiser(self) -> Path:
        """The weights of the text encoder and the transformer."""
        return self.folder / "denoiser.safetensors"


MODELS = {
    "pocket": ModelSpec(
        name="pocket",
        about="the embedded model: a small painted world, on any CPU, with no download",
        licence="Apache-2.0",
        folder=Path(__file__).parent / "weights" / "pocket",
        size=(64, 96),
        fps=8,
        frames_per_latent=2,
        window=12,
        chunk=2,
        steps=12,
        trained_steps=24,
        guidance=1.5,
        method="pa",
    )
}


def find(name: str) -> ModelSpec:
    """The model of a name. Raises: ModelError."""
    if name not in MODELS:
        raise ModelError(f"no model is called {name!r}", f"there is: {', '.join(MODELS)}")
    return MODELS[name]
