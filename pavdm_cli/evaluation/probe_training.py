"""Training and checking the probe on the painted world: rendered on the fly, half of it seen through the codec."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pavdm_cli.evaluation import corruptions
from pavdm_cli.evaluation.probe import ATTRIBUTES, CLIP, COUNTS, RATE, SIZE, Probe
from pavdm_cli.models.pocket.vae import PocketCodec
from pavdm_cli.pocket_world.render import canvas, render
from pavdm_cli.pocket_world.world import Scene, sample_scene

FIRST_SEED = 5_000_000  # of the probe's own scenes; the codec's and the denoiser's begin elsewhere
CODED = 0.5  # of what the probe sees has been through the codec
LATENT_NOISE = 0.25  # at most, on the way, in standard deviations of a latent

Report = Callable[[str, int, float], None]


@dataclass(frozen=True, slots=True)
class Lessons:
    """How much the probe learns from: steps and batch of each reader, and the world's detail."""

    clip_steps: int = 600
    clips: int = 16
    frame_steps: int = 600
    frames: int = 64
    rate: float = 3e-3
    detail: float = 0.3


@dataclass(frozen=True, slots=True)
class Shown:
    """Single frames and what each shows."""

    frames: Tensor  # (N, 3, H, W)
    counts: Tensor  # (N,), places in COUNTS


def train(codec: PocketCodec, lessons: Lessons, report: Report) -> Probe:
    """A probe from nothing; the same every time on one machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = Probe()
    _fit(probe.counter, lambda step: _frame_loss(probe, codec, lessons, step), lessons.frame_steps, lessons, report)
    _fit(probe.reader, lambda step: _clip_loss(probe, codec, lessons, step), lessons.clip_steps, lessons, report)
    probe.eval().requires_grad_(False)
    return probe


def clip_batch(seeds: range, detail: float) -> tuple[Tensor, list[Scene]]:
    """The clips of these scenes, each from anywhere in its first minute, (B, CLIP, 3, H, W)."""
    scenes = [sample_scene(seed) for seed in seeds]
    begins = torch.rand(len(seeds), 1, generator=torch.Generator().manual_seed(seeds.start)) * 60
    return render(scenes, begins + torch.arange(CLIP) / RATE, canvas(SIZE, detail)).frames, scenes


def frame_batch(seeds: range, detail: float) -> Shown:
    """Frames of these scenes in equal parts: without object, as they are, with two, and with a smear."""
    draw = random.Random(seeds.start)
    groups = [[sample_scene(seed) for seed in seeds[i :: len(COUNTS)]] for i in range(len(COUNTS))]
    times = [torch.tensor([[draw.uniform(0, 60)] for _ in group]) for group in groups]
    frames = [
        corruptions.missing(groups[0], times[0], canvas(SIZE, detail)),
        render(groups[1], times[1], canvas(SIZE, detail)).frames,
        corruptions.doubled(groups[2], times[2], canvas(SIZE, detail), draw),
        _spoilt(groups[3], times[3], detail, draw),
    ]
    counts = [torch.full((len(group),), i) for i, group in enumerate(groups)]
    return Shown(torch.cat(frames).flatten(0, 1), torch.cat(counts))


@torch.no_grad()
def clip_accuracy(probe: Probe, seeds: range, detail: float, codec: PocketCodec | None = None) -> dict[str, float]:
    """Share of clips read right, by attribute; seen through the codec if there is one."""
    right: dict[str, list[Tensor]] = {name: [] for name in ATTRIBUTES}
    for start in range(seeds.start, seeds.stop, 16):
        frames, scenes = clip_batch(range(start, min(start + 16, seeds.stop)), detail)
        scores = probe.reader(_through(codec, frames, torch.zeros(len(frames)), start) if codec else frames)
        for name, score in scores.items():
            right[name].append(score.argmax(dim=1) == _labels(scenes, name))
    return {name: float(torch.cat(rows).float().mean()) for name, rows in right.items()}


@torch.no_grad()
def count_accuracy(probe: Probe, seeds: range, detail: float) -> dict[str, float]:
    """Share of frames of each kind that are told right as showing exactly one object, or not."""
    shown, one = frame_batch(seeds, detail), COUNTS.index("one")
    said = probe.counter(shown.frames).argmax(dim=1) == one
    right = said == (shown.counts == one)
    return {name: float(right[shown.counts == i].float().mean()) for i, name in enumerate(COUNTS)}


def _fit(model: nn.Module, loss: Callable[[int], Tensor], steps: int, lessons: Lessons, report: Report) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, lessons.rate, total_steps=steps + 1, pct_start=0.2)
    model.train()
    for step in range(steps):
        value = loss(step)
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        plan.step()
        report(type(model).__name__, step, value.item())


def _clip_loss(probe: Probe, codec: PocketCodec, lessons: Lessons, step: int) -> Tensor:
    frames, scenes = clip_batch(_seeds(step, lessons.clips), lessons.detail)
    with torch.autocast("cpu", torch.bfloat16):
        scores = probe.reader(_spoil(codec, frames, step))
    losses = [nn.functional.cross_entropy(score.float(), _labels(scenes, name)) for name, score in scores.items()]
    return torch.stack(losses).sum()


def _frame_loss(probe: Probe, codec: PocketCodec, lessons: Lessons, step: int) -> Tensor:
    shown = frame_batch(_seeds(step, lessons.frames), lessons.detail)
    with torch.autocast("cpu", torch.bfloat16):
        scores = probe.counter(_spoil(codec, shown.frames[:, None], step)[:, 0])
    return nn.functional.cross_entropy(scores.float(), shown.counts, label_smoothing=0.02)


def _seeds(step: int, count: int) -> range:
    return range(FIRST_SEED + step * count, FIRST_SEED + (step + 1) * count)


def _labels(scenes: Sequence[Scene], attribute: str) -> Tensor:  # (B,)
    return torch.tensor([ATTRIBUTES[attribute].index(getattr(s, attribute)) for s in scenes])


def _spoil(codec: PocketCodec, frames: Tensor, step: int) -> Tensor:
    """About half the rows through the codec under some noise, all a little brighter or darker, flatter or harsher."""
    draw = torch.Generator().manual_seed(step)
    coded = torch.rand(len(frames), generator=draw) < CODED
    noise = torch.rand(len(frames), generator=draw) * LATENT_NOISE
    tone = torch.rand(2, len(frames), 1, 1, 1, 1, generator=draw) * 0.12 - 0.06
    frames = frames.clone()
    if bool(coded.any()):
        frames[coded] = _through(codec, frames[coded], noise[coded], step)
    return ((frames - 0.5) * (1 + tone[0]) + 0.5 + tone[1] / 2).clamp(0, 1)


@torch.no_grad()
def _through(codec: PocketCodec, frames: Tensor, noise: Tensor, seed: int) -> Tensor:
    """Frames (B, T, 3, H, W) to codes and back, with noise (B,) added on the way."""
    with torch.autocast("cpu", torch.bfloat16):
        codes = codec.code(frames.flatten(0, 1))
        strength = noise.repeat_interleave(frames.shape[1])[:, None, None, None]
        rough = torch.randn(codes.shape, generator=torch.Generator().manual_seed(seed))
        coded: Tensor = codec.picture(codes + strength * rough).float().clamp(0, 1)
        return coded.view_as(frames)


def _spoilt(scenes: list[Scene], seconds: Tensor, detail: float, draw: random.Random) -> Tensor:
    """Objects faded, smeared or halved, a third of the scenes each."""
    on, third = canvas(SIZE, detail), -(-len(scenes) // 3)
    parts = [(scenes[i : i + third], seconds[i : i + third]) for i in range(0, len(scenes), third)]
    ways: list[Callable[[list[Scene], Tensor], Tensor]] = [
        lambda s, t: corruptions.faded(s, t, on, draw.uniform(0.15, 0.6)),
        lambda s, t: corruptions.smeared(s, t, on, draw.uniform(0.25, 0.5)),
        lambda s, t: corruptions.halved(s, t, on, draw.uniform(0, 6.28)),
    ]
    return torch.cat([way(s, t) for way, (s, t) in zip(ways, parts, strict=False)])
