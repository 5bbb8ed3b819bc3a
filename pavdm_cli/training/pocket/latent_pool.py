"""Clips of the painted world as latents, encoded once and stored in a file."""

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
    """A set of rendered clips."""

    count: int = 4000
    latents: int = 20
    first_seed: int = 2_000_000
    size: tuple[int, int] = (64, 96)
    fps: float = 8.0
    detail: float = 0.3

    def scene(self, index: int) -> Scene:
        """The scene of a clip."""
        return sample_scene(self.first_seed + index)


def load_or_encode(path: Path, clips: Clips, vae: PocketVAE, progress: Callable[[int], None]) -> Tensor:
    """Latents of every clip, float16 (count, latents, C, h, w), from the file if it holds them. Raises: OutputError."""
    key = pool_key(clips, vae)
    stored = _stored(path, key)
    if stored is not None and len(stored) >= clips.count:
        return stored[: clips.count]
    latents = torch.cat(list(encode_pool(clips, vae, progress)))
    with atomic_write(path) as temporary:
        save_file({"latents": latents}, temporary, {"recipe": key})
    return latents


def pool_key(clips: Clips, vae: PocketVAE) -> str:
    """Everything that the latents of a clip depend on, except its index, as JSON."""
    weights = hashlib.sha256()
    for value in vae.state_dict().values():
        weights.update(value.detach().cpu().contiguous().numpy().tobytes())
    return json.dumps(asdict(replace(clips, count=0)) | {"codec": weights.hexdigest()})


@torch.no_grad()
def encode_pool(clips: Clips, vae: PocketVAE, progress: Callable[[int], None], batch: int = 16) -> Iterator[Tensor]:
    """Render and encode clips in batches; each starts at a random time in its first minute."""
    device = next(vae.parameters()).device
    on = canvas(clips.size, clips.detail, device)
    frames = clips.latents * vae.config.frames_per_latent
    for start in range(0, clips.count, batch):
        indices = range(start, min(start + batch, clips.count))
        begins = torch.tensor([random.Random(clips.first_seed + i).uniform(0, 60) for i in indices])
        seconds = begins[:, None] + torch.arange(frames) / clips.fps
        scenes = render([clips.scene(i) for i in indices], seconds.to(device), on)
        yield vae.encode(scenes.frames).half().cpu()
        progress(len(indices))


def _stored(path: Path, key: str) -> Tensor | None:
    try:
        with open_weights(path) as file:
            stored_key = (file.metadata() or {}).get("recipe", key)
            latents: Tensor | None = file.get_tensor("latents") if stored_key == key else None
            return latents
    except (OSError, SafetensorError, InvalidError):
        return None  # missing or damaged: encoded again


def captions(clips: Clips, indices: list[int], rng: random.Random) -> list[str]:
    """A random caption for each clip."""
    return [caption(clips.scene(i), rng) for i in indices]
