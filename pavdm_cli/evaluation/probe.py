"""A small network that reads a video of the painted world: its words, and how many objects a frame shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pavdm_cli.pocket_world.vocabulary import CAMERAS, COLOURS, MOTIONS, OBJECTS, TERRAINS, TIMES

ATTRIBUTES = {
    "terrain": TERRAINS,
    "time": TIMES,
    "object": OBJECTS,
    "colour": COLOURS,
    "motion": MOTIONS,
    "camera": CAMERAS,
}
COUNTS = ("none", "one", "several", "smear")  # what a frame can show
CLIP = 16  # frames that are read together
RATE = 4.0  # frames a second at which they are read: four seconds tell every motion apart
SIZE = (64, 96)
GAPS = (1, 2, 4)  # frames, over which sliding is looked for
DAMPING = 1e-5  # of motion where a picture is flat, in squared brightness


def _stage(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.SiLU())


def sideways(frames: Tensor, gap: int) -> Tensor:  # (B, T, 3, H, W) -> (B, T, 1, H, W)
    """Which way things slid since `gap` frames ago, about -0.5 (left) to 0.5, 0 where there is no edge.

    Least-squares optical flow of a single pixel, damped: a hint without which panning takes very long to learn.
    """
    grey = nn.functional.avg_pool2d(frames.mean(dim=2), 3, stride=1, padding=1, count_include_pad=False)
    before = torch.cat([grey[:, :1].expand(-1, gap, -1, -1), grey[:, :-gap]], dim=1)
    slope = nn.functional.pad((grey + before).diff(dim=-1), (0, 1)) / 2
    change = grey - before
    return (-slope * change / (slope.square() + change.square() + DAMPING))[:, :, None]


class ClipReader(nn.Module):
    """Which words describe a clip: frames, their differences and sliding, read one by one, then together."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.look = nn.Sequential(
            _stage(9, 24, 4, 2), _stage(24, 48, 4, 2), _stage(48, 64, 3, 2), _stage(64, 64, 3, 1), _stage(64, 64, 3, 2)
        )
        self.gather = nn.Linear(64 * (SIZE[0] // 16) * (SIZE[1] // 16), width)
        self.follow = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(2))
        self.pan = nn.Sequential(nn.Linear(len(GAPS) * 8 * 12, width // 2), nn.SiLU())
        self.heads = nn.ModuleDict({n: nn.Linear(2 * width + width // 2, len(v)) for n, v in ATTRIBUTES.items()})

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Clips (B, T, 3, H, W), 0 to 1, to a score for every value of every attribute, (B, values)."""
        change = frames.diff(dim=1, prepend=frames[:, :1])
        slid = torch.cat([sideways(frames, gap) for gap in GAPS], dim=2)
        seen = self.look(torch.cat([frames * 2 - 1, change * 4, slid * 3], dim=2).flatten(0, 1))
        over_time = rearrange(self.gather(seen.flatten(1)), "(b t) d -> b d t", b=frames.shape[0])
        for follow in self.follow:
            over_time = over_time + nn.functional.silu(follow(over_time))
        panned = self.pan(nn.functional.adaptive_avg_pool2d(slid.mean(dim=1), (8, 12)).flatten(1) * 10)
        whole = torch.cat([over_time.mean(dim=2), over_time.amax(dim=2), panned], dim=1)
        return {name: head(whole) for name, head in self.heads.items()}


class FrameCounter(nn.Module):
    """How many objects a single frame shows."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.look = nn.Sequential(
            _stage(3, 24, 4, 2), _stage(24, 48, 4, 2), _stage(48, width, 3, 2), _stage(width, width, 3, 1)
        )
        self.weigh = nn.Sequential(_stage(width, width, 3, 1), nn.Conv2d(width, width, 1), nn.SiLU())
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, len(COUNTS)))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, H, W), 0 to 1, to a score for every one of COUNTS, (N, 4)."""
        seen = self.weigh(self.look(frames * 2 - 1))
        scores: Tensor = self.head(torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1))
        return scores


class Probe(nn.Module):
    """The two readers, trained apart and kept in one file."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = ClipReader()
        self.counter = FrameCounter()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a video shows, by the probe."""

    words: dict[str, str]  # by attribute
    counts: tuple[str, ...]  # of COUNTS, what each frame shows

    @property
    def one(self) -> float:
        """Share of the frames with exactly one object."""
        return self.one_among(len(self.counts))

    def one_among(self, first: int) -> float:
        """The same of so many frames at the start."""
        shown = self.counts[:first]
        return shown.count("one") / len(shown)


@torch.no_grad()
def read(probe: Probe, video: Tensor, fps: float) -> Reading:
    """Read a whole video (n, 3, H, W), 0 to 1, of at least CLIP frames at RATE."""
    scores = probe.reader(clips(video, fps))
    likely = {name: score.log_softmax(dim=1).mean(dim=0) for name, score in scores.items()}
    words = {name: ATTRIBUTES[name][int(mean.argmax())] for name, mean in likely.items()}
    counts = probe.counter(video).argmax(dim=1)
    return Reading(words, tuple(COUNTS[int(count)] for count in counts))


def clips(video: Tensor, fps: float) -> Tensor:  # (n, 3, H, W) -> (B, CLIP, 3, H, W)
    """Clips that cover a video at the probe's own rate; the last two overlap where it does not divide."""
    slow = video[:: max(1, round(fps / RATE))]
    assert len(slow) >= CLIP, f"the probe reads {CLIP} frames at {RATE} a second, got {len(slow)}"
    starts = sorted({*range(0, len(slow) - CLIP + 1, CLIP), len(slow) - CLIP})
    return torch.stack([slow[s : s + CLIP] for s in starts])


def save(probe: Probe, path: Path) -> Path:
    """Write the probe in float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {n: v.half() if v.is_floating_point() else v for n, v in probe.state_dict().items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


def load(path: Path) -> Probe:
    """The probe of a file, in float32."""
    probe = Probe()
    probe.load_state_dict(load_file(path))
    return probe.eval().requires_grad_(False)
