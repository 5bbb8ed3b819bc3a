"""Binds the prompt timeline to the denoiser: the text may change whenever the window shifts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor, nn

from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.models.adapter import TextEmbedding
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.denoiser import AnyDenoiser, Denoiser, TextKV, TimelineDenoiser
from pavdm_cli.sampling.noise import NoiseLevels


def make_denoiser(
    config: GenerationConfig, model: ModelRunner, levels: NoiseLevels, wrap: Callable[[Denoiser], Denoiser]
) -> AnyDenoiser:
    """The denoiser of a video's prompts; `wrap` is applied after binding to a text."""
    scale, execution, schedule = config.guidance_scale, config.execution, config.schedule
    if not config.timeline:
        first = config.formatted_prompt
        return wrap(model.denoiser(first.text, schedule, levels, scale, execution, negative=first.negative))
    bind = model.bind(schedule, levels, scale, execution)
    embeddings = [model.embed(prompt.text, scale != 1, prompt.negative) for prompt in config.prompts]

    @lru_cache(maxsize=1)
    def text_kv(index: int, weight: float) -> TextKV:
        pairs = zip(embeddings[index - 1], embeddings[index], strict=True)
        text = embeddings[index] if weight == 1 else [blend(*pair, weight) for pair in pairs]
        return model.text_kv(text, schedule, execution)

    return TimelineDenoiser(lambda text: wrap(bind(text)), lambda newest: text_kv(*active_prompt(config, newest)))


def active_prompt(config: GenerationConfig, newest: int) -> tuple[int, float]:
    """The index of the prompt for a window, and its blend weight in (0, 1].

    It is chosen by the start time of the window's newest chunk: a prompt takes effect with the first chunk that begins
    at or after its time. Chunks that are already partly denoised switch to it as well.
    """
    time = config.chunk_start(newest)
    index = bisect_right([change.time for change in config.timeline], time)
    if not index or not config.blend:
        return index, 1.0
    fraction = (time - config.timeline[index - 1].time) / Fraction(str(config.blend))
    return (index, min(1.0, float(fraction))) if fraction else (index - 1, 1.0)


@torch.no_grad()
def blend(before: TextEmbedding, after: TextEmbedding, weight: float) -> TextEmbedding:
    """Interpolate two embeddings token by token; a token that only one of them has is kept."""
    length = max(len(before.embeds), len(after.embeds))
    (embeds_before, mask), (embeds_after, other_mask) = (_pad(text, length) for text in (before, after))
    embeds = torch.where(mask[:, None], embeds_before, embeds_after).lerp(
        torch.where(other_mask[:, None], embeds_after, embeds_before), weight
    )
    return TextEmbedding(embeds, None if before.mask is None and after.mask is None else mask | other_mask)


def _pad(text: TextEmbedding, length: int) -> tuple[Tensor, Tensor]:
    """Embeddings and mask padded to `length` tokens."""
    embeds, missing = text.embeds, length - len(text.embeds)
    mask = torch.ones(len(embeds), dtype=torch.bool) if text.mask is None else text.mask
    return nn.functional.pad(embeds, (0, 0, 0, missing)), nn.functional.pad(mask.to(embeds.device), (0, missing))
