"""`pavdm redo` of other models, extended videos and images, and all that it rejects before slow work."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import clips, published
from support.command import pavdm
from support.decoding import decoded_frames
from support.interrupted import RED, SAMPLED, made
from support.tiers import long
from support.wan import write_checkpoint
from test_video_splice import check_outside, packets

from pavdm_cli.commands import redo as command
from pavdm_cli.models.registry import find
from pavdm_cli.video import EncoderOptions, VideoWriter

MORE = pytest.mark.integration
FRAMES = 80


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def redo(*words: object, name: str = "new.mp4") -> str:
    said = pavdm("redo", *words, "--seed", 9, "-o", name)
    assert said.code == 0, said.err
    return said.err


@MORE
@pytest.mark.parametrize("rate", [8, 25])
def test_of_an_extended_video_the_new_part_is_made_again_and_the_sound_stays(rate: int) -> None:
    spec = clips.ClipSpec(audio="aac", rate=clips.Fraction(rate), crf=20)
    clips.make(Path("in.mp4"), clips.grays(3 * rate, 64, 96), spec)
    made("extend", "in.mp4", "-p", "a red ball", *SAMPLED, "--steps", 6, "--seconds", 10, name="v.mp4")
    said = redo("v.mp4", "--from", "7s", "--to", "8s")
    first, end = span_of(said)
    assert 3 * rate <= first <= 7 * rate
    assert 8 * rate <= end < 13 * rate
    check_repeated(Path("v.mp4"), Path("new.mp4"), first, end)
    assert packets(Path("new.mp4"), "audio") == packets(Path("v.mp4"), "audio")
    refused = pavdm("redo", "v.mp4", "--from", "1s")
    assert refused.code == 2
    assert "copied from another video" in refused.err


def span_of(said: str) -> tuple[int, int]:
    """The frames that `redo` says it makes again."""
    match = re.search(r"frames (\d+) to (\d+)$", said, re.MULTILINE)
    assert match
    return int(match[1]), int(match[2]) + 1


def check_repeated(old: Path, new: Path, first: int, end: int) -> None:
    """As `check_outside`, where frames inside may be repeated and so be the same by chance."""
    one, other = decoded_frames(old), decoded_frames(new)
    same = [np.array_equal(a, b) for a, b in zip(one, other, strict=True)]
    assert same[:first] + same[end:] == [True] * (len(same) - end + first)
    assert not any(same[first:end])
    times = sorted(p[0] for p in packets(old) if p[0] is not None)
    outside = [[p for p in packets(path) if p[0] not in times[first:end]] for path in (old, new)]
    assert outside[0] == outside[1]


@MORE
def test_a_video_from_an_image_keeps_it() -> None:
    Image.fromarray(clips.corners(64, 96)).save("image.png")
    made(*RED, "--frames", FRAMES, "--image", "image.png", "--keep-state", name="v.mp4")
    redo("v.mp4", "--from", "4s", "--to", "5s")
    check_outside(Path("v.mp4"), Path("new.mp4"), 25, 49)
    refused = pavdm("redo", "v.mp4", "--from", "0s")
    assert refused.code == 2
    assert "the start image" in refused.err


def redo_with_and_without_latents(start: str, end: str) -> str:
    """Regenerate a span of a video with its stored latents, then without them; what is printed."""
    said = redo("v.mp4", "--from", start, "--to", end, name="with.mp4")
    assert "no stored latents" not in said
    Path("v.partial.mp4.latents").unlink()
    assert "no stored latents" in redo("v.mp4", "--from", start, "--to", end, name="without.mp4")
    return said


@MORE
@pytest.mark.usefixtures("own_cache")
def test_a_model_with_units_of_latents_is_cut_between_them() -> None:
    published.write(Path("tiny"))
    words = ("generate", "a red balloon", "--model", "tiny", "--size", "72x64", *SAMPLED, "--steps", 6)
    made(*words, "--frames", 204, "--window", 15, "--keep-state", name="v.mp4")
    redo_with_and_without_latents("3s", "4s")
    for name in ("with.mp4", "without.mp4"):
        check_outside(Path("v.mp4"), Path(name), 51, 102)


@MORE
@pytest.mark.parametrize("context", [0, *long(1)])
@pytest.mark.usefixtures("own_cache")
def test_a_model_with_a_decoder_that_remembers_is_continued(context: int) -> None:
    write_checkpoint(Path("tiny"))
    words = ("generate", "a red balloon", "--model", "tiny", "--size", "128x128", *SAMPLED, "--steps", 4)
    words += ("--window", 8, "--chunk", 2, "--guidance", 2, "--context", context)
    made(*words, "--frames", 125, "--keep-state", name="v.mp4")
    assert span_of(redo_with_and_without_latents("2.3s", "3.8s")) == (53, 101)
    for name in ("with.mp4", "without.mp4"):
        check_outside(Path("v.mp4"), Path(name), 53, 101)


def fake(path: str = "v.mp4", frames: int = FRAMES, crf: int = 18, **changes: Any) -> None:
    """A gray video with the metadata of one that pocket made."""
    stored = {"pavdm": "1", "prompt": "a red ball", "fps": 8, "model": "pocket", "weights": find("pocket").digest()}
    stored |= {"frames": FRAMES, "seed": 1, "method": "pa", "steps": 6, "warmup": 0, "crf": 18, "scale": 1}
    metadata = {name: value for name, value in (stored | changes).items() if value is not None}
    with VideoWriter(path, 96, 64, 8, metadata, EncoderOptions(crf=crf)) as writer:
        for number in range(0, frames, 4):
            writer.write(clips.grays(frames, 64, 96)[number : number + 4])


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no metadata": ({"pavdm": None}, 3, "does not store its pavdm"),
    "no seed": ({"seed": None}, 3, "does not store its seed"),
    "cut short": ({"frames": 60}, 3, "has 60 frames, expected 80"),
    "another encoder": ({"crf": 30}, 3, "was re-encoded, or written by another version"),
    "no such model": ({"model": "gone"}, 5, "gone"),
    "other weights": ({"weights": "0123456789abcdef"}, 5, "was generated with different weights of pocket"),
    "clip after clip": ({"method": "rn"}, 2, "with --method rn, a span cannot be conditioned"),
    "always full": ({"ramp_up": "full"}, 2, "with --ramp-up full, a span cannot be conditioned"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_again_is_refused_before_a_model_is_loaded(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, code, message = REFUSED[case]
    fake(**changes)
    monkeypatch.setattr(command, "open_model", None)
    said = pavdm("redo", "v.mp4", "--from", "4s", "--to", "5s")
    assert (said.code, message in said.err) == (code, True), said.err
    assert "Traceback" not in said.err
    assert sorted(path.name for path in Path().iterdir()) == ["v.mp4"]


def test_files_of_other_programs_parts_and_gifs_are_refused() -> None:
    clips.make(Path("foreign.mp4"), clips.grays(20), clips.ClipSpec())
    fake("v.gif")
    fake("w.mp4")
    shutil.copy("w.mp4", "w.partial.mp4")
    messages = {
        "foreign.mp4": "was not generated by pavdm",
        "v.gif": "redo does not support .gif files",
        "w.partial.mp4": "not complete",
    }
    for name, message in messages.items():
        said = pavdm("redo", name)
        assert (said.code, message in said.err) == (3, True), said.err


def test_the_stub_that_is_refused_would_work_otherwise() -> None:
    fake()
    assert "the whole video" not in redo("v.mp4", "--from", "7s", "--threads", 1)
    check_outside(Path("v.mp4"), Path("new.mp4"), 48, FRAMES)


def test_a_redo_without_a_span_says_that_it_is_of_the_whole_video() -> None:
    fake(weights="0123456789abcdef")
    said = pavdm("redo", "v.mp4")
    assert said.err.splitlines()[1] == "note: no --from or --to: the whole video is regenerated"
