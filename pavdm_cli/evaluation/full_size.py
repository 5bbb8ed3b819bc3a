"""How close pocket's decoded frames of the default size and rate come to frames rendered at that size and rate."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from pavdm_cli.evaluation import metrics
from pavdm_cli.evaluation.frame_metrics import FrameMeter
from pavdm_cli.evaluation.measure import summarize
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.pocket.frame_format import CODED_FPS, CODED_SIZE, FrameFormat
from pavdm_cli.models.pocket.streams import DecodeStream
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.render import SceneFrames, canvas, render
from pavdm_cli.pocket_world.world import Scene, sample_scene

CODED_FRAMES = 10  # per scene
SKY_ENDS = 0.3  # height, from the top, above which the sky is searched for flat areas
FLAT = 1.5 / 255  # largest difference between neighboring pixels of a flat area


@dataclass(slots=True)
class FrameErrors:
    """Values of each scene; errors are mean squared ones, by kind of frame and area."""

    errors: dict[str, list[float]] = field(default_factory=dict)
    edges: dict[str, Tensor] = field(default_factory=dict)  # sums, decoded and real, by day and by night
    speckle: list[float] = field(default_factory=list)
    shimmer: list[float] = field(default_factory=list)

    def add(self, scene: Scene, decoded: Tensor, real: SceneFrames) -> None:
        """Add a scene; decoded (n, 3, H, W), and the same rendered."""
        truth, mask = real.frames[0], real.mask[0] > 0.5
        error = (decoded - truth).square().mean(dim=1)
        parts = {"all": error, "object": error[mask], "coded": error[::2], "middle": error[1::2]}
        for name, values in parts.items():
            self.errors.setdefault(name, []).append(float(values.mean()))
        light = "night" if scene.time == "night" else "day"
        strengths = torch.stack([edge_strength(decoded), edge_strength(truth)])
        self.edges[light] = self.edges.get(light, torch.zeros(2)) + strengths
        self.speckle += flat_sky_noise(decoded, truth)
        self.shimmer.append(unpredicted_share(decoded))

    def decibels(self, name: str) -> float:
        """PSNR over all scenes."""
        return metrics.psnr(self.errors[name])

    def edge_ratio(self, light: str) -> float:
        """Strength of edges relative to the rendered ones; NaN without a scene."""
        decoded, real = self.edges.get(light, torch.full((2,), torch.nan)).tolist()
        return float(decoded / real)


@torch.no_grad()
def measure_full_size(vae: PocketVAE, seeds: range, detail: float = 0.3) -> FrameErrors:
    """Render, encode and decode the scenes of the seeds, each at a random time of its first minute."""
    errors, large = FrameErrors(), (2 * CODED_SIZE[0], 2 * CODED_SIZE[1])
    starts = torch.rand(len(seeds), generator=torch.Generator().manual_seed(seeds.start)) * 60
    for seed, start in zip(seeds, starts, strict=True):
        scene = sample_scene(seed)
        times = start + torch.arange(2 * CODED_FRAMES - 1)[None] / (2 * CODED_FPS)
        latents = vae.encode(render([scene], times[:, ::2], canvas(CODED_SIZE, detail)).frames)
        decoded = DecodeStream(vae, FrameFormat(is_large=True, is_fast=True)).push(latents)[0]
        errors.add(scene, decoded, render([scene], times, canvas(large, detail)))
    return errors


def edge_strength(video: Tensor) -> Tensor:  # (n, 3, H, W) -> ()
    """Mean size of the luma gradient."""
    luma = video.mean(dim=1)
    return luma.diff(dim=-1).abs().mean() + luma.diff(dim=-2).abs().mean()


def flat_sky_noise(decoded: Tensor, real: Tensor) -> list[float]:  # (n, 3, H, W) twice
    """Deviation of decoded pixels from their neighborhood where the real sky is flat, of 255; empty without one."""
    rows = int(SKY_ENDS * real.shape[-2])
    is_flat = (_neighborhood_range(real[..., :rows, :]) < FLAT).all(dim=1)
    sky = decoded[..., :rows, :]
    deviation = (sky - F.avg_pool2d(sky, 3, 1, 1, count_include_pad=False)).square().mean(dim=1)[is_flat]
    return [255 * float(deviation.mean().sqrt())] if len(deviation) else []


def unpredicted_share(video: Tensor) -> float:  # (n, 3, H, W)
    """Change that optical flow cannot predict, relative to all change."""
    meter = FrameMeter(2 * CODED_FPS, flow=True)
    for frame in to_bytes(video):
        meter.add(frame)
    return summarize(meter.series)["unpredicted"] or 0.0


def _neighborhood_range(frames: Tensor) -> Tensor:  # (n, 3, H, W), same
    highest, lowest = F.max_pool2d(frames, 3, 1, 1), -F.max_pool2d(-frames, 3, 1, 1)
    return highest - lowest
