"""Image to video: frame 0 is the image, and the model continues from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pavdm_cli.errors import UsageError
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import Pixels, RenderedChunk
from pavdm_cli.generation.pipeline import make_levels, render_chunks, state_after_clip
from pavdm_cli.generation.recovery import Recovery, check_encoded
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.cuda_graphs import GraphCapturer
from pavdm_cli.sampling.loop import SamplerState, state_from_first_latents
from pavdm_cli.sampling.noise import seeded_noise
from pavdm_cli.video import StillImage, scale_to_cover


def num_image_frames(config: GenerationConfig) -> int:
    """Frames that are encoded before the first step: 1 if the VAE encodes a single frame as a latent."""
    return 1 if config.layout.first == 1 else config.layout.num_frames(config.schedule.context)


def notes(config: GenerationConfig, still: StillImage) -> list[str]:
    """Notes on conversions of the image, and on the model's style.

    Raises: UsageError if the image would have no effect.
    """
    if not config.image_is_first_latent and not config.schedule.context:
        raise UsageError("--image needs a context, and --context 0 disables it", "omit --context")
    spec = config.spec
    style_note = f"{spec.name} knows only {spec.world}: the video redraws the image in it"
    return [*still.notes, *([style_note] if spec.world else [])]


def image_metadata(still: StillImage) -> dict[str, Any]:
    """The image's fields in the video's metadata."""
    return {"image": str(still.path), "image_digest": still.digest}


def frames_from_image(
    config: GenerationConfig,
    model: ModelRunner,
    still: StillImage,
    graph_capturer: GraphCapturer | None = None,
    recovery: Recovery | None = None,
) -> Iterator[Pixels]:
    """Like `pipeline.generate_frames`, with the scaled and cropped image as the first frame."""
    chunks = render_from_image(config, model, still, graph_capturer, recovery)
    return (chunk.frames for chunk in chunks if len(chunk.frames))


def render_from_image(
    config: GenerationConfig,
    model: ModelRunner,
    still: StillImage,
    graph_capturer: GraphCapturer | None = None,
    recovery: Recovery | None = None,
) -> Iterator[RenderedChunk]:
    """Like `frames_from_image`, with the state after each chunk (None after the image itself)."""
    image = scale_to_cover(still.frame, config.spec.size)[None]
    start = state_from_image(config, model, image)
    chunks = render_chunks(model_config(config), model, start, graph_capturer, recovery)
    if config.image_is_first_latent:
        yield from with_first_frame(image, chunks)
    else:
        yield RenderedChunk(image, None, None)
        yield from chunks


def model_config(config: GenerationConfig) -> GenerationConfig:
    """The configuration without the image's frame, if the image is not the model's first latent."""
    return config if config.image_is_first_latent else replace(config, frames=config.frames - 1)


def with_first_frame(image: Pixels, chunks: Iterator[RenderedChunk]) -> Iterator[RenderedChunk]:  # (1, H, W, 3)
    """Replace the first frame of the video with the image."""
    for chunk in chunks:
        first = chunk.state is not None and 0 < chunk.state.frames == len(chunk.frames)
        yield replace(chunk, frames=np.concatenate([image, chunk.frames[1:]])) if first else chunk


@torch.no_grad()
def state_from_image(config: GenerationConfig, model: ModelRunner, image: Pixels) -> SamplerState:  # (1, H, W, 3)
    """The initial state: the image as the first latent, or as a still clip in the context.

    The latter if the VAE cannot encode single images, if its latents form one causal stream and there is a context to
    fill, or if the method re-noises the context.
    """
    clip = from_bytes(image)
    if not config.image_is_first_latent:
        return state_after_clip(config, model, clip.expand(num_image_frames(config), -1, -1, -1), renoise=False)
    first = check_encoded(model.encode(clip[None]), config.spec.latent_limit)
    noise = seeded_noise(config.seed, model.noise_shape())
    return state_from_first_latents(config.schedule, first, noise, make_levels(config).sigmas.to(model.device))
