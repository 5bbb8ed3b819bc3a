"""Encode videos to clips of latents and captions to embeddings, cached in one file each."""

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
from pavdm_cli.hub.atomic import atomic_write
from pavdm_cli.hub.checkpoint import samples
from pavdm_cli.hub.safetensors_file import open_weights, read_tensor
from pavdm_cli.models.adapter import Stream, TextEmbedding, TextEncoder
from pavdm_cli.models.pixels import from_bytes
from pavdm_cli.models.streams import run_stream
from pavdm_cli.runtime.untrusted import InvalidError, integer, number, read_json, record_of, string
from pavdm_cli.training.finetune.dataset import VideoItem
from pavdm_cli.video import VideoInfo, open_video, read_frames_at

OnProgress = Callable[[int], None]  # of a progress bar


@dataclass(frozen=True, slots=True)
class LatentFormat:
    """Everything that the latents of a clip depend on, except the video."""

    size: tuple[int, int]  # pixels, height and width
    fps: int
    frames: int
    latents: int
    vae: str  # digest of its weights, and precision


@dataclass(frozen=True, slots=True)
class VideoProbe:
    """The number of consecutive clips in a video, or why there are none."""

    clips: int = 0
    rate: float = 0.0  # frames per second of the file
    error: str = ""


PROBE_FIELDS = {"clips": integer(0, 1 << 32), "rate": number(0, 1e9), "error": string(10_000)}
STORED_PROBE = record_of("the probe of a video", PROBE_FIELDS)  # as JSON


@dataclass(frozen=True, slots=True)
class Cache:
    """Paths of cached files."""

    folder: Path
    format: LatentFormat
    text_encoder: str  # digest of its weights, and precision
    _keys: dict[Path, str] = field(default_factory=dict, compare=False)

    def probe_path(self, video: Path) -> Path:
        """The file of a `VideoProbe`."""
        return self.folder / "videos" / f"{self._key(video)}.json"

    def latents(self, video: Path, clip: int) -> Path:
        """The file of a clip's latents."""
        return self.folder / "latents" / f"{self._key(video)}-{clip:05d}.safetensors"

    def embedding(self, caption: str) -> Path:
        """The file of a caption's embedding."""
        return self.folder / "captions" / f"{_hash(f'{self.text_encoder} {caption}'.encode())}.safetensors"

    def _key(self, video: Path) -> str:
        """A hash of the format and of the video's contents."""
        if video not in self._keys:
            latent_format = json.dumps(asdict(self.format)).encode()
            self._keys[video] = _hash(latent_format + str(video.stat().st_size).encode() + samples(video))
        return self._keys[video]


def probe_video(cache: Cache, video: Path) -> VideoProbe:
    """Probe a video, or read the cached result."""
    path = cache.probe_path(video)
    try:
        stored = read_json(path)
        if STORED_PROBE.fits(stored):
            return VideoProbe(**stored)
    except (OSError, InvalidError):
        pass
    probe = _probe_video(cache.format, video)
    with atomic_write(_with_folder(path)) as temporary:
        temporary.write_text(json.dumps(asdict(probe)))
    return probe


def unique_videos(cache: Cache, videos: Sequence[Path]) -> list[Path]:
    """Drop duplicates: files of the same content are encoded once."""
    return list({cache.probe_path(video): video for video in videos}.values())


def list_clips(cache: Cache, videos: Sequence[Path]) -> list[tuple[Path, int]]:
    """(video, number) of every clip."""
    return [(video, clip) for video in videos for clip in range(probe_video(cache, video).clips)]


def clips_to_encode(cache: Cache, clips: Sequence[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """Those clips that are not cached."""
    return [(video, clip) for video, clip in clips if not _is_readable(cache.latents(video, clip))]


def encode_clips(
    cache: Cache, open_stream: Callable[[], Stream], clips: Sequence[tuple[Path, int]], on_progress: OnProgress
) -> None:
    """Crop, scale and encode clips, saving each at once; every video is decoded once, from its first clip.

    Raises: InputError, OutputError.
    """
    for path, group in groupby(clips, lambda clip: clip[0]):
        numbers = [clip for _, clip in group]
        for clip, pixels in zip(numbers, _read_clips(open_video(path), numbers, cache.format), strict=True):
            latents = run_stream(open_stream(), from_bytes(pixels)[None])[0]
            _save_tensor(cache.latents(path, clip), latents.half())
            on_progress(1)


def _read_clips(  # -> (n, H, W, 3) each
    video: VideoInfo, clips: Sequence[int], latent_format: LatentFormat
) -> Iterator[NDArray[np.uint8]]:
    """clips: in ascending order."""
    count = latent_format.frames
    times = [Fraction(clip * count + frame, latent_format.fps) for clip in clips for frame in range(count)]
    frames = read_frames_at(video, [video.start + time for time in times], latent_format.size)
    for _ in clips:
        yield np.stack(list(islice(frames, count)))


def captions_to_encode(cache: Cache, captions: Sequence[str]) -> list[str]:
    """Those captions that are not cached."""
    return [caption for caption in dict.fromkeys(captions) if not _is_readable(cache.embedding(caption))]


def encode_captions(cache: Cache, encoder: TextEncoder, captions: Sequence[str], on_progress: OnProgress) -> None:
    """Encode captions, saving each at once. Raises: OutputError."""
    for caption in captions:
        _save_tensor(cache.embedding(caption), encoder.encode([caption])[0].embeds)
        on_progress(1)


@dataclass(frozen=True, slots=True)
class LatentDataset:
    """Encoded clips and captions, read from disk for each batch."""

    clips: tuple[tuple[Path, Path], ...]  # files of latents and embedding
    length: int  # latents per clip

    def latents(self, ranges: Sequence[tuple[int, slice]]) -> Tensor:  # (B, T, C, h, w)
        """Latents of (clip, range) pairs, float32. Raises: PavdmError."""
        return torch.stack([_load_tensor(self.clips[clip][0])[part] for clip, part in ranges]).float()

    def embeddings(self, clips: Sequence[int], device: torch.device) -> list[TextEmbedding]:
        """Caption embeddings, float32, on a device. Raises: PavdmError."""
        rows = [_load_tensor(self.clips[clip][1]).to(device, torch.float32) for clip in clips]
        return [TextEmbedding(row, torch.ones(len(row), dtype=torch.bool, device=device)) for row in rows]


def load_dataset(cache: Cache, videos: Sequence[VideoItem], format_caption: Callable[[str], str]) -> LatentDataset:
    """The cached clips of some videos."""
    pairs = [(video, clip) for video in videos for clip in range(probe_video(cache, video.path).clips)]
    files = ((cache.latents(video.path, clip), cache.embedding(format_caption(video.caption))) for video, clip in pairs)
    return LatentDataset(tuple(files), cache.format.latents)


def _probe_video(latent_format: LatentFormat, path: Path) -> VideoProbe:
    try:
        video = open_video(path)
    except PavdmError as error:
        return VideoProbe(error=f"unreadable: {error.message}")
    clips = math.floor(video.duration * latent_format.fps) // latent_format.frames
    seconds = latent_format.frames / latent_format.fps
    short = f"shorter than {seconds:.1f} s: it has {float(video.duration):.1f} s"
    return VideoProbe(clips, float(video.rate), "" if clips else short)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _with_folder(path: Path) -> Path:
    """Create the folder of a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _save_tensor(path: Path, value: Tensor) -> None:
    with atomic_write(_with_folder(path)) as temporary:
        save_file({"value": value.contiguous().cpu()}, temporary)


def _is_readable(path: Path) -> bool:
    try:
        with open_weights(path):
            return True
    except (OSError, SafetensorError, InvalidError):
        return False


def _load_tensor(path: Path) -> Tensor:
    try:
        return read_tensor(path, "value")
    except (OSError, SafetensorError, InvalidError) as error:
        raise PavdmError(f"{path} is missing or damaged", "run again to encode it again") from error
