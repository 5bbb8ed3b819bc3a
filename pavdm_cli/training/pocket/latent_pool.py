"""Clips of the painted world as latents, made once and kept in a file."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.hub.safetensors_file import open_weights
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.captions import caption
from pavdm_cli.pocket_world.render import canvas, render
from pavdm_cli.pocket_world.world import Scene, sample_scene
from pavdm_cli.runtime.untrusted import InvalidError


@dataclass(frozen=True, slots=True)
class Clips:
    """Which clips: how many scenes from which seed, how long, how large, how rich."""

    count: int = 4000
    latents: int = 20
    first_seed: int = 2_000_000
    size: tuple[int, int] = (64, 96)
    fps: float = 8.0
    detail: float = 0.3

    def scene(self, index: int) -> Scene:
        """The scene of a clip."""
        return sample_scene(self.first_seed + index)


def load_or_make(path: Path, clips: Clips, codec: PocketVAE, progress: Callable[[int], None]) -> Tensor:
    """Latents of every clip, float16 (count, latents, C, h, w), from the file if it holds them. Raises: OutputError."""
    recipe = describe(clips, codec)
    stored = _stored(path, recipe)
    if stored is not None and len(stored) >= clips.count:
        return stored[: clips.count]
    latents = torch.cat(list(make(clips, codec, progress)))
    with atomic_write(path) as beside:
        save_file({"latents": latents}, beside, {"recipe": recipe})
    return latents


def describe(clips: Clips, codec: PocketVAE) -> str:
    """All that the latents of a clip depend on, its index aside: other settings or another codec, other words."""
    weights = hashlib.sha256()
    for value in codec.state_dict().values():
        weights.update(value.detach().cpu().contiguous().numpy().tobytes())
    return json.dumps(asdict(replace(clips, count=0)) | {"codec": weights.hexdigest()})


@torch.no_grad()
def make(clips: Clips, codec: PocketVAE, progress: Callable[[int], None], at_once: int = 16) -> Iterator[Tensor]:
    """Render and encode clips a few at a time; each starts anywhere in its first minute."""
    device = next(codec.parameters()).device
    on = canvas(clips.size, clips.detail, device)
    frames = clips.latents * codec.config.frames_per_latent
    for start in range(0, clips.count, at_once):
        chosen = range(start, min(start + at_once, clips.count))
        begins = torch.tensor([random.Random(clips.first_seed + i).uniform(0, 60) for i in chosen])
        seconds = begins[:, None] + torch.arange(frames) / clips.fps
        picture = render([clips.scene(i) for i in chosen], seconds.to(device), on)
        yield codec.encode(picture.frames).half().cpu()
        progress(len(chosen))


def _stored(path: Path, recipe: str) -> Tensor | None:
    try:
        with open_weights(path) as file:
            made = (file.metadata() or {}).get("recipe", recipe)
            found: Tensor | None = file.get_tensor("latents") if made == recipe else None
            return found
    except (OSError, SafetensorError, InvalidError):
        return None  # none yet, or no such file: they are made anew


def captions(clips: Clips, indices: list[int], draw: random.Random) -> list[str]:
    """A fresh wording for each clip."""
    return [caption(clips.scene(i), draw) for i in indices]
