"""The scenes that a video of the painted world was asked to show, and when: one span per prompt of its timeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

from pavdm_cli.errors import PavdmError
from pavdm_cli.evaluation.probe import ATTRIBUTES, PROBE_FPS
from pavdm_cli.evaluation.videos import FIELDS
from pavdm_cli.generation.metadata import valid_fields
from pavdm_cli.models import registry
from pavdm_cli.pocket_world.parse import parse
from pavdm_cli.pocket_world.world import Scene, sample_scene
from pavdm_cli.video import read_metadata


@dataclass(frozen=True, slots=True)
class PromptSpan:
    """A part of a video that shows one prompt alone, in seconds."""

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
    """The spans of a video of the painted world, by its metadata; none for any other video.

    Also none for continuations and videos that start from an image, since the captions describe only a part.
    """
    try:
        metadata, _ = valid_fields(read_metadata(path) or {})
        if "source" in metadata or "image" in metadata:
            return ()
        if registry.find(metadata["model"]).published.name != registry.DEFAULT:
            return ()
        return spans_of(metadata)
    except (KeyError, PavdmError):
        return ()


def spans_of(metadata: Mapping[str, Any]) -> tuple[PromptSpan, ...]:
    """A span for each prompt that mentions everything but the camera, without the transitions between prompts.

    A change may show a window before its time, as noisy chunks of the window follow it too. It is complete a window
    after the first chunk or clip that begins with it, and after its blend.
    """
    changes = metadata.get("timeline", [])
    before, after = transition(metadata) if changes else (0.0, 0.0)
    times = [0.0, *(change["at"] for change in changes), inf]
    spans = []
    for number, (prompt, (at, following)) in enumerate(zip([metadata, *changes], pairwise(times), strict=True)):
        caption = str(prompt.get("caption") or prompt["prompt"])
        start, end = at + after if number else 0.0, following - before
        if start < end and (scene := scene_of(caption)):
            spans.append(PromptSpan(scene, "camera" in parse(caption).slots, caption, start, end))
    return tuple(spans)


def transition(metadata: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds before and after the time of a prompt change in which neither prompt is shown alone."""
    model = registry.find(metadata["model"])
    latent = float(model.layout(model.spec.size, model.spec.fps).frames_per_latent / model.spec.fps)
    window = metadata.get("window", model.spec.window) * latent
    chunk = metadata.get("chunk", model.spec.chunk) * latent
    unit = window if metadata.get("method") in ("rn", "rw", "windows") else chunk
    return window, unit + metadata.get("blend", 0.0) + window


def scene_of(caption: str) -> Scene | None:
    """The scene that a caption describes; None unless it mentions everything but the camera."""
    slots: dict[str, Any] = {FIELDS[kind]: mention.meaning for kind, mention in parse(caption).slots.items()}
    if slots.keys() | {"camera"} < ATTRIBUTES.keys():
        return None
    return replace(sample_scene(0), home=(0.0, 0.0), period=1.0, **{"camera": "still"} | slots)
