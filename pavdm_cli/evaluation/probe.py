"""The probe: a small network that classifies the attributes of a video and the object count of each frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pavdm_cli.models.pocket.frame_format import CODED_SIZE
from pavdm_cli.pocket_world.vocabulary import CAMERAS, COLORS, MOTIONS, OBJECTS, TERRAINS, TIMES, WEATHERS

ATTRIBUTES = {
    "terrain": TERRAINS,
    "time": TIMES,
    "object": OBJECTS,
    "color": COLORS,
    "motion": MOTIONS,
    "camera": CAMERAS,
    "weather": WEATHERS,
}
SIZE = CODED_SIZE
COUNTS = ("none", "one", "several", "smear")  # classes of a frame
CLIP_FRAMES = 16  # frames per clip
PROBE_FPS = 4.0  # four seconds distinguish all motions
SHIPPED = Path(__file__).with_name("probe.safetensors")
FLOW_GAPS = (1, 2, 4)  # frames between which horizontal flow is estimated
DAMPING = 1e-5  # of the flow in flat areas, in squared brightness


def _conv_block(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.SiLU())


def horizontal_flow(frames: Tensor, gap: int) -> Tensor:  # (B, T, 3, H, W) -> (B, T, 1, H, W)
    """Damped horizontal flow since `gap` frames ago: about -0.5 (left) to 0.5, 0 without edges.

    Least-squares optical flow of single pixels, an input feature without which camera motion is learned very slowly.
    """
    gray = nn.functional.avg_pool2d(frames.mean(dim=2), 3, stride=1, padding=1, count_include_pad=False)
    before = torch.cat([gray[:, :1].expand(-1, gap, -1, -1), gray[:, :-gap]], dim=1)
    slope = nn.functional.pad((gray + before).diff(dim=-1), (0, 1)) / 2
    change = gray - before
    return (-slope * change / (slope.square() + change.square() + DAMPING))[:, :, None]


class ClipClassifier(nn.Module):
    """Classifies the attributes of a clip from frames, frame differences and horizontal flow."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.look = nn.Sequential(
            _conv_block(9, 24, 4, 2),
            _conv_block(24, 48, 4, 2),
            _conv_block(48, 64, 3, 2),
            _conv_block(64, 64, 3, 1),
            _conv_block(64, 64, 3, 2),
        )
        self.gather = nn.Linear(64 * (SIZE[0] // 16) * (SIZE[1] // 16), width)
        self.follow = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(2))
        self.pan = nn.Sequential(nn.Linear(len(FLOW_GAPS) * 8 * 12, width // 2), nn.SiLU())
        self.heads = nn.ModuleDict({n: nn.Linear(2 * width + width // 2, len(v)) for n, v in ATTRIBUTES.items()})

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Logits (B, values) of every attribute for clips (B, T, 3, H, W), 0 to 1."""
        return self.classify(self.features(frames))

    def classify(self, features: Tensor) -> dict[str, Tensor]:
        """Logits (B, values) of every attribute from the features of clips."""
        return {name: head(features) for name, head in self.heads.items()}

    def features(self, frames: Tensor) -> Tensor:
        """Features (B, D) of clips (B, T, 3, H, W), 0 to 1, for the heads: appearance, motion and camera."""
        change = frames.diff(dim=1, prepend=frames[:, :1])
        flow = torch.cat([horizontal_flow(frames, gap) for gap in FLOW_GAPS], dim=2)
        features = self.look(torch.cat([frames * 2 - 1, change * 4, flow * 3], dim=2).flatten(0, 1))
        over_time = rearrange(self.gather(features.flatten(1)), "(b t) d -> b d t", b=frames.shape[0])
        for follow in self.follow:
            over_time = over_time + nn.functional.silu(follow(over_time))
        pan = self.pan(nn.functional.adaptive_avg_pool2d(flow.mean(dim=1), (8, 12)).flatten(1) * 10)
        return torch.cat([over_time.mean(dim=2), over_time.amax(dim=2), pan], dim=1)


class FrameCounter(nn.Module):
    """Classifies the object count of single frames."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.look = nn.Sequential(
            _conv_block(3, 24, 4, 2),
            _conv_block(24, 48, 4, 2),
            _conv_block(48, width, 3, 2),
            _conv_block(width, width, 3, 1),
        )
        self.weigh = nn.Sequential(_conv_block(width, width, 3, 1), nn.Conv2d(width, width, 1), nn.SiLU())
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, len(COUNTS)))

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (N, 4) of COUNTS for frames (N, 3, H, W), 0 to 1."""
        features = self.weigh(self.look(frames * 2 - 1))
        scores: Tensor = self.head(torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1))
        return scores


class Probe(nn.Module):
    """Both classifiers, trained separately and saved in one file."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = ClipClassifier()
        self.counter = FrameCounter()


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The probe's classification of a video."""

    words: dict[str, str]  # by attribute
    counts: tuple[str, ...]  # of each frame, values of COUNTS

    def one_object_share(self, first: int | None = None) -> float:
        """Fraction of the frames, or of the `first` ones, with exactly one object."""
        counts = self.counts[:first]
        return counts.count("one") / len(counts)


@torch.no_grad()
def read_video(probe: Probe, video: Tensor, fps: float) -> ProbeResult:
    """Classify a video (n, 3, H, W), 0 to 1, of at least CLIP_FRAMES at PROBE_FPS."""
    scores = probe.reader(split_into_clips(video, fps))
    log_probabilities = {name: score.log_softmax(dim=1).mean(dim=0) for name, score in scores.items()}
    words = {name: ATTRIBUTES[name][int(mean.argmax())] for name, mean in log_probabilities.items()}
    counts = probe.counter(video).argmax(dim=1)
    return ProbeResult(words, tuple(COUNTS[int(count)] for count in counts))


def split_into_clips(video: Tensor, fps: float) -> Tensor:  # (n, 3, H, W) -> (B, CLIP, 3, H, W)
    """Clips that cover a video at the probe's frame rate; the last two may overlap."""
    frames = video[:: max(1, round(fps / PROBE_FPS))]
    assert len(frames) >= CLIP_FRAMES, f"the probe needs {CLIP_FRAMES} frames at {PROBE_FPS:g} fps, got {len(frames)}"
    starts = sorted({*range(0, len(frames) - CLIP_FRAMES + 1, CLIP_FRAMES), len(frames) - CLIP_FRAMES})
    return torch.stack([frames[s : s + CLIP_FRAMES] for s in starts])


def save(probe: Probe, path: Path) -> Path:
    """Write the probe in float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {n: v.half() if v.is_floating_point() else v for n, v in probe.state_dict().items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


def load(path: Path) -> Probe:
    """Read a probe, in float32."""
    probe = Probe()
    probe.load_state_dict(load_file(path))
    return probe.eval().requires_grad_(False)
