"""The scenes that a video of the rendered world should show, and when: one span per prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from pavdm_cli.errors import PavdmError
from pavdm_cli.evaluation.probe import ATTRIBUTES, PROBE_FPS
from pavdm_cli.evaluation.videos import FIELDS
from pavdm_cli.generation.metadata import valid_fields
from pavdm_cli.generation.prompt_ranges import PromptRange, prompt_ranges
from pavdm_cli.models import registry
from pavdm_cli.pocket_world.parse import parse
from pavdm_cli.pocket_world.world import Scene, sample_scene
from pavdm_cli.video import read_metadata


@dataclass(frozen=True, slots=True)
class PromptSpan:
    """A part of a video that shows a single prompt, in seconds."""

    scene: Scene
    names_camera: bool = True  # False: the prompt says nothing about the camera
    caption: str = ""
    start: float = 0.0
    end: float = inf

    def contains(self, first: int, end: int) -> bool:
        """Whether all frames of a range at the probe's rate are in the span."""
        return self.start <= first / PROBE_FPS and end / PROBE_FPS <= self.end

    def to_json(self) -> dict[str, Any]:
        """Times and caption; an open end is None."""
        return {"start": self.start, "end": None if self.end == inf else self.end, "caption": self.caption}


def stored_spans(path: Path) -> tuple[PromptSpan, ...]:
    """The spans of a video of the rendered world, by its metadata; none for any other video.

    Also none where the captions describe only a part: for videos that start from an image, and their continuations or
    those of videos from other programs.
    """
    try:
        metadata, _ = valid_fields(read_metadata(path) or {})
        if registry.find(metadata["model"]).published_spec.name != registry.DEFAULT:
            return ()
        return spans_of(prompt_ranges(metadata))
    except (KeyError, PavdmError):
        return ()


def spans_of(ranges: Sequence[PromptRange]) -> tuple[PromptSpan, ...]:
    """A span for each range whose prompt mentions everything but the camera, without the transitions at its ends."""
    spans = []
    for part in ranges:
        start, end = part.start + part.fade_in, part.end - part.fade_out
        if start < end and (scene := scene_of(part.prompt)):
            spans.append(PromptSpan(scene, "camera" in parse(part.prompt).slots, part.prompt, start, end))
    return tuple(spans)


def scene_of(caption: str) -> Scene | None:
    """The scene that a caption describes; None unless it mentions everything but weather and camera."""
    slots: dict[str, Any] = {FIELDS[kind]: mention.meaning for kind, mention in parse(caption).slots.items()}
    slots = {"camera": "still", "weather": "clear"} | slots
    if slots.keys() < ATTRIBUTES.keys():
        return None
    return replace(sample_scene(0), home=(0.0, 0.0), period=1.0, **slots)
