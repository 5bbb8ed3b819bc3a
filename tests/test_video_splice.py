"""Replacing a span of a video: all other packets stay identical, and the result plays as one stream."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support import clips
from support.decoding import decoded_frames

from pavdm_cli.video import (
    EncoderOptions,
    ExtensionOptions,
    ExtensionWriter,
    VideoInfo,
    VideoWriter,
    open_video,
    read_metadata,
)
from pavdm_cli.video.write import splice
from pavdm_cli.video.write.splice import Splice, SpliceWriter, keyframes, matching_params

OPTIONS = EncoderOptions(crf=20)
FRAMES, FIRST, END = 100, 24, 72
Packets = list[tuple[int | None, int | None, bool, bytes]]


def moving(count: int, seed: int = 0) -> list[np.ndarray]:
    """Frames with noise and a bright square that moves."""
    draw = np.random.default_rng(seed)
    frames = []
    for number in range(count):
        frame = draw.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        frame[10:20, number % 50 : number % 50 + 12] = 220
        frames.append(frame)
    return frames


def packets(path: Path, kind: str = "video") -> Packets:
    """Times, flag and bytes of all packets of the first stream of a kind."""
    with av.open(str(path)) as file:
        stream = next(stream for stream in file.streams if stream.type == kind)
        return [(p.pts, p.dts, p.is_keyframe, bytes(p)) for p in file.demux(stream) if p.size]


def video(path: Path) -> Path:
    with VideoWriter(path, 64, 48, 8, {"pavdm": "1"}, OPTIONS) as writer:
        frames = moving(FRAMES)
        for number in range(0, FRAMES, 4):
            writer.write(frames[number : number + 4])
    return path


def extended(source: VideoInfo, path: Path, count: int) -> list[int]:
    """Write 48 frames of a source and `count` new ones; return the first two keyframes of the new ones."""
    with ExtensionWriter(source, path, ExtensionOptions(metadata={"pavdm": "1"}, encoder=OPTIONS)) as writer:
        assert len([*writer.copy_input()]) == 48
        frames = moving(count)
        for number in range(0, count, 4):
            writer.write(frames[number : number + 4])
    return [index for index in keyframes(open_video(path)) if index >= 48][:2]


def spliced(path: Path, first: int = FIRST, end: int = END, rate: int = 8) -> Path:
    info = open_video(path)
    params = matching_params(info, Fraction(rate), OPTIONS)
    assert params is not None
    new, target = moving(end - first, seed=1), path.with_stem("new")
    with SpliceWriter(Splice(info, params, first, end), target, {"pavdm": "2"}, OPTIONS) as writer:
        for number in range(0, end - first, 4):
            writer.write(new[number : number + 4])
    return target


def check_outside(old: Path, new: Path, first: int, end: int) -> None:
    """Packets and decoded frames outside the span are the same, those inside are others at the same times."""
    times = sorted(p[0] for p in packets(old) if p[0] is not None)
    span = set(times[first:end])
    outside = [[p for p in packets(path) if p[0] not in span] for path in (old, new)]
    assert outside[0] == outside[1]
    assert sorted(p[0] for p in packets(new) if p[0] is not None) == times
    before, after = decoded_frames(old), decoded_frames(new)
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [not first <= number < end for number in range(len(times))]


SPANS = [("mp4", FIRST, END), ("mp4", 0, 48), ("mp4", 72, FRAMES), ("mkv", FIRST, END), ("webm", FIRST, FRAMES)]


@pytest.mark.parametrize(("suffix", "first", "end"), SPANS)
def test_everything_outside_the_span_stays_as_it_is(suffix: str, first: int, end: int, tmp_path: Path) -> None:
    old = video(tmp_path / f"v.{suffix}")
    assert {first, end} - {FRAMES} <= {*keyframes(open_video(old))}
    new = spliced(old, first, end)
    check_outside(old, new, first, end)
    assert read_metadata(new) == {"pavdm": "2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"new.{suffix}", f"v.{suffix}"]


def test_the_same_frames_give_the_same_packets(tmp_path: Path) -> None:
    old = video(tmp_path / "v.mp4")
    info, frames = open_video(old), moving(FRAMES)
    params = matching_params(info, Fraction(8), OPTIONS)
    assert params is not None
    with SpliceWriter(Splice(info, params, 24, 72), tmp_path / "new.mp4", {"pavdm": "1"}, OPTIONS) as writer:
        for number in range(24, 72, 4):
            writer.write(frames[number : number + 4])
    assert packets(tmp_path / "new.mp4") == packets(old)


@pytest.mark.parametrize("rate", [Fraction(8), Fraction(30000, 1001)])
def test_sound_and_chapters_of_an_extended_video_stay(rate: Fraction, tmp_path: Path) -> None:
    source = clips.make(tmp_path / "in.mp4", clips.grays(48), clips.ClipSpec(audio="aac", rate=rate))
    old, info = tmp_path / "v.mp4", open_video(source)
    first, end = extended(info, old, 96)
    new = spliced(old, first, end)
    check_outside(old, new, first, end)
    assert packets(new, "audio") == packets(old, "audio")


@pytest.mark.parametrize(
    ("suffix", "rate"), [("mkv", Fraction(30)), ("webm", Fraction(24)), ("webm", Fraction(30000, 1001))]
)
def test_a_foreign_video_extended_to_any_container_can_be_cut(suffix: str, rate: Fraction, tmp_path: Path) -> None:
    spec = clips.ClipSpec(rate=rate, color_space=(6, 6, 6))
    source, old = clips.make(tmp_path / "in.mov", clips.grays(48), spec), tmp_path / f"v.{suffix}"
    first, end = extended(open_video(source), old, 144)
    new = spliced(old, first, end)
    check_outside(old, new, first, end)
    assert open_video(new).color_space == open_video(old).color_space


def test_a_video_of_another_encoder_has_no_matching_parameters(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "v.mp4", moving(48), clips.ClipSpec(rate=Fraction(8)))
    assert matching_params(open_video(path), Fraction(8), OPTIONS) is None
    assert matching_params(open_video(video(tmp_path / "w.mp4")), Fraction(8), EncoderOptions(crf=21)) is None


def test_an_interruption_leaves_the_video_and_a_part_that_plays(tmp_path: Path) -> None:
    old = video(tmp_path / "v.mp4")
    before, info = old.read_bytes(), open_video(old)
    params = matching_params(info, Fraction(8), OPTIONS)
    assert params is not None
    writer = SpliceWriter(Splice(info, params, 24, 72), old, {}, OPTIONS, True)
    writer.write(moving(24))
    writer.close_partial()
    assert old.read_bytes() == before
    assert len(decoded_frames(tmp_path / "v.partial.mp4")) == 24


def test_a_packet_that_is_lost_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = splice.SurroundingPackets

    def shorter(path: Path, start: Fraction, end: Fraction) -> splice.SurroundingPackets:
        return real(path, start, end + Fraction(1, 8))

    monkeypatch.setattr(splice, "SurroundingPackets", shorter)
    old = video(tmp_path / "v.mp4")
    with pytest.raises(AssertionError):
        check_outside(old, spliced(old), FIRST, END)
