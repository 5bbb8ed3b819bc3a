"""The models pavdm knows, as data."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from pavdm_cli.errors import ModelError, UsageError
from pavdm_cli.hub.recognize import family_of, unknown

LARGEST = (4320, 8192)  # height and width of an enlarged frame


@dataclass(frozen=True, slots=True)
class Part:
    """Published weights of one part of a model."""

    folder: str  # below the model's own
    repo: str
    revision: str  # a full commit


@dataclass(frozen=True, slots=True)
class Idle:
    """An option of the command line that a model does nothing with."""

    option: str
    why: str
    instead: str = ""  # what to do; empty where the video is as asked for all that, and a note is enough


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model was trained for, and where its weights are."""

    name: str
    about: str
    family: str  # which parts it is made of: models/load.py reads it
    licence: str
    folder: Path  # of its weights; one that is not absolute is in the folder of downloaded models
    size: tuple[int, int]  # pixels, height and width
    fps: int
    group: tuple[int, int]  # latents, and the frames that its codec makes of them, together
    window: int  # noisy latents
    chunk: int  # latents
    steps: int  # of sampling, unless asked otherwise
    trained_steps: int  # the levels it was trained at: sampling may take every second or third of them
    guidance: float  # of sampling, unless asked otherwise
    method: str  # the one it was trained for
    sides: int = 0  # both sides of a picture are multiples of this; 0: `size` and no other
    longest: int = 0  # pixels, of a side
    rates: tuple[int, int] = (0, 0)  # slowest and fastest; (0, 0): `fps` and no other
    scaled: bool = False  # its timesteps and positions follow the size of the picture and the length of the window
    world: str = ""  # all it knows, where that is little
    tuned: bool = True  # for its method
    stills: bool = False  # its codec knows single pictures: the first frame is a latent of its own
    reencodes: bool = False  # clip after clip, the end of one is decoded and encoded anew for the next
    wordless: int = 1  # tokens of the null embedding that stand for no prompt
    parts: tuple[Part, ...] = ()  # what is fetched
    guided: float = 1.0  # the guidance that one pass gives: it was taught that of a teacher, which takes two
    # |latent| beyond which something failed: variance is 1, data stay below 8, and guidance of 100 made some of 42.
    latent_limit: float = 100.0
    warmup: int = 0  # chunks generated and dropped first: those made while the window fills are the weakest
    scale: int = 1  # its frames are enlarged by this in a file, unless asked otherwise
    causal: bool = True  # trained so that clean frames see only clean ones: what they give is computed once a shift
    idle: tuple[Idle, ...] = ()

    @property
    def codec(self) -> Path:
        """The codec's weights."""
        return self.folder / "codec.safetensors"

    @property
    def denoiser(self) -> Path:
        """The weights of the text encoder and the transformer."""
        return self.folder / "denoiser.safetensors"

    def frames(self, latents: int) -> int:
        """Frames of the smallest groups that hold so many latents."""
        return -(-latents // self.group[0]) * self.group[1]

    def latents(self, frames: int) -> int:
        """Latents of the smallest groups that hold so many frames."""
        return -(-frames // self.group[1]) * self.group[0]

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse a size (height, width) the model cannot make. Raises: UsageError."""
        height, width = self.size
        own, asked = f"{width}x{height}", f"{size[1]}x{size[0]}"
        if not self.sides and size != self.size:
            raise UsageError(f"{self.name} makes {own} pixels, got {asked}", f"use --size {own}")
        if self.sides and size != (fits := self._nearest(size)):
            made = f"sides of {8 * self.sides} to {self.longest} in multiples of {self.sides}"
            raise UsageError(f"{self.name} makes {made}, got {asked}", f"try --size {fits[1]}x{fits[0]}")

    def _nearest(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of about the same shape that the model can make: as large where it can be, else its largest."""
        least, grid = 8 * self.sides, self.sides
        scale = min(max(1, least / max(1, min(size))), self.longest / max(1, *size))
        height, width = (min(max(least, grid * round(side * scale / grid)), self.longest) for side in size)
        return height, width

    def check_scale(self, factor: int) -> None:
        """Refuse a factor by which frames grow beyond what can be read again. Raises: UsageError."""
        height, width = (side * factor for side in self.size)
        if factor > 1 and (height > LARGEST[0] or width > LARGEST[1]):
            most = f"{LARGEST[1]}x{LARGEST[0]} is the most"
            raise UsageError(f"--scale {factor} makes {width}x{height} pixels: {most}", "give a smaller one")

    def check_rate(self, fps: float) -> None:
        """Refuse frames a second the model cannot make. Raises: UsageError."""
        slowest, fastest = self.rates if any(self.rates) else (self.fps, self.fps)
        if not slowest <= fps <= fastest or fps % 1:
            made = f"{slowest}" if slowest == fastest else f"{slowest} to {fastest} whole"
            raise UsageError(f"{self.name} makes {made} frames/s, got {fps:g}", f"use --fps {self.fps}")


POCKET = ModelSpec(
    name="pocket",
    about="the embedded model: a small painted world, on any CPU, with no download",
    family="pocket",
    licence="Apache-2.0",
    folder=Path(__file__).parent / "pocket" / "weights",
    size=(64, 96),
    fps=8,
    group=(1, 2),
    window=12,
    chunk=2,
    steps=12,
    trained_steps=24,
    guidance=1.5,
    guided=1.5,
    warmup=4,
    scale=4,
    method="pa",
    world="its own painted world",
    idle=(
        Idle("--aspect", "it makes 96x64 pixels and no other", "leave it out"),
        Idle("--aesthetic-score", "it learnt from captions without scores", "leave it out"),
        Idle("--motion-score", "it learnt from captions without scores", "say it in words: hovering, bouncing"),
        Idle("--camera-motion", "it reads that in the prompt", 'write it there: "..., the camera pans left"'),
        Idle("--text-device", "it reads the prompt where it runs"),
    ),
)
STDIT_V3 = "9a8583918505ee93bd9fae8dd5ce32e1f9334c71"  # the last of its main branch
VAE_V1_2 = "33d153e9b5a9f771a8a84f98bd3f46458a8ed0bf"  # the last of its main branch
# The hub's own conversion to safetensors, a proposed change of that repository; its main branch is pickled.
SAFE_T5 = "23ed28cddf2348992461bcda9922f53e8c8d4d59"
OPENSORA = ModelSpec(
    name="opensora-v1.2",
    about="Open-Sora v1.2: any prompt, on a GPU; its published weights were not trained for progressive levels",
    family="opensora",
    licence="transformer and codec Apache-2.0; T5 as its repository says, which states none",
    folder=Path("opensora-v1.2"),
    size=(240, 424),
    fps=24,
    group=(5, 17),
    window=30,
    chunk=5,
    steps=30,
    trained_steps=30,
    guidance=7.0,
    method="pa",
    sides=8,
    longest=1280,
    rates=(8, 60),
    scaled=True,
    causal=False,
    tuned=False,
    stills=True,
    reencodes=True,
    wordless=300,
    parts=(
        Part("transformer", "hpcai-tech/OpenSora-STDiT-v3", STDIT_V3),
        Part("vae", "hpcai-tech/OpenSora-VAE-v1.2", VAE_V1_2),
        Part("text_encoder", "DeepFloyd/t5-v1_1-xxl", SAFE_T5),
    ),
)
MODELS = {spec.name: spec for spec in (POCKET, OPENSORA)}


def find(name: str) -> ModelSpec:
    """The model of a name, or of the weights in a folder, which says what it is. Raises: ModelError."""
    if name in MODELS:
        return MODELS[name]
    if os.path.isfile(name):
        raise ModelError(f"{name} is a file", f"give a folder of weights, or a name: {', '.join(MODELS)}")
    if not name or not os.path.isdir(name):
        repositories = {part.repo: spec.name for spec in MODELS.values() for part in spec.parts}
        raise unknown(name, MODELS, repositories)
    family = family_of(Path(name), MODELS)
    spec = next(spec for spec in MODELS.values() if spec.family == family)
    return replace(spec, name=name, folder=Path(name).resolve())
