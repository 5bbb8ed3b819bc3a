"""Clips to latents and captions to embeddings: cropping, caching and resuming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.clips import ClipSpec, grays, make
from torch import Tensor

from pavdm_cli.errors import PavdmError
from pavdm_cli.models.adapter import TextEmbedding
from pavdm_cli.training.finetune.dataset import VideoItem
from pavdm_cli.training.finetune.encoding import (
    Cache,
    LatentDataset,
    LatentFormat,
    captions_to_encode,
    clips_to_encode,
    encode_captions,
    encode_clips,
    list_clips,
    load_dataset,
    probe_video,
    unique_videos,
)

FORMAT = LatentFormat(size=(16, 24), fps=5, frames=4, latents=2, vae="a VAE")
CPU = torch.device("cpu")
STEP = 8  # in brightness between frames of `grays`, which start at 20


class Means:
    """A VAE with one number per latent: the mean brightness of two frames, as frame numbers."""

    def __init__(self) -> None:
        self.clips = 0

    def encode_stream(self) -> Means:
        return self

    def push(self, frames: Tensor) -> Tensor:
        assert frames.shape[1:] == (4, 3, 16, 24)
        self.clips += 1
        numbers = (frames.mean((2, 3, 4)) * 255 - 20) / STEP
        return numbers.unflatten(1, (2, 2)).mean(2)[..., None, None, None]

    def flush(self) -> Tensor:
        return torch.zeros(1, 0, 1, 1, 1)


class LetterEncoder:
    """A text encoder with one vector per letter."""

    def encode(self, prompts: Sequence[str], /) -> list[TextEmbedding]:
        return [TextEmbedding(torch.tensor([[float(ord(letter))] for letter in text])) for text in prompts]

    def memory_bytes(self, prompt: str, /) -> dict[str, int]:
        return {"letters": len(prompt)}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", FORMAT, "an encoder")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """22 frames at 10 fps: two clips of 4 frames at 5 fps, and a remainder."""
    return make(tmp_path / "v.mp4", grays(22, 32, 48), ClipSpec())


def encode(cache: Cache, *videos: Path, advance: Callable[[int], None] = lambda done: None) -> int:
    """Encode what is missing; how many clips that was."""
    vae = Means()
    encode_clips(
        cache, vae.encode_stream, clips_to_encode(cache, list_clips(cache, unique_videos(cache, videos))), advance
    )
    return vae.clips


def numbers(cache: Cache, video: Path, clip: int) -> list[float]:
    return load_file(cache.latents(video, clip))["value"].flatten().float().tolist()


def test_a_long_video_gives_consecutive_clips_at_the_target_rate(cache, video):
    assert probe_video(cache, video).clips == 2
    assert encode(cache, video) == 2
    assert numbers(cache, video, 0) == pytest.approx([1, 5], abs=0.15)  # frames 0 2 4 6
    assert numbers(cache, video, 1) == pytest.approx([9, 13], abs=0.15)  # frames 8 10 12 14


def test_clips_follow_timestamps_rather_than_frame_numbers(cache, tmp_path):
    times = [Fraction(k, 10) if k < 8 else Fraction(k - 4, 5) for k in range(14)]  # half the rate from 0.8 s on
    path = make(tmp_path / "v.mkv", grays(14, 32, 48), ClipSpec(times=times))
    encode(cache, path)
    assert numbers(cache, path, 0) == pytest.approx([1, 5], abs=0.15)
    assert numbers(cache, path, 1) == pytest.approx([8.5, 10.5], abs=0.15)


def test_videos_with_a_lower_frame_rate_repeat_frames(tmp_path, video):
    cache = Cache(tmp_path / "cache", replace(FORMAT, fps=20), "")
    assert probe_video(cache, video).clips == 11
    encode(cache, video)
    assert numbers(cache, video, 3) == pytest.approx([6, 7], abs=0.15)
    assert probe_video(cache, video).rate == 10


def test_videos_without_clips_report_why(cache, tmp_path):
    short = make(tmp_path / "short.mp4", grays(7, 32, 48), ClipSpec())
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 50)
    assert probe_video(cache, short).error == "shorter than 0.8 s: it has 0.7 s"
    assert probe_video(cache, broken).error == f"unreadable: {broken} is not a video that can be read"
    assert encode(cache, short, broken) == 0


def test_probes_and_latents_are_cached(cache, video, monkeypatch):
    assert encode(cache, video) == 2
    monkeypatch.setattr("pavdm_cli.training.finetune.encoding.open_video", None)
    assert encode(cache, video) == 0
    assert encode(Cache(cache.folder, FORMAT, "another encoder"), video) == 0


@pytest.mark.parametrize("change", [{"size": (16, 32)}, {"fps": 4}, {"frames": 2}, {"vae": "another"}])
def test_another_format_is_encoded_again(change, cache, video):
    encode(cache, video)
    other = Cache(cache.folder, replace(FORMAT, **change), "")
    assert clips_to_encode(other, list_clips(other, [video]))
    assert not clips_to_encode(cache, list_clips(cache, [video]))


def test_changed_videos_are_encoded_again_but_renamed_ones_not(cache, video):
    encode(cache, video)
    new_path = video.rename(video.with_name("w.mp4"))
    assert encode(Cache(cache.folder, FORMAT, ""), new_path) == 0
    make(video, [frame + 20 for frame in grays(22, 32, 48)], ClipSpec())
    assert encode(Cache(cache.folder, FORMAT, ""), video) == 2


def test_duplicate_videos_are_encoded_once(cache, video):
    twin = video.with_name("twin.mp4")
    twin.write_bytes(video.read_bytes())
    assert encode(cache, video, twin) == 2
    both = load_dataset(cache, [VideoItem(video, "a"), VideoItem(twin, "b")], str)
    assert [latents for latents, _ in both.clips[:2]] == [latents for latents, _ in both.clips[2:]]


def test_interrupted_encoding_resumes(cache, video):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(cache, video, advance=stop)
    cache.latents(video, 1).write_bytes(b"half")
    assert encode(cache, video) == 1
    assert numbers(cache, video, 1) == pytest.approx([9, 13], abs=0.15)


def test_captions_are_encoded_once(cache):
    encoded: list[str] = []
    for captions in (["boat", "a", "boat"], ["a", "kite"]):
        encode_captions(cache, LetterEncoder(), captions_to_encode(cache, captions), lambda done: encoded.append("one"))
    assert len(encoded) == 3
    assert load_file(cache.embedding("boat"))["value"].flatten().tolist() == [ord(letter) for letter in "boat"]
    assert captions_to_encode(Cache(cache.folder, FORMAT, "another encoder"), ["a"]) == ["a"]


def test_interrupted_caption_encoding_resumes(cache):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_captions(cache, LetterEncoder(), ["a", "b", "c"], stop)
    assert captions_to_encode(cache, ["a", "b", "c"]) == ["b", "c"]


def test_batches_are_read_from_cached_files(cache, video):
    encode(cache, video)
    encode_captions(cache, LetterEncoder(), ["BOAT!", "A"], lambda done: None)
    dataset = load_dataset(cache, [VideoItem(video, "boat")], lambda caption: caption.upper() + "!")
    assert len(dataset.clips) == 2
    assert dataset.length == 2
    latents = dataset.latents([(1, slice(0, 1)), (0, slice(1, 2))])
    assert latents.dtype == torch.float32
    assert latents.flatten().tolist() == pytest.approx([9, 5], abs=0.15)
    mixed = LatentDataset((*dataset.clips, (dataset.clips[0][0], cache.embedding("A"))), 2)
    dropped, captioned = mixed.embeddings([2, 0], torch.device("cpu"))
    assert captioned.embeds[:, 0].tolist() == [ord(letter) for letter in "BOAT!"]
    assert dropped.embeds.flatten().tolist() == [ord("A")]
    assert (dropped.embeds.dtype, dropped.mask.tolist()) == (torch.float32, [True])


def test_a_missing_cache_file_is_one_error_line(cache, video):
    encode(cache, video)
    dataset = load_dataset(cache, [VideoItem(video, "boat")], str)
    cache.latents(video, 0).unlink()
    with pytest.raises(PavdmError, match="is missing or damaged"):
        dataset.latents([(0, slice(0, 2))])
