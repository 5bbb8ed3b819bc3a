"""Videos to judge: of held-out prompts, as the model makes them and as the world truly is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pavdm_cli.generation import pipeline
from pavdm_cli.generation.request import Request, Sampling
from pavdm_cli.models.pixels import from_bytes, to_bytes
from pavdm_cli.pocket_world.captions import caption
from pavdm_cli.pocket_world.parse import KINDS, parse
from pavdm_cli.pocket_world.render import canvas, render
from pavdm_cli.pocket_world.world import Scene, sample_scene

FIELDS = {kind: {"time of day": "time"}.get(kind, kind) for kind in KINDS}  # the attribute of a scene for each kind
# Which kinds the prompts of a class name, as people type them: a word, or a few more.
PARTIAL = {
    "object": ("object",),
    "colour, object": ("colour", "object"),
    "colour, object, time": ("colour", "object", "time of day"),
    "colour, object, time, place": ("colour", "object", "time of day", "terrain"),
}


@dataclass(frozen=True, slots=True)
class Video:
    """Frames, and what they should show."""

    scene: Scene
    prompt: str
    frames: NDArray[np.uint8]  # (n, H, W, 3)

    def pixels(self, part: slice = slice(None)) -> Tensor:  # (n, 3, H, W)
        """Some of the frames, 0 to 1."""
        return from_bytes(self.frames[part])

    @property
    def asked(self) -> dict[str, str]:
        """The attributes that the prompt speaks of, in the scene; a camera that is not mentioned is still."""
        named = [FIELDS[kind] for kind in parse(self.prompt).slots]
        return {"camera": "still"} | {name: getattr(self.scene, name) for name in named}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which videos: a scene, a caption and a noise for every seed; how long; from whose weights."""

    seeds: range
    seconds: float
    weights: Path | None = None  # a folder with both parts; the embedded ones if not given
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    detail: float = 0.3
    kinds: tuple[str, ...] = ()  # what the prompts name, the object among them; all if empty


def generated(wanted: Wanted) -> Iterator[Video]:
    """What the model makes of the prompts."""
    jobs = [_job(wanted, seed) for seed in wanted.seeds]
    model = pipeline.open_model(jobs[0])
    for seed, job in zip(wanted.seeds, jobs, strict=True):
        yield Video(sample_scene(seed), job.prompt, np.concatenate(list(pipeline.frames(job, model))))


def real(wanted: Wanted, spans: int | None = None) -> Iterator[Video]:
    """The scenes as they are; with `spans`, only so many frames at the start and at the end."""
    spec = wanted.sampling.spec
    count = round(wanted.seconds * spec.fps)
    kept = [i for i in range(count) if spans is None or i < spans or i >= count - spans]
    for seed in wanted.seeds:
        scene, seconds = sample_scene(seed), torch.tensor([kept]) / spec.fps
        frames = render([scene], seconds, canvas(spec.size, wanted.detail)).frames[0]
        yield Video(scene, prompt_of(seed), to_bytes(frames))


def prompt_of(seed: int, kinds: tuple[str, ...] = ()) -> str:
    """The caption of a seed's scene, or of that only what some kinds of word say."""
    full = caption(sample_scene(seed), random.Random(seed))
    if not kinds:
        return full
    said = {kind: mention.wording for kind, mention in parse(full).slots.items() if kind in kinds}
    thing = " ".join(("a", *(said[kind] for kind in ("colour", "object") if kind in said)))
    place = f"{'on' if sample_scene(seed).object == 'boat' else 'over'} {said['terrain']}" if "terrain" in said else ""
    return " ".join(filter(None, (thing, place, said.get("time of day", ""))))


def _job(wanted: Wanted, seed: int) -> pipeline.Job:
    sampling = replace(wanted.sampling, seed=seed)
    job = pipeline.plan(Request(prompt_of(seed, wanted.kinds), seconds=wanted.seconds, sampling=sampling))
    return replace(job, spec=replace(job.spec, folder=wanted.weights)) if wanted.weights else job
