"""Train and test the probe on scenes rendered on the fly, half of them encoded and decoded by the VAE."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pavdm_cli.evaluation import corruptions
from pavdm_cli.evaluation.probe import ATTRIBUTES, CLIP_FRAMES, COUNTS, PROBE_FPS, SIZE, Probe
from pavdm_cli.models.devices import HOST, has_native_bf16
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.render import canvas, render
from pavdm_cli.pocket_world.world import Scene, sample_scene

FIRST_SEED = 5_000_000  # of the probe's scenes, disjoint from those of the VAE and the denoiser
VAE_SHARE = 0.5  # fraction of samples that pass through the VAE
LATENT_NOISE = 0.25  # largest noise added to their latents, in standard deviations

Report = Callable[[str, int, float], None]


@dataclass(frozen=True, slots=True)
class ProbeTraining:
    """Steps and batch size of each classifier, and the detail of the world."""

    clip_steps: int = 600
    clips: int = 16
    frame_steps: int = 600
    frames: int = 64
    lr: float = 3e-3
    detail: float = 0.3


@dataclass(frozen=True, slots=True)
class LabeledFrames:
    """Single frames and their classes."""

    frames: Tensor  # (N, 3, H, W)
    counts: Tensor  # (N,), indices into COUNTS


def train(vae: PocketVAE, config: ProbeTraining, report: Report) -> Probe:
    """Train a probe from scratch; deterministic on one machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = Probe()
    _fit(probe.counter, lambda step: _frame_loss(probe, vae, config, step), config.frame_steps, config, report)
    _fit(probe.reader, lambda step: _clip_loss(probe, vae, config, step), config.clip_steps, config, report)
    probe.eval().requires_grad_(False)
    return probe


def clip_batch(seeds: range, detail: float) -> tuple[Tensor, list[Scene]]:
    """Clips (B, CLIP_FRAMES, 3, H, W) from the first minute of each scene."""
    scenes = [sample_scene(seed) for seed in seeds]
    starts = torch.rand(len(seeds), 1, generator=torch.Generator().manual_seed(seeds.start)) * 60
    return render(scenes, starts + torch.arange(CLIP_FRAMES) / PROBE_FPS, canvas(SIZE, detail)).frames, scenes


def frame_batch(seeds: range, detail: float) -> LabeledFrames:
    """Frames of these scenes in equal parts: without object, unchanged, with two objects, and corrupted."""
    rng = random.Random(seeds.start)
    groups = [[sample_scene(seed) for seed in seeds[i :: len(COUNTS)]] for i in range(len(COUNTS))]
    times = [torch.tensor([[rng.uniform(0, 60)] for _ in group]) for group in groups]
    frames = [
        corruptions.remove_objects(groups[0], times[0], canvas(SIZE, detail)),
        render(groups[1], times[1], canvas(SIZE, detail)).frames,
        corruptions.duplicate_objects(groups[2], times[2], canvas(SIZE, detail), rng),
        _corrupt(groups[3], times[3], detail, rng),
    ]
    counts = [torch.full((len(group),), i) for i, group in enumerate(groups)]
    return LabeledFrames(torch.cat(frames).flatten(0, 1), torch.cat(counts))


@torch.no_grad()
def clip_accuracy(probe: Probe, seeds: range, detail: float, vae: PocketVAE | None = None) -> dict[str, float]:
    """Accuracy on clips by attribute; through the VAE if there is one."""
    correct: dict[str, list[Tensor]] = {name: [] for name in ATTRIBUTES}
    for start in range(seeds.start, seeds.stop, 16):
        frames, scenes = clip_batch(range(start, min(start + 16, seeds.stop)), detail)
        scores = probe.reader(_through_vae(vae, frames, torch.zeros(len(frames)), start) if vae else frames)
        for name, score in scores.items():
            correct[name].append(score.argmax(dim=1) == _labels(scenes, name))
    return {name: float(torch.cat(rows).float().mean()) for name, rows in correct.items()}


@torch.no_grad()
def count_accuracy(probe: Probe, seeds: range, detail: float) -> dict[str, float]:
    """Accuracy of "exactly one object" on frames of each class."""
    batch, one = frame_batch(seeds, detail), COUNTS.index("one")
    predicted = probe.counter(batch.frames).argmax(dim=1) == one
    correct = predicted == (batch.counts == one)
    return {name: float(correct[batch.counts == i].float().mean()) for i, name in enumerate(COUNTS)}


def _fit(model: nn.Module, loss: Callable[[int], Tensor], steps: int, config: ProbeTraining, report: Report) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps + 1, pct_start=0.2)
    model.train()
    for step in range(steps):
        value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        report(type(model).__name__, step, value.item())


def _clip_loss(probe: Probe, vae: PocketVAE, config: ProbeTraining, step: int) -> Tensor:
    frames, scenes = clip_batch(_seeds(step, config.clips), config.detail)
    with _autocast():
        scores = probe.reader(_augment(vae, frames, step))
    losses = [nn.functional.cross_entropy(score.float(), _labels(scenes, name)) for name, score in scores.items()]
    return torch.stack(losses).sum()


def _frame_loss(probe: Probe, vae: PocketVAE, config: ProbeTraining, step: int) -> Tensor:
    batch = frame_batch(_seeds(step, config.frames), config.detail)
    with _autocast():
        scores = probe.counter(_augment(vae, batch.frames[:, None], step)[:, 0])
    return nn.functional.cross_entropy(scores.float(), batch.counts, label_smoothing=0.02)


def _autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=has_native_bf16(HOST))


def _seeds(step: int, count: int) -> range:
    return range(FIRST_SEED + step * count, FIRST_SEED + (step + 1) * count)


def _labels(scenes: Sequence[Scene], attribute: str) -> Tensor:  # (B,)
    return torch.tensor([ATTRIBUTES[attribute].index(getattr(s, attribute)) for s in scenes])


def _augment(vae: PocketVAE, frames: Tensor, step: int) -> Tensor:
    """Pass about half of the samples through the VAE with latent noise; vary brightness and contrast of all."""
    rng = torch.Generator().manual_seed(step)
    encoded = torch.rand(len(frames), generator=rng) < VAE_SHARE
    noise = torch.rand(len(frames), generator=rng) * LATENT_NOISE
    tone = torch.rand(2, len(frames), 1, 1, 1, 1, generator=rng) * 0.12 - 0.06
    frames = frames.clone()
    if bool(encoded.any()):
        frames[encoded] = _through_vae(vae, frames[encoded], noise[encoded], step)
    return ((frames - 0.5) * (1 + tone[0]) + 0.5 + tone[1] / 2).clamp(0, 1)


@torch.no_grad()
def _through_vae(vae: PocketVAE, frames: Tensor, noise: Tensor, seed: int) -> Tensor:
    """Encode and decode frames (B, T, 3, H, W), with noise (B,) added to the latents."""
    with _autocast():
        latents = vae.encode_frames(frames.flatten(0, 1))
        strength = noise.repeat_interleave(frames.shape[1])[:, None, None, None]
        gaussian = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
        decoded: Tensor = vae.decode_frames(latents + strength * gaussian).float().clamp(0, 1)
        return decoded.view_as(frames)


def _corrupt(scenes: list[Scene], seconds: Tensor, detail: float, rng: random.Random) -> Tensor:
    """Fade, smear or cut objects, in a third of the scenes each."""
    on, third = canvas(SIZE, detail), -(-len(scenes) // 3)
    parts = [(scenes[i : i + third], seconds[i : i + third]) for i in range(0, len(scenes), third)]
    methods: list[Callable[[list[Scene], Tensor], Tensor]] = [
        lambda s, t: corruptions.fade_objects(s, t, on, rng.uniform(0.15, 0.6)),
        lambda s, t: corruptions.smear_objects(s, t, on, rng.uniform(0.25, 0.5)),
        lambda s, t: corruptions.cut_objects(s, t, on, rng.uniform(0, 6.28)),
    ]
    return torch.cat([method(s, t) for method, (s, t) in zip(methods, parts, strict=False)])
