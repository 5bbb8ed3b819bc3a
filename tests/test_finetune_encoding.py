"""Videos to clips of latents, captions to vectors: what is cut, when it is made anew, and what goes on after a stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.clips import Recipe, greys, make
from torch import Tensor

from pavdm_cli.errors import PavdmError
from pavdm_cli.training.finetune.dataset import Captioned
from pavdm_cli.training.finetune.encoding import (
    Cache,
    Footage,
    Form,
    clips_of,
    encode_captions,
    encode_clips,
    footage,
    missing_captions,
    missing_clips,
    survey,
    unlike,
)

FORM = Form(size=(16, 24), fps=5, frames=4, latents=2, codec="a codec")
CPU = torch.device("cpu")
STEP = 8  # of brightness from frame to frame of `greys`, which begin at 20


class Means:
    """A codec of one number a latent: the mean brightness of a pair of frames, in the frames' numbers."""

    def __init__(self) -> None:
        self.clips = 0

    def encode(self, frames: Tensor) -> Tensor:
        assert frames.shape[1:] == (4, 3, 16, 24)
        self.clips += 1
        numbers = (frames.mean((2, 3, 4)) * 255 - 20) / STEP
        return numbers.unflatten(1, (2, 2)).mean(2)[..., None, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        raise NotImplementedError


def letters(text: str) -> Tensor:
    """A text encoder of one vector a letter."""
    return torch.tensor([[float(ord(letter))] for letter in text])


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", FORM, "a reader")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """22 frames, 10 a second: two clips of 4 frames at 5 a second, and a rest."""
    return make(tmp_path / "v.mp4", greys(22, 32, 48), Recipe())


def encode(cache: Cache, *videos: Path, advance: Callable[[int], None] = lambda done: None) -> int:
    """Encode what is missing; how many clips that was."""
    codec = Means()
    encode_clips(cache, codec, missing_clips(cache, clips_of(cache, unlike(cache, videos))), advance)
    return codec.clips


def numbers(cache: Cache, video: Path, clip: int) -> list[float]:
    return load_file(cache.latents(video, clip))["value"].flatten().float().tolist()


def test_a_long_video_gives_clips_one_after_another_at_the_rate_asked_for(cache, video):
    assert survey(cache, video).clips == 2
    assert encode(cache, video) == 2
    assert numbers(cache, video, 0) == pytest.approx([1, 5], abs=0.15)  # frames 0 2 4 6
    assert numbers(cache, video, 1) == pytest.approx([9, 13], abs=0.15)  # frames 8 10 12 14


def test_times_count_and_not_frames(cache, tmp_path):
    times = [Fraction(k, 10) if k < 8 else Fraction(k - 4, 5) for k in range(14)]  # half as many from 0.8 s on
    path = make(tmp_path / "v.mkv", greys(14, 32, 48), Recipe(times=times))
    encode(cache, path)
    assert numbers(cache, path, 0) == pytest.approx([1, 5], abs=0.15)
    assert numbers(cache, path, 1) == pytest.approx([8.5, 10.5], abs=0.15)


def test_a_video_with_fewer_frames_a_second_is_held(tmp_path, video):
    cache = Cache(tmp_path / "cache", replace(FORM, fps=20), "")
    assert survey(cache, video).clips == 11
    encode(cache, video)
    assert numbers(cache, video, 3) == pytest.approx([6, 7], abs=0.15)
    assert survey(cache, video).rate == 10


def test_what_gives_no_clip_says_why(cache, tmp_path):
    short = make(tmp_path / "short.mp4", greys(7, 32, 48), Recipe())
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 50)
    assert survey(cache, short).refused == "shorter than 0.8 s: it has 0.7 s"
    assert survey(cache, broken).refused == f"unreadable: {broken} is not a video that can be read"
    assert encode(cache, short, broken) == 0


def test_nothing_is_made_twice_and_no_video_looked_at_twice(cache, video, monkeypatch):
    assert encode(cache, video) == 2
    monkeypatch.setattr("pavdm_cli.training.finetune.encoding.open_video", None)
    assert encode(cache, video) == 0
    assert encode(Cache(cache.folder, FORM, "another reader"), video) == 0


@pytest.mark.parametrize("change", [{"size": (16, 32)}, {"fps": 4}, {"frames": 2}, {"codec": "another"}])
def test_another_form_is_made_anew(change, cache, video):
    encode(cache, video)
    other = Cache(cache.folder, replace(FORM, **change), "")
    assert missing_clips(other, clips_of(other, [video]))
    assert not missing_clips(cache, clips_of(cache, [video]))


def test_changed_data_is_made_anew_and_a_file_renamed_is_not(cache, video):
    encode(cache, video)
    moved = video.rename(video.with_name("w.mp4"))
    assert encode(Cache(cache.folder, FORM, ""), moved) == 0
    make(video, [frame + 20 for frame in greys(22, 32, 48)], Recipe())
    assert encode(Cache(cache.folder, FORM, ""), video) == 2


def test_two_files_of_one_content_are_encoded_once(cache, video):
    twin = video.with_name("twin.mp4")
    twin.write_bytes(video.read_bytes())
    assert encode(cache, video, twin) == 2
    both = footage(cache, [Captioned(video, "a"), Captioned(twin, "b")], str)
    assert [latents for latents, _ in both.clips[:2]] == [latents for latents, _ in both.clips[2:]]


def test_encoding_that_was_stopped_goes_on(cache, video):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(cache, video, advance=stop)
    cache.latents(video, 1).write_bytes(b"half")
    assert encode(cache, video) == 1
    assert numbers(cache, video, 1) == pytest.approx([9, 13], abs=0.15)


def test_captions_are_read_once_in_their_cleaned_form(cache):
    read: list[str] = []
    for wanted in (["Boat", "a", "Boat"], ["a", "kite"]):
        encode_captions(cache, letters, missing_captions(cache, wanted), lambda done: read.append("one"))
    assert len(read) == 3
    assert load_file(cache.vectors("Boat"))["value"].flatten().tolist() == [ord(letter) for letter in "boat"]
    assert missing_captions(Cache(cache.folder, FORM, "another reader"), ["a"]) == ["a"]


def test_captions_that_were_stopped_go_on(cache):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_captions(cache, letters, ["a", "b", "c"], stop)
    assert missing_captions(cache, ["a", "b", "c"]) == ["b", "c"]


def test_a_batch_is_read_from_the_files_of_its_clips(cache, video):
    encode(cache, video)
    encode_captions(cache, letters, ["BOAT!", "A"], lambda done: None)
    seen = footage(cache, [Captioned(video, "boat")], lambda caption: caption.upper() + "!")
    assert len(seen.clips) == 2
    assert seen.length == 2
    latents = seen.latents([(1, slice(0, 1)), (0, slice(1, 2))])
    assert latents.dtype == torch.float32
    assert latents.flatten().tolist() == pytest.approx([9, 5], abs=0.15)
    mixed = Footage((*seen.clips, (seen.clips[0][0], cache.vectors("A"))), 2)
    y, shown = mixed.vectors([2, 0])
    assert y[1, :, 0].tolist() == [ord(letter) for letter in "boat!"]
    assert y[0, 0] == ord("a")
    assert shown.tolist() == [[True, False, False, False, False], [True] * 5]


def test_a_clip_that_went_away_is_one_clear_error(cache, video):
    encode(cache, video)
    seen = footage(cache, [Captioned(video, "boat")], str)
    cache.latents(video, 0).unlink()
    with pytest.raises(PavdmError, match="is gone or damaged"):
        seen.latents([(0, slice(0, 2))])
