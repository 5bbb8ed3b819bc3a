"""Which part of a video shows which prompt: by its timeline, and after redone spans and continuations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import Any

from pavdm_cli.errors import ModelError
from pavdm_cli.generation.timeline import MAX_TIME, STORED_PROMPT, format_seconds
from pavdm_cli.models import registry
from pavdm_cli.runtime.untrusted import list_of, number, optional, record_of

TIME, MAX_RANGES = number(0, MAX_TIME), 10_000
FIELDS = {"prompt": STORED_PROMPT, "start": TIME, "end": optional(TIME), "fade_in": TIME, "fade_out": TIME}


STORED_RANGES = list_of(record_of("a part of the video with its prompt", FIELDS), MAX_RANGES)


@dataclass(frozen=True, slots=True)
class PromptRange:
    """A part of a video that was generated with one prompt; times in seconds of the file."""

    prompt: str  # the caption, where the model makes one of the prompt
    start: float = 0.0
    end: float = inf  # inf: the end of the video
    fade_in: float = 0.0  # seconds after its start in which it may also show the previous prompt
    fade_out: float = 0.0  # seconds before its end in which it may also show the next prompt

    def clip(self, start: float, end: float) -> PromptRange:
        """The part of this range between two times."""
        first, last = max(self.start, start), min(self.end, end)
        fade_in = max(0.0, self.start + self.fade_in - first)
        fade_out = 0.0 if last == inf else max(0.0, last - (self.end - self.fade_out))
        return PromptRange(self.prompt, first, last, fade_in, fade_out)

    def to_json(self) -> dict[str, Any]:
        """The range as stored in metadata, where None is the end of the video."""
        values = {name: getattr(self, name) for name in FIELDS}
        return values | {"end": None if self.end == inf else self.end}

    def __str__(self) -> str:
        end = "the end" if self.end == inf else format_seconds(self.end)
        return f"{format_seconds(self.start)} to {end}: {self.prompt}"


def prompt_ranges(metadata: Mapping[str, Any]) -> list[PromptRange]:
    """The ranges of a video; none if its prompts describe only a part of it: if it continues an image or such a video.

    Raises: ModelError, KeyError for the metadata of other programs.
    """
    if "prompt_ranges" in metadata:
        return [
            PromptRange(**fields | {"end": inf if fields["end"] is None else fields["end"]})
            for fields in metadata["prompt_ranges"]
        ]
    return [] if {"image", "source"} & metadata.keys() else timeline_ranges(metadata)


def timeline_ranges(metadata: Mapping[str, Any]) -> list[PromptRange]:
    """The ranges of the prompt and of each later one in the timeline, in seconds from the first generated frame.

    A change may show a window before its time, as noisy chunks of the window follow it too. It is complete a window
    after the first chunk or clip that begins with it, and after its blend.
    """
    changes = metadata.get("timeline", [])
    times = [0.0, *(change["at"] for change in changes), inf]
    prompts = [_caption(fields) for fields in (metadata, *changes)]
    if not changes:
        return [PromptRange(prompts[0])]
    window = window_seconds(metadata)
    unit = window if metadata.get("method") in ("rn", "rw", "windows") else _seconds(metadata, "chunk")
    fade_in = unit + metadata.get("blend", 0.0) + window
    return [
        PromptRange(prompt, start, end, fade_in if start else 0.0, window if end < inf else 0.0)
        for prompt, (start, end) in zip(prompts, pairwise(times), strict=True)
    ]


def redone_ranges(
    ranges: Sequence[PromptRange], metadata: Mapping[str, Any], start: float, end: float, offset: float
) -> list[PromptRange]:
    """The ranges after the part from `start` to `end` was generated again with the prompts of `metadata`.

    Only frames of that part change; those near other prompts at its ends may show them too. offset: time of the first
    generated frame. Without ranges before, there are none after.
    """
    if not ranges:
        return []
    new = [
        part.clip(start, end)
        for part in _shift(timeline_ranges(metadata), offset)
        if part.start < end and start < part.end
    ]
    before = [part.clip(0.0, start) for part in ranges if part.start < start]
    after = [part.clip(end, inf) for part in ranges if end < part.end]
    window = window_seconds(metadata)
    return _join(_join(before, new, fade_in=window), after, fade_out=window)


def extended_ranges(
    source: Mapping[str, Any], metadata: Mapping[str, Any], copied: float, only_new: bool
) -> list[PromptRange]:
    """The ranges of a continuation with the prompts of `metadata`; none unless its source has ranges of this model.

    copied: seconds of the source, which come before the new frames or, with `only_new`, are left out.
    """
    try:
        ranges = prompt_ranges(source) if source.get("model") == metadata["model"] else []
    except (KeyError, ModelError):
        ranges = []
    if not ranges:
        return []
    before = [part.clip(0.0, copied) for part in ranges if part.start < copied]
    joined = _join(before, _shift(timeline_ranges(metadata), copied), fade_in=window_seconds(metadata))
    if not only_new:
        return joined
    return _shift([part.clip(copied, inf) for part in joined if copied < part.end], -copied)


def _join(
    before: Sequence[PromptRange], after: Sequence[PromptRange], fade_in: float = 0.0, fade_out: float = 0.0
) -> list[PromptRange]:
    """Join the ranges of two consecutive parts: into one where the prompt stays, else with a transition."""
    if not before or not after:
        return [*before, *after]
    last, first = before[-1], after[0]
    if last.prompt == first.prompt and not last.fade_out and not first.fade_in:
        return [*before[:-1], replace(last, end=first.end, fade_out=first.fade_out), *after[1:]]
    if last.prompt != first.prompt:
        last = replace(last, fade_out=max(last.fade_out, fade_out))
        first = replace(first, fade_in=max(first.fade_in, fade_in))
    return [*before[:-1], last, first, *after[1:]]


def _shift(ranges: Iterable[PromptRange], seconds: float) -> list[PromptRange]:
    """The ranges, moved later by `seconds`."""
    return [replace(part, start=part.start + seconds, end=part.end + seconds) for part in ranges]


def window_seconds(metadata: Mapping[str, Any]) -> float:
    """Duration of the window of a video, in seconds."""
    return _seconds(metadata, "window")


def _seconds(metadata: Mapping[str, Any], name: str) -> float:
    """Duration in seconds of the number of latents that the metadata have under `name`."""
    model = registry.find(metadata["model"])
    fps = float(metadata.get("fps", model.spec.fps))
    latents = int(metadata.get(name, getattr(model.spec, name)))
    return latents * float(model.layout(model.spec.size, fps).frames_per_latent) / fps


def _caption(prompt: Mapping[str, Any]) -> str:
    return str(prompt.get("caption") or prompt["prompt"])
