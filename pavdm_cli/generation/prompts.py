"""The denoiser of a video, with the text of the prompt in force: it may change when the window shifts."""

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


def denoiser_of(
    config: GenerationConfig, model: ModelRunner, levels: NoiseLevels, wrap: Callable[[Denoiser], Denoiser]
) -> AnyDenoiser:
    """The denoiser of a video's prompts; `wrap` is applied to it once it is bound to a text."""
    scale, execution, schedule = config.guidance_scale, config.execution, config.schedule
    if not config.timeline:
        first = config.formatted_prompt
        return wrap(model.denoiser(first.text, schedule, levels, scale, execution, negative=first.negative))
    bind = model.bind(schedule, levels, scale, execution)
    embedded = [model.embed(prompt.text, scale != 1, prompt.negative) for prompt in config.prompts]

    @lru_cache(maxsize=1)
    def text_kv(number: int, weight: float) -> TextKV:
        pairs = zip(embedded[number - 1], embedded[number], strict=True)
        text = embedded[number] if weight == 1 else [blend(*pair, weight) for pair in pairs]
        return model.text_kv(text, schedule, execution)

    return TimelineDenoiser(lambda text: wrap(bind(text)), lambda newest: text_kv(*prompt_in_force(config, newest)))


def prompt_in_force(config: GenerationConfig, newest: int) -> tuple[int, float]:
    """The number of the prompt for a window, and its weight against the one before it, above 0 to 1.

    It is that of the time at which the window's newest chunk begins: a prompt is shown from the chunk on that begins at
    its time or after it. Chunks that are denoised already follow it as far as they still can.
    """
    time = config.start_of(newest)
    number = bisect_right([change.time for change in config.timeline], time)
    if not number or not config.blend:
        return number, 1.0
    elapsed = (time - config.timeline[number - 1].time) / Fraction(str(config.blend))
    return (number, min(1.0, float(elapsed))) if elapsed else (number - 1, 1.0)


@torch.no_grad()
def blend(before: TextEmbedding, after: TextEmbedding, weight: float) -> TextEmbedding:
    """Token by token between two embeddings; where one of them has no token, that of the other."""
    length = max(len(before.rows), len(after.rows))
    (one, shown), (other, also_shown) = (_padded(text, length) for text in (before, after))
    rows = torch.where(shown[:, None], one, other).lerp(torch.where(also_shown[:, None], other, one), weight)
    return TextEmbedding(rows, None if before.mask is None and after.mask is None else shown | also_shown)


def _padded(text: TextEmbedding, length: int) -> tuple[Tensor, Tensor]:
    """Rows and mask with as many tokens."""
    missing = length - len(text.rows)
    mask = torch.ones(len(text.rows), dtype=torch.bool, device=text.rows.device) if text.mask is None else text.mask
    return nn.functional.pad(text.rows, (0, 0, 0, missing)), nn.functional.pad(mask.to(text.rows.device), (0, missing))
