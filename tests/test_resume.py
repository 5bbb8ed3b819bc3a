"""An interrupted video is finished with the bytes, or the frames, that it would have had."""

from __future__ import annotations

import re
from pathlib import Path

import av
import pytest
from PIL import Image
from support import clips, published
from support.command import pavdm
from support.interrupted import RED, SAMPLED, snapshots

from pavdm_cli.video.write import external


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


MORE = pytest.mark.integration


@pytest.mark.parametrize("suffix", ["mp4", pytest.param("mkv", marks=MORE), pytest.param("webm", marks=MORE)])
def test_a_resumed_video_has_the_same_bytes(suffix: str) -> None:
    cuts = snapshots(*RED, "--frames", 34, name=f"v.{suffix}")
    assert len(cuts) == 9
    whole = Path(f"v.{suffix}").read_bytes()
    for cut in (cuts[0], cuts[6], cuts[8]) if suffix == "mp4" else cuts[6:7]:
        said = pavdm("resume", cut / f"v.{suffix}")
        assert (said.code, said.out) == (0, f"{cut / f'v.{suffix}'}\n"), said.err
        assert [path.name for path in cut.iterdir()] == [f"v.{suffix}"]
        assert (cut / f"v.{suffix}").read_bytes() == whole
        (before,) = re.findall(r"^resuming after frame (\d+) of 34$", said.err, re.MULTILINE)
        assert f"\n34 frames, {34 - int(before)} of them new, in " in said.err


VARIANTS = {
    "scale": ("--scale", 3),
    "image": ("--image", "image.png"),
    "re-encoded": ("--method", "rn", "--reencode"),
    "edited": ("--method", "rn", "--edit-ratio", 0.5),
    "renoised": ("--method", "rw"),
    "one latent": ("--method", "fifo"),
    "always full": ("--ramp-up", "full"),
    "windows": ("--method", "windows"),
    "UniPC": ("--solver", "unipc"),
}


@pytest.mark.integration
@pytest.mark.parametrize("kind", VARIANTS)
def test_every_method_and_start_resumes_to_the_same_bytes(kind: str) -> None:
    Image.fromarray(clips.corners(64, 96)).save("image.png")
    words = (
        *(RED[:-2] if kind == "scale" else RED),
        *VARIANTS[kind],
        "--frames",
        52 if {"rn", "rw", "windows"} & {*VARIANTS[kind]} else 14,
    )
    cuts = snapshots(*words, name="v.mp4")
    assert pavdm("resume", cuts[1] / "v.mp4").code == 0
    assert (cuts[1] / "v.mp4").read_bytes() == Path("v.mp4").read_bytes()


@pytest.mark.integration
def test_a_vae_with_units_of_latents_resumes_inside_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    published.write(tmp_path / "tiny")
    words = ("generate", "a red balloon", "--model", "tiny", "--size", "72x64", *SAMPLED, "--steps", 6, "--frames", 30)
    cuts = snapshots(*words, "--window", 6, "--chunk", 3, name="v.mp4")
    for cut in cuts[:-1]:
        said = pavdm("resume", cut / "v.mp4")
        assert said.code == 0, said.err
        assert (cut / "v.mp4").read_bytes() == Path("v.mp4").read_bytes()


@pytest.mark.parametrize("only_new", [False, pytest.param(True, marks=MORE)])
@pytest.mark.integration
def test_an_extension_resumes_with_the_input_and_its_sound(only_new: bool) -> None:
    clips.make(Path("in.mp4"), clips.grays(60, 64, 96), clips.ClipSpec(audio="aac"))
    words = ("extend", "in.mp4", "-p", "a red ball", *SAMPLED, "--steps", 6, "--frames", 30)
    cuts = snapshots(*words, *["--only-new"] * only_new, name="v.mp4")
    said = pavdm("resume", cuts[1] / "v.partial.mp4")
    assert said.code == 0, said.err
    assert (cuts[1] / "v.mp4").read_bytes() == Path("v.mp4").read_bytes()
    Path("in.mp4").write_bytes(Path("in.mp4").read_bytes() + b"x")
    said = pavdm("resume", cuts[2] / "v.mp4")
    assert said.code == 2
    assert "in.mp4 was changed" in said.err


def frames(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24", threads=1).tobytes() for frame in file.decode(video=0)]


@pytest.mark.parametrize("inner", [True, pytest.param(False, marks=MORE)])
@pytest.mark.integration
def test_a_gif_resumes_to_the_same_frames_and_says_so(inner: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if inner:
        monkeypatch.setattr("pavdm_cli.video.write.writer.find_ffmpeg", lambda path: "")
    elif not external.find_ffmpeg():
        pytest.skip("no ffmpeg outside PyAV")
    cuts = snapshots(*RED, "--frames", 20, name="v.gif")
    said = pavdm("resume", cuts[2] / "v.gif")
    assert said.code == 0, said.err
    assert "frames are identical, bytes may differ" in said.err
    assert frames(cuts[2] / "v.gif") == frames(Path("v.gif"))
    assert [path.name for path in cuts[2].iterdir()] == ["v.gif"]
