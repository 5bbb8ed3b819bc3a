"""Clips of the rendered world as latents, encoded once and stored in a file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.hub.safetensors_file import open_weights
from pavdm_cli.models.pocket.frame_format import CODED_FPS, CODED_SIZE
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.captions import caption
from pavdm_cli.pocket_world.render import canvas, render
from pavdm_cli.pocket_world.world import Scene, sample_scene
from pavdm_cli.runtime.untrusted import InvalidError
from pavdm_cli.training.pocket import fingerprint


@dataclass(frozen=True, slots=True)
class Clips:
    """A set of rendered clips."""

    count: int = 4000
    latents: int = 20
    first_seed: int = 2_000_000
    size: tuple[int, int] = CODED_SIZE
    fps: float = CODED_FPS
    detail: float = 0.3

    def scene(self, index: int) -> Scene:
        """The scene of a clip."""
        return sample_scene(self.first_seed + index)


@dataclass(frozen=True, slots=True)
class Pool:
    """The latents of every clip, and where its object is."""

    latents: Tensor  # float16 (count, latents, C, h, w)
    object_mask: Tensor | None = None  # float16 (count, latents, h, w); None in files of earlier versions

    def first(self, count: int) -> Pool:
        """The first clips alone."""
        return Pool(self.latents[:count], None if self.object_mask is None else self.object_mask[:count])

    def crop_object_mask(self, ranges: Sequence[tuple[int, slice]]) -> Tensor:  # -> (B, T, h, w)
        """The masks of ranges of latents."""
        assert self.object_mask is not None
        return torch.stack([self.object_mask[clip, latents] for clip, latents in ranges]).float()


def load_or_encode(
    path: Path, clips: Clips, vae: PocketVAE, progress: Callable[[int], None], needs_mask: bool = False
) -> Pool:
    """The pool of these clips, from the file if it holds them, with the mask if needed. Raises: OutputError."""
    key = pool_key(clips, vae)
    stored = _load_pool(path, key)
    if stored and len(stored.latents) >= clips.count and not (needs_mask and stored.object_mask is None):
        return stored.first(clips.count)
    latents, masks = map(torch.cat, zip(*encode_pool(clips, vae, progress), strict=True))
    with atomic_write(path) as temporary:
        save_file({"latents": latents, "object_mask": masks}, temporary, {"recipe": key})
    return Pool(latents, masks)


def pool_key(clips: Clips, vae: PocketVAE) -> str:
    """Everything that the latents of a clip depend on, except its index, as JSON; not on the decoder."""
    return json.dumps(asdict(replace(clips, count=0)) | {"codec": fingerprint.latents(vae)})


@torch.no_grad()
def encode_pool(
    clips: Clips, vae: PocketVAE, progress: Callable[[int], None], batch: int = 16
) -> Iterator[tuple[Tensor, Tensor]]:
    """Latents and object masks of rendered clips, in batches; each clip starts at a random time in its first minute."""
    device = next(vae.parameters()).device
    on = canvas(clips.size, clips.detail, device)
    frames = clips.latents * vae.config.frames_per_latent
    for start in range(0, clips.count, batch):
        indices = range(start, min(start + batch, clips.count))
        starts = torch.tensor([random.Random(clips.first_seed + i).uniform(0, 60) for i in indices])
        seconds = starts[:, None] + torch.arange(frames) / clips.fps
        scenes = render([clips.scene(i) for i in indices], seconds.to(device), on)
        masks = object_mask(scenes.mask, vae.config.frames_per_latent)
        yield vae.encode(scenes.frames).half().cpu(), masks.half().cpu()
        progress(len(indices))


def object_mask(mask: Tensor, frames_per_latent: int) -> Tensor:  # (B, frames, H, W) -> (B, latents, H / 8, W / 8)
    """Where the object and its neighborhood are: the share of its pixels per latent pixel, dilated by one."""
    share = nn.functional.avg_pool3d(mask[:, None], (frames_per_latent, 8, 8))[:, 0]
    return nn.functional.max_pool2d(share, 3, stride=1, padding=1)


def _load_pool(path: Path, key: str) -> Pool | None:
    try:
        with open_weights(path) as file:
            stored_key = (file.metadata() or {}).get("recipe", key)
            if stored_key != key:
                return None
            masks = file.get_tensor("object_mask") if "object_mask" in file.keys() else None  # noqa: SIM118
            return Pool(file.get_tensor("latents"), masks)
    except (OSError, SafetensorError, InvalidError):
        return None  # missing or damaged: encoded again


def captions(clips: Clips, indices: list[int], rng: random.Random) -> list[str]:
    """A random caption for each clip."""
    return [caption(clips.scene(i), rng) for i in indices]
