"""What the embedded model is held to: figures of the codec, the probe and generated videos, each beside its bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pavdm_cli.evaluation import metrics, probe_training
from pavdm_cli.evaluation.probe import ATTRIBUTES, SIZE, Probe, Reading, read
from pavdm_cli.evaluation.videos import Video
from pavdm_cli.models.pocket.vae import PocketCodec, quality
from pavdm_cli.pocket_world.render import canvas, render
from pavdm_cli.pocket_world.world import sample_scene

READS = 0.97  # the share of real clips that a probe must read right before it scores anything
FOLLOWS = {"terrain": 0.95, "time": 0.95, "object": 0.80, "colour": 0.80, "motion": 0.60, "camera": 0.80}
ONE_OBJECT = 0.80  # of the frames
FIRST, ONE_AT_FIRST = 8, 0.95  # frames at the start, and the share of these
HOP = 1.5  # change across chunk joints over change inside, in units of real video's
UNEVEN = 0.15  # of real video's change, at every frame of a chunk
CODEC, CODEC_OBJECT = 36.0, 30.0  # dB
PARTIAL_OBJECT, PARTIAL_ONE = 0.95, 0.93  # videos of partial prompts with their object, frames with exactly one
LATE_LOSS = 0.05  # what the last seconds of a long video may lose on its first
DRIFT = 2.0  # mean size of a z-score; real videos have 0.8


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and what it has to be."""

    name: str
    value: float
    low: float = -float("inf")
    high: float = float("inf")

    @property
    def passed(self) -> bool:
        """Whether the figure is where it has to be; never if it is not a number."""
        return self.low <= self.value <= self.high

    def row(self) -> dict[str, object]:
        """For a results file."""
        bounds = {"low": self.low, "high": self.high}
        bars = {name: bound for name, bound in bounds.items() if abs(bound) != float("inf")}
        return {"value": round(self.value, 4), **bars, "passed": self.passed}


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Where chunk joints are, and when frames are shown."""

    chunk: int  # frames
    fps: float


@torch.no_grad()
def codec_bars(codec: PocketCodec, seeds: range, rhythm: Rhythm, detail: float = 0.3) -> list[Bar]:
    """How well held-out scenes come through the codec: pixels, objects, and motion inside a chunk."""
    begins = torch.rand(len(seeds), 1, generator=torch.Generator().manual_seed(seeds.start)) * 60
    seconds = begins + torch.arange(3 * rhythm.chunk) / rhythm.fps
    whole, inside, coded, true = [], [], [], []
    for seed, times in zip(seeds, seconds, strict=True):
        picture = render([sample_scene(seed)], times[None], canvas(SIZE, detail))
        there = codec.decode(codec.encode(picture.frames))[0]
        everywhere, thing = quality(codec, picture.frames[0], picture.mask[0])
        whole.append(everywhere)
        inside.append(thing)
        coded.append(metrics.profile(there, rhythm.chunk))
        true.append(metrics.profile(picture.frames[0], rhythm.chunk))
    return [
        Bar("codec, dB", _decibels(whole), low=CODEC),
        Bar("codec on objects, dB", _decibels(inside), low=CODEC_OBJECT),
        Bar("codec, unevenness of motion", metrics.unevenness(_mean(coded), _mean(true)), high=UNEVEN),
    ]


def trusted(probe: Probe, seeds: range, detail: float = 0.3) -> bool:
    """Whether a probe reads real clips well enough to score anything."""
    return min(probe_training.clip_accuracy(probe, seeds, detail).values()) >= READS


def probe_bars(probe: Probe, seeds: range, codec: PocketCodec, detail: float = 0.3) -> list[Bar]:
    """How well the probe reads real held-out clips, as they are and through the codec, and tells planted failures."""
    plain = probe_training.clip_accuracy(probe, seeds, detail)
    coded = probe_training.clip_accuracy(probe, seeds, detail, codec)
    counts = probe_training.count_accuracy(probe, range(seeds.start, seeds.start + 4 * len(seeds)), detail)
    return [
        *(Bar(f"probe reads {name}", value, low=READS) for name, value in plain.items()),
        *(Bar(f"probe reads {name} through the codec", value, low=READS) for name, value in coded.items()),
        *(Bar(f"probe tells {name}", value, low=READS) for name, value in counts.items() if name != "smear"),
        Bar("probe tells smear", counts["smear"], low=0.9),
    ]


def video_bars(probe: Probe, made: Sequence[Video], true: Sequence[Video], rhythm: Rhythm) -> list[Bar]:
    """How well generated videos show what was asked for, and move as real videos of the same scenes."""
    readings = [read(probe, video.pixels(), rhythm.fps) for video in made]
    profiles, real = (_mean([metrics.profile(v.pixels(), rhythm.chunk) for v in group]) for group in (made, true))
    first = _average([r.one_among(FIRST) for r in readings])
    empty = sum(r.counts[0] in ("none", "smear") for r in readings)
    return [
        *(Bar(f"{name} right", followed(made, readings, name), low=bar) for name, bar in FOLLOWS.items()),
        Bar("camera right on land, by matching", panned(made), low=FOLLOWS["camera"]),
        Bar("frames with exactly one object", _average([r.one for r in readings]), low=ONE_OBJECT),
        Bar(f"first {FIRST} frames with exactly one object", first, low=ONE_AT_FIRST),
        Bar("videos without an object in frame 0", empty, high=0),
        Bar("hop at chunk joints", metrics.hop(profiles) / metrics.hop(real), high=HOP),
        Bar("change inside chunks, of real", float(profiles[:-1].mean() / real[:-1].mean()), low=0.5, high=1.5),
    ]


def partial_bars(probe: Probe, made: Mapping[str, Sequence[Video]], rhythm: Rhythm) -> list[Bar]:
    """Whether prompts that leave things out show their object and nothing twice, by class of prompt."""
    found = []
    for name, videos in made.items():
        readings = [read(probe, video.pixels(), rhythm.fps) for video in videos]
        found.append(Bar(f"object right, {name}", followed(videos, readings, "object"), low=PARTIAL_OBJECT))
        found.append(Bar(f"exactly one object, {name}", _average([r.one for r in readings]), low=PARTIAL_ONE))
    return found


def minute_bars(probe: Probe, made: Sequence[Video], true: Sequence[Video], rhythm: Rhythm, span: int) -> list[Bar]:
    """Whether the last `span` frames of long videos are as good as the first; real ones are of the same length."""
    early, late = (
        [read(probe, v.pixels(part), rhythm.fps) for v in made] for part in (slice(span), slice(-span, None))
    )
    words = _average([followed(made, late, name) - followed(made, early, name) for name in ATTRIBUTES])
    one = _average([b.one - a.one for a, b in zip(early, late, strict=True)])
    drifts, real = (torch.stack([metrics.drift(v.pixels(), span) for v in group]) for group in (made, true))
    sizes = metrics.z_scores(drifts, real).abs().mean(dim=0)
    return [
        Bar("words right, last seconds less first", words, low=-LATE_LOSS),
        Bar("one object, last seconds less first", one, low=-LATE_LOSS),
        *(Bar(f"drift of {n}, z", float(size), high=DRIFT) for n, size in zip(metrics.LOOKS, sizes, strict=True)),
    ]


def followed(videos: Sequence[Video], readings: Sequence[Reading], attribute: str) -> float:
    """Share of the videos that show what their prompt says, of those whose prompt says anything."""
    pairs = [
        (v.asked[attribute], r.words[attribute]) for v, r in zip(videos, readings, strict=True) if attribute in v.asked
    ]
    return _average([float(asked == seen) for asked, seen in pairs])


def panned(videos: Sequence[Video]) -> float:
    """Share of the videos on land whose ground slides the way the camera was asked to pan, read without a network."""
    wanted = {"left": 1, "still": 0, "right": -1}
    land = [v for v in videos if v.scene.terrain != "sea"]  # waves match with themselves anywhere
    ways = [int(np.sign(metrics.slide(v.pixels()))) for v in land]
    return _average([float(wanted[v.scene.camera] == way) for v, way in zip(land, ways, strict=True)])


def _decibels(ratios: Sequence[float]) -> float:
    """Signal-to-noise ratio of the mean error."""
    errors = 10 ** (torch.tensor(ratios) / -10)
    return float(-10 * errors.mean().log10())


def _mean(rows: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(rows)).mean(dim=0)


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
