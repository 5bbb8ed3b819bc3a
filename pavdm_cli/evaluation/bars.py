"""The bars of the bundled model: metrics of the VAE, the probe and generated videos, with their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pavdm_cli.evaluation import metrics, probe_training
from pavdm_cli.evaluation.full_size import measure_full_size
from pavdm_cli.evaluation.probe import ATTRIBUTES, SIZE, Probe, ProbeResult, read_video
from pavdm_cli.evaluation.videos import Video
from pavdm_cli.models.pocket.vae import PocketVAE
from pavdm_cli.pocket_world.render import canvas, render
from pavdm_cli.pocket_world.world import sample_scene

MIN_PROBE_ACCURACY = 0.97  # on real clips, for a probe to be used
MIN_ATTRIBUTE_ACCURACY = {"terrain": 0.99, "time": 0.99, "object": 0.97, "color": 0.97, "motion": 0.95, "camera": 0.92}
MIN_ATTRIBUTE_ACCURACY |= {"weather": 0.90}
MIN_ONE_OBJECT = 0.97  # fraction of frames
FIRST_FRAMES, MIN_ONE_OBJECT_AT_FIRST = 8, 0.95  # frames at the start, and the fraction of them
MAX_BOUNDARY_JUMP = 1.1  # difference across chunk boundaries over that inside chunks, relative to real video
MAX_UNEVENNESS = 0.15  # relative to real video, at every frame of a chunk
MIN_VAE_PSNR, MIN_VAE_OBJECT_PSNR = 36.0, 30.0  # dB
MIN_FULL_SIZE_PSNR, MIN_FULL_SIZE_OBJECT_PSNR = 37.0, 31.0  # dB, at the default size and rate
MAX_MIDDLE_LOSS = 0.3  # dB, of frames between coded ones
MIN_EDGES_BY_DAY, MIN_EDGES_AT_NIGHT = 0.85, 0.7  # strength relative to rendered frames
MAX_SPECKLE, MAX_SHIMMER = 1.0, 0.25  # of 255 levels in flat sky; of all change, what optical flow does not predict
MIN_PARTIAL_OBJECT, MIN_PARTIAL_ONE_OBJECT = 0.95, 0.93  # for partial prompts
MAX_LATE_LOSS = 0.05  # of the last seconds of a long video against the first
MAX_DRIFT = 1.0  # mean size of a z-score; real videos have 0.8


@dataclass(frozen=True, slots=True)
class Bar:
    """A metric and its limits."""

    name: str
    value: float
    low: float = -float("inf")
    high: float = float("inf")

    @property
    def passed(self) -> bool:
        """Whether the value is within the limits; False for NaN."""
        return self.low <= self.value <= self.high

    def row(self) -> dict[str, object]:
        """A JSON-serializable row for a results file."""
        bounds = {"low": self.low, "high": self.high}
        finite = {name: bound for name, bound in bounds.items() if abs(bound) != float("inf")}
        return {"value": round(self.value, 4), **finite, "passed": self.passed}


@dataclass(frozen=True, slots=True)
class ChunkTiming:
    """Chunk length and frame rate."""

    chunk: int  # frames
    fps: float


def full_size_bars(vae: PocketVAE, seeds: range, detail: float = 0.3) -> list[Bar]:
    """Frames of the default size and rate, decoded from held-out scenes, against rendered ones."""
    errors = measure_full_size(vae, seeds, detail)
    return [
        Bar("PSNR at 192x128, dB", errors.decibels("all"), low=MIN_FULL_SIZE_PSNR),
        Bar("object PSNR at 192x128, dB", errors.decibels("object"), low=MIN_FULL_SIZE_OBJECT_PSNR),
        Bar(
            "PSNR loss of interpolated frames, dB",
            errors.decibels("coded") - errors.decibels("middle"),
            high=MAX_MIDDLE_LOSS,
        ),
        Bar("edge strength by day, of real", errors.edge_ratio("day"), low=MIN_EDGES_BY_DAY),
        Bar("edge strength at night, of real", errors.edge_ratio("night"), low=MIN_EDGES_AT_NIGHT),
        Bar("speckle in flat sky, of 255", _mean_value(errors.speckle), high=MAX_SPECKLE),
        Bar("shimmer", _mean_value(errors.shimmer), high=MAX_SHIMMER),
    ]


@torch.no_grad()
def vae_bars(vae: PocketVAE, seeds: range, timing: ChunkTiming, detail: float = 0.3) -> list[Bar]:
    """Reconstruction of held-out scenes by the VAE: all pixels, objects, and motion inside a chunk."""
    starts = torch.rand(len(seeds), 1, generator=torch.Generator().manual_seed(seeds.start)) * 60
    seconds = starts + torch.arange(3 * timing.chunk) / timing.fps
    errors, object_errors, profiles, real_profiles = [], [], [], []
    for seed, times in zip(seeds, seconds, strict=True):
        scene = render([sample_scene(seed)], times[None], canvas(SIZE, detail))
        reconstruction = vae.decode(vae.encode(scene.frames))[0]
        error = (reconstruction - scene.frames[0]).square().mean(dim=1)
        errors.append(float(error.mean()))
        object_errors.append(float(error[scene.mask[0] > 0.5].mean()))
        profiles.append(metrics.profile(reconstruction, timing.chunk))
        real_profiles.append(metrics.profile(scene.frames[0], timing.chunk))
    return [
        Bar("PSNR at 96x64, dB", metrics.psnr(errors), low=MIN_VAE_PSNR),
        Bar("object PSNR at 96x64, dB", metrics.psnr(object_errors), low=MIN_VAE_OBJECT_PSNR),
        Bar(
            "motion unevenness of the VAE",
            metrics.max_relative_deviation(_mean(profiles), _mean(real_profiles)),
            high=MAX_UNEVENNESS,
        ),
    ]


def is_reliable(probe: Probe, seeds: range, detail: float = 0.3) -> bool:
    """Whether a probe classifies real clips well enough to evaluate videos."""
    return min(probe_training.clip_accuracy(probe, seeds, detail).values()) >= MIN_PROBE_ACCURACY


def probe_bars(probe: Probe, seeds: range, vae: PocketVAE, detail: float = 0.3) -> list[Bar]:
    """Accuracy of the probe on real held-out clips, directly and through the VAE, and on corrupted ones."""
    plain = probe_training.clip_accuracy(probe, seeds, detail)
    through_vae = probe_training.clip_accuracy(probe, seeds, detail, vae)
    counts = probe_training.count_accuracy(probe, range(seeds.start, seeds.start + 4 * len(seeds)), detail)
    return [
        *(Bar(f"probe accuracy, {name}", value, low=MIN_PROBE_ACCURACY) for name, value in plain.items()),
        *(
            Bar(f"probe accuracy through the VAE, {name}", value, low=MIN_PROBE_ACCURACY)
            for name, value in through_vae.items()
        ),
        *(
            Bar(f"probe count accuracy, {name}", value, low=MIN_PROBE_ACCURACY)
            for name, value in counts.items()
            if name != "smear"
        ),
        Bar("probe count accuracy, smear", counts["smear"], low=0.9),
    ]


def video_bars(probe: Probe, videos: Sequence[Video], real_videos: Sequence[Video], timing: ChunkTiming) -> list[Bar]:
    """Whether generated videos follow their prompts and move like real videos of the same scenes."""
    readings = [read_video(probe, video.pixels(), timing.fps) for video in videos]
    profile, real_profile = (
        _mean([metrics.profile(v.pixels(), timing.chunk) for v in group]) for group in (videos, real_videos)
    )
    first = _mean_value([r.one_object_share(FIRST_FRAMES) for r in readings])
    empty = sum(r.counts[0] in ("none", "smear") for r in readings)
    return [
        *(
            Bar(f"{name} accuracy", attribute_accuracy(videos, readings, name), low=bar)
            for name, bar in MIN_ATTRIBUTE_ACCURACY.items()
        ),
        Bar(
            "camera accuracy over land, by registration",
            camera_accuracy(videos),
            low=MIN_ATTRIBUTE_ACCURACY["camera"],
        ),
        Bar(
            "frames with exactly one object", _mean_value([r.one_object_share() for r in readings]), low=MIN_ONE_OBJECT
        ),
        Bar(f"first {FIRST_FRAMES} frames with exactly one object", first, low=MIN_ONE_OBJECT_AT_FIRST),
        Bar("videos without an object in frame 0", empty, high=0),
        Bar(
            "boundary ratio, of real",
            metrics.boundary_ratio(profile) / metrics.boundary_ratio(real_profile),
            high=MAX_BOUNDARY_JUMP,
        ),
        Bar("change inside chunks, of real", float(profile[:-1].mean() / real_profile[:-1].mean()), low=0.5, high=1.5),
    ]


def partial_bars(probe: Probe, videos_by_class: Mapping[str, Sequence[Video]], timing: ChunkTiming) -> list[Bar]:
    """Whether videos of partial prompts show their object exactly once, by class of prompt."""
    bars = []
    for name, videos in videos_by_class.items():
        readings = [read_video(probe, video.pixels(), timing.fps) for video in videos]
        bars.append(
            Bar(f"object accuracy, {name}", attribute_accuracy(videos, readings, "object"), low=MIN_PARTIAL_OBJECT)
        )
        bars.append(
            Bar(
                f"exactly one object, {name}",
                _mean_value([r.one_object_share() for r in readings]),
                low=MIN_PARTIAL_ONE_OBJECT,
            )
        )
    return bars


def long_video_bars(
    probe: Probe, videos: Sequence[Video], real_videos: Sequence[Video], timing: ChunkTiming, span: int
) -> list[Bar]:
    """Whether the last `span` frames of long videos are as good as the first; real_videos: of that length."""
    early, late = (
        [read_video(probe, v.pixels(part), timing.fps) for v in videos] for part in (slice(span), slice(-span, None))
    )
    words = _mean_value(
        [attribute_accuracy(videos, late, name) - attribute_accuracy(videos, early, name) for name in ATTRIBUTES]
    )
    one = _mean_value([b.one_object_share() - a.one_object_share() for a, b in zip(early, late, strict=True)])
    drifts, real_drifts = (
        torch.stack([metrics.appearance_drift(v.pixels(), span) for v in group]) for group in (videos, real_videos)
    )
    sizes = metrics.z_scores(drifts, real_drifts).abs().mean(dim=0)
    return [
        Bar("accuracy, last seconds minus first", words, low=-MAX_LATE_LOSS),
        Bar("one object, last seconds minus first", one, low=-MAX_LATE_LOSS),
        *(
            Bar(f"drift of {n}, z", float(size), high=MAX_DRIFT)
            for n, size in zip(metrics.APPEARANCE, sizes, strict=True)
        ),
    ]


def attribute_accuracy(videos: Sequence[Video], readings: Sequence[ProbeResult], attribute: str) -> float:
    """Fraction of videos that show what their prompt requests, among those whose prompt mentions the attribute."""
    pairs = [
        (v.requested[attribute], r.words[attribute])
        for v, r in zip(videos, readings, strict=True)
        if attribute in v.requested
    ]
    return _mean_value([float(expected == actual) for expected, actual in pairs])


def camera_accuracy(videos: Sequence[Video]) -> float:
    """Fraction of videos on land whose ground moves with the requested camera motion, by registering frames."""
    directions = {"left": 1, "still": 0, "right": -1}
    land = [v for v in videos if v.scene.terrain != "sea"]  # waves match at any shift
    shifts = [int(np.sign(metrics.ground_shift(v.pixels()))) for v in land]
    return _mean_value([float(directions[v.scene.camera] == shift) for v, shift in zip(land, shifts, strict=True)])


def _mean(rows: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(rows)).mean(dim=0)


def _mean_value(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
