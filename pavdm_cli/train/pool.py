"""Clips of the painted world as latents, made once and kept in a file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pavdm_cli.models.pocket_codec import PocketCodec
from pavdm_cli.train.captions import caption
from pavdm_cli.train.paint import canvas, render
from pavdm_cli.train.world import Scene, sample_scene


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


def load_or_make(path: Path, clips: Clips, codec: PocketCodec, progress: Callable[[int], None]) -> Tensor:
    """Latents of every clip, float16 (count, latents, C, h, w), from the file if it holds them all."""
    if path.exists():
        stored = load_file(path)["latents"]
        if len(stored) >= clips.count:
            return stored[: clips.count]
    latents = torch.cat(list(make(clips, codec, progress)))
    save_file({"latents": latents}, path)
    return latents


@torch.no_grad()
def make(clips: Clips, codec: PocketCodec, progress: Callable[[int], None], at_once: int = 16) -> Iterator[Tensor]:
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


def captions(clips: Clips, indices: list[int], draw: random.Random) -> list[str]:
    """A fresh wording for each clip."""
    return [caption(clips.scene(i), draw) for i in indices]
