"""Fingerprints of what weights were trained on, stored in their header: a changed world needs new weights."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.pocket.frame_format import CODED_SIZE
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.render import canvas, render
from pavdm_cli.pocket_world.vocabulary import VOCABULARY
from pavdm_cli.pocket_world.world import sample_scene

SCENES, SECONDS, BLOCK = 16, 3.0, 8
ROUNDING = 1  # of 255: processors differ in the last bits


def world(detail: float = 0.3) -> str:
    """Thumbnails of a few fixed scenes as they are rendered now."""
    frames = render(
        [sample_scene(seed) for seed in range(SCENES)], torch.full((SCENES, 1), SECONDS), canvas(CODED_SIZE, detail)
    ).frames
    thumbnails = torch.nn.functional.avg_pool2d(frames.flatten(0, 1), BLOCK)
    return b64encode(to_bytes(thumbnails).tobytes()).decode()


def vocabulary(words: Mapping[str, int] = VOCABULARY) -> str:
    """A hash of the token ids of all words."""
    return _hash(json.dumps(dict(words), sort_keys=True).encode())


def latents(vae: PocketVAE) -> str:
    """A hash of the encoder: a denoiser fits any decoder of the same latents."""
    parts = {
        name: value for name, value in vae.state_dict().items() if not name.startswith(("decoder.", "large_decoder."))
    }
    return _hash(b"".join(name.encode() + _stored_bytes(parts[name]) for name in sorted(parts)))


def same_world(one: str, other: str) -> bool:
    """Whether two worlds are equal up to rounding."""
    first, second = (np.frombuffer(b64decode(text), np.uint8).astype(int) for text in (one, other))
    return first.shape == second.shape and bool(abs(first - second).max() <= ROUNDING)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _stored_bytes(value: Tensor) -> bytes:
    """The bytes of a weight in a file, in 16 bits."""
    half = value.half() if value.is_floating_point() else value
    return half.detach().cpu().contiguous().numpy().tobytes()
