"""Videos to clips of latents and captions to vectors, each made once and kept in a file of its own."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pavdm_cli.errors import PavdmError
from pavdm_cli.hub.checkpoint import samples
from pavdm_cli.hub.safetensors_file import open_weights, read_tensor
from pavdm_cli.models.families import Codec
from pavdm_cli.models.opensora.prompt import clean
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.pocket.checkpoint import in_place_of
from pavdm_cli.runtime.untrusted import InvalidError, integer, mismatches, number, read_json, string
from pavdm_cli.training.finetune.dataset import Captioned
from pavdm_cli.video import VideoInfo, open_video, read_frames_at

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Form:
    """What every clip is cut to, and what encodes it: latents made in another form are others."""

    size: tuple[int, int]  # pixels, height and width
    fps: int
    frames: int
    latents: int
    codec: str  # a mark of its weights and precision


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What a video gives: as many clips, one after another; or why none."""

    clips: int = 0
    rate: float = 0.0  # frames a second of the file
    refused: str = ""


SURVEYED = {"clips": integer(0, 1 << 32), "rate": number(0, 1e9), "refused": string(10_000)}  # as they are stored


@dataclass(frozen=True, slots=True)
class Cache:
    """The folder of what was made, and in which form."""

    folder: Path
    form: Form
    text: str  # a mark of the text encoder's weights and precision
    _names: dict[Path, str] = field(default_factory=dict, compare=False)

    def surveyed(self, video: Path) -> Path:
        """Where it is kept what a video gives."""
        return self.folder / "videos" / f"{self._name(video)}.json"

    def latents(self, video: Path, clip: int) -> Path:
        """Where a clip's latents are kept."""
        return self.folder / "latents" / f"{self._name(video)}-{clip:05d}.safetensors"

    def vectors(self, wording: str) -> Path:
        """Where a caption's vectors are kept."""
        return self.folder / "captions" / f"{_hash(f'{self.text} {clean(wording)}'.encode())}.safetensors"

    def _name(self, video: Path) -> str:
        if video not in self._names:
            form = json.dumps(asdict(self.form)).encode()
            self._names[video] = _hash(form + str(video.stat().st_size).encode() + samples(video))
        return self._names[video]


def survey(cache: Cache, video: Path) -> Surveyed:
    """What a video gives, found out once."""
    path = cache.surveyed(video)
    try:
        stored = read_json(path)
        if isinstance(stored, dict) and stored.keys() == SURVEYED.keys() and not mismatches(stored, SURVEYED):
            return Surveyed(**stored)
    except (OSError, InvalidError):
        pass
    found = _survey(cache.form, video)
    with in_place_of(_made(path)) as beside:
        beside.write_text(json.dumps(asdict(found)))
    return found


def unlike(cache: Cache, videos: Sequence[Path]) -> list[Path]:
    """One of each: two files of one content are encoded once."""
    return list({cache.surveyed(video): video for video in videos}.values())


def clips_of(cache: Cache, videos: Sequence[Path]) -> list[tuple[Path, int]]:
    """Every clip that the videos give."""
    return [(video, clip) for video in videos for clip in range(survey(cache, video).clips)]


def missing_clips(cache: Cache, wanted: Sequence[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """Which clips are still to be encoded."""
    return [(video, clip) for video, clip in wanted if not _there(cache.latents(video, clip))]


def encode_clips(cache: Cache, codec: Codec, wanted: Sequence[tuple[Path, int]], advance: Advance) -> None:
    """Cut, fit and encode clips, each kept as soon as it is made; a video is decoded once, from its first clip on.

    Raises: InputError, OutputError.
    """
    for path, clips in groupby(wanted, lambda clip: clip[0]):
        numbers = [clip for _, clip in clips]
        for clip, pixels in zip(numbers, _clips(open_video(path), numbers, cache.form), strict=True):
            latents = codec.encode(from_bytes(pixels)[None])[0]
            _keep(cache.latents(path, clip), latents.half())
            advance(1)


def _clips(video: VideoInfo, clips: Sequence[int], form: Form) -> Iterator[NDArray[np.uint8]]:  # (n, H, W, 3) each
    """The pixels of some clips, in rising order."""
    numbers = [clip * form.frames + frame for clip in clips for frame in range(form.frames)]
    frames = read_frames_at(video, [video.start + Fraction(number, form.fps) for number in numbers], form.size)
    for _ in clips:
        yield np.stack(list(islice(frames, form.frames)))


def missing_captions(cache: Cache, wordings: Sequence[str]) -> list[str]:
    """Which captions are still to be read."""
    return [wording for wording in dict.fromkeys(wordings) if not _there(cache.vectors(wording))]


def encode_captions(cache: Cache, read: Callable[[str], Tensor], wanted: Sequence[str], advance: Advance) -> None:
    """Read captions, each kept as soon as it is read. Raises: OutputError."""
    for wording in wanted:
        _keep(cache.vectors(wording), read(clean(wording)))
        advance(1)


@dataclass(frozen=True, slots=True)
class Footage:
    """Clips and their captions, read from their files when they are shown."""

    clips: tuple[tuple[Path, Path], ...]  # latents, vectors
    length: int  # latents of a clip

    def latents(self, runs: Sequence[tuple[int, slice]]) -> Tensor:  # (B, T, C, h, w)
        """Runs of latents, float32. Raises: PavdmError."""
        return torch.stack([_stored(self.clips[clip][0])[run] for clip, run in runs]).float()

    def vectors(self, clips: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Captions as (B, L, width), and which of it is theirs (B, L). Raises: PavdmError."""
        rows = [_stored(self.clips[clip][1]) for clip in clips]
        y = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return y, torch.arange(y.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]


def footage(cache: Cache, videos: Sequence[Captioned], wording: Callable[[str], str]) -> Footage:
    """All clips of some videos."""
    pairs = [(video, clip) for video in videos for clip in range(survey(cache, video.path).clips)]
    files = ((cache.latents(video.path, clip), cache.vectors(wording(video.caption))) for video, clip in pairs)
    return Footage(tuple(files), cache.form.latents)


def _survey(form: Form, path: Path) -> Surveyed:
    try:
        video = open_video(path)
    except PavdmError as error:
        return Surveyed(refused=f"unreadable: {error.message}")
    clips = math.floor(video.duration * form.fps) // form.frames
    short = f"shorter than {form.frames / form.fps:.1f} s: it has {float(video.duration):.1f} s"
    return Surveyed(clips, float(video.rate), "" if clips else short)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _made(path: Path) -> Path:
    """The path, its folder there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _keep(path: Path, value: Tensor) -> None:
    with in_place_of(_made(path)) as beside:
        save_file({"value": value.contiguous().cpu()}, beside)


def _there(path: Path) -> bool:
    try:
        with open_weights(path):
            return True
    except (OSError, SafetensorError, InvalidError):
        return False


def _stored(path: Path) -> Tensor:
    try:
        return read_tensor(path, "value")
    except (OSError, SafetensorError, InvalidError) as error:
        raise PavdmError(f"{path} is gone or damaged", "start again: it is made anew") from error
