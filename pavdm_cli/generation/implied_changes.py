"""Prompt changes that a prompt itself asks for, as in "as the sun sets", added to the timeline."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from pavdm_cli.generation.checks import format_prompts, resolve_counts
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.timeline import PromptChange, format_seconds
from pavdm_cli.models.adapter import Prompt

# Length of a video relative to the time of its last implied change; in a shorter video all changes come earlier.
MIN_LENGTH_RATIO = 1.5
MIN_CHUNKS = 2  # between changes


def with_implied_changes(request: Request, seconds: float) -> tuple[Request, list[str]]:
    """The request with the changes that its prompts imply, and a note on them; seconds: length of the video.

    They end where the timeline has another prompt, so applying it again adds nothing. Raises: UsageError.
    """
    if not request.prompt and request.extension:
        return request, []
    prompts, min_gap = format_prompts(request), MIN_CHUNKS * chunk_seconds(request)
    times = [0.0, *(change.at for change in request.timeline), seconds]
    implied_changes = list[PromptChange]()
    for prompt, (start, end) in zip(prompts, pairwise(times), strict=True):
        changes = scaled_changes(prompt, start, seconds, min_gap)
        implied_changes += [change for change in changes if change.at + min_gap <= end]
    if not implied_changes:
        return request, []
    timeline = tuple(sorted((*request.timeline, *implied_changes), key=lambda change: change.at))
    description = ", ".join(f'at {format_seconds(change.at)} to "{change.prompt}"' for change in implied_changes)
    return replace(request, timeline=timeline), [f"the prompt changes {description}"]


def scaled_changes(prompt: Prompt, start: float, seconds: float, min_gap: float) -> list[PromptChange]:
    """The changes of a prompt from `start`, earlier in a short video; none if two were less than `min_gap` apart."""
    if not prompt.later:
        return []
    scale = min(1.0, seconds / (MIN_LENGTH_RATIO * prompt.later[-1][0]))
    changes = [PromptChange(round(start + scale * at, 2), text) for at, text in prompt.later]
    return changes if all(b - a >= min_gap for a, b in pairwise((start, *(change.at for change in changes)))) else []


def explicit_changes(request: Request) -> list[PromptChange]:
    """The timeline without implied changes. Raises: UsageError."""
    implied = {text for prompt in format_prompts(request) for _, text in prompt.later} if request.timeline else set()
    return [change for change in request.timeline if change.prompt not in implied]


def chunk_seconds(request: Request) -> float:
    """Duration of a chunk."""
    layout = request.video_model.layout(request.spec.size, request.spec.fps)
    return float(resolve_counts(request)["chunk"] * layout.frames_per_latent / request.spec.fps)
