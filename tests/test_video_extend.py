"""Extending a file: its frames and sound unchanged, then the new ones, in one file."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import ClipSpec, corners, grays, make
from support.command import pavdm
from support.extending import write_extension

from pavdm_cli.errors import InputError, OutputError
from pavdm_cli.video import (
    EncoderOptions,
    ExtensionOptions,
    ExtensionWriter,
    FrameReader,
    VideoInfo,
    VideoWriter,
    open_video,
    partial_path,
    read_metadata,
)
from pavdm_cli.video.convert import FrameConverter
from pavdm_cli.video.upscale import Scale
from pavdm_cli.video.write.external import ExternalEncoder
from pavdm_cli.video.write.gif import GifEncoder
from pavdm_cli.video.write.segmented import SegmentedEncoder

SQUARES = [Fraction(k * k, 100) for k in range(1, 13)]
SUFFIXES = [".mp4", ".mkv", ".webm"]
NEW = [np.full((48, 64, 3), 250 - 10 * k, np.uint8) for k in range(7)]
LEVELS = [20 + 8 * k for k in range(12)] + [250 - 10 * k for k in range(7)]


def levels(path: Path) -> list[float]:
    return [frame.mean() for frame, _ in FrameReader(open_video(path))]


def clip(path: Path, spec: ClipSpec | None = None) -> VideoInfo:
    return open_video(make(path, grays(12), spec))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "mov"])
def test_the_output_is_the_input_followed_by_new_frames(tmp_path: Path, suffix: str, kind: str) -> None:
    video = clip(tmp_path / f"in.{kind}")
    before = video.path.read_bytes()
    notes = write_extension(video, tmp_path / f"out{suffix}", iter(NEW), ExtensionOptions(metadata={"seed": 4}))
    out = open_video(tmp_path / f"out{suffix}")
    assert np.allclose(levels(out.path), LEVELS, atol=2)
    assert out.times == video.times + [video.end + k / video.rate for k in range(7)]
    assert out.rate == video.rate
    assert read_metadata(out.path) == {"seed": 4}
    assert notes == []
    assert video.path.read_bytes() == before
    assert not partial_path(out.path).exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_variable_timestamps_are_preserved(tmp_path: Path, suffix: str, kind: str) -> None:
    video = clip(tmp_path / f"in.{kind}", ClipSpec(times=SQUARES))
    write_extension(video, tmp_path / f"out{suffix}", NEW)
    times = open_video(tmp_path / f"out{suffix}").times
    assert times[:12] == [time - SQUARES[0] for time in SQUARES]
    expected = [video.duration + Fraction(k) / video.rate for k in range(7)]
    assert max(abs(new - old) for new, old in zip(times[12:], expected, strict=True)) <= Fraction(1, 1000)
    assert np.allclose(levels(tmp_path / f"out{suffix}"), LEVELS, atol=2)


def test_an_mp4_declares_its_true_duration(tmp_path: Path) -> None:
    write_extension(clip(tmp_path / "in.mp4", ClipSpec(times=SQUARES)), tmp_path / "out.mp4", [])
    with av.open(str(tmp_path / "out.mp4")) as file:
        stream = file.streams.video[0]
        assert stream.duration * stream.time_base > SQUARES[-1] - SQUARES[0]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("turn", [0, 90])
def test_the_output_is_upright_with_the_same_aspect_ratio(tmp_path: Path, suffix: str, turn: int) -> None:
    video = open_video(make(tmp_path / "in.mp4", [corners(48, 64)] * 3, ClipSpec(turn=turn, aspect=Fraction(4, 3))))
    notes = write_extension(video, tmp_path / f"out{suffix}", [np.zeros((video.height, video.width, 3), np.uint8)])
    out = open_video(tmp_path / f"out{suffix}")
    assert (out.width, out.height, out.sample_aspect_ratio) == (video.width, video.height, video.sample_aspect_ratio)
    assert has_corners(out, np.rot90(corners(48, 64), turn // 90))
    assert notes == (["rotated upright"] if turn else [])


@pytest.mark.parametrize("suffix", [".webm", ".gif"])
@pytest.mark.parametrize(("aspect", "size"), [(Fraction(4, 3), (48, 86)), (Fraction(3, 4), (64, 64))])
def test_pixels_become_square_where_the_container_requires_it(
    tmp_path: Path, suffix: str, aspect: Fraction, size: tuple[int, int]
) -> None:
    video = open_video(make(tmp_path / "in.mp4", [corners(48, 64)] * 3, ClipSpec(aspect=aspect)))
    notes = write_extension(video, tmp_path / f"out{suffix}", [np.zeros((32, 48, 3), np.uint8)])
    out = open_video(tmp_path / f"out{suffix}")
    assert (out.height, out.width, out.sample_aspect_ratio) == (*size, 1) or suffix == ".gif"
    assert has_corners(out, corners(out.height, out.width))
    assert "made square" in notes[0]


def has_corners(video: VideoInfo, expected: np.ndarray) -> bool:
    frame = next(iter(FrameReader(video)))[0].astype(int)
    spots = [(y, x) for y in (8, -8) for x in (8, -8)]
    return video.orientation.note() == "" and max(np.abs(frame[spot] - expected[spot]).max() for spot in spots) <= 6


def test_padding_of_odd_sizes_is_reported(tmp_path: Path) -> None:
    picture = np.zeros((31, 45, 3), np.uint8)
    picture[-1], picture[:, -1] = 250, 250
    video = open_video(make(tmp_path / "in.webm", [picture] * 3, ClipSpec("vp9", crf=2)))
    notes = write_extension(video, tmp_path / "out.mp4", [picture] * 2, ExtensionOptions(encoder=EncoderOptions(crf=2)))
    for frame, _ in FrameReader(open_video(tmp_path / "out.mp4")):
        assert frame.shape == (32, 46, 3)
        assert frame[31].min() > 200
        assert frame[:20, :40].max() < 50
    assert notes == ["45x31 padded to 46x32 by repeating the last row or column"]


def test_conversion_of_10_bits_and_hdr_is_reported(tmp_path: Path) -> None:
    bright = np.full((48, 64, 3), 65535 * 58 // 100, np.uint16)
    video = open_video(
        make(tmp_path / "in.mkv", [bright] * 3, ClipSpec("hevc", pixels="yuv420p10le", color_space=(9, 16, 9)))
    )
    notes = write_extension(video, tmp_path / "out.mp4", NEW)
    out = open_video(tmp_path / "out.mp4")
    assert (out.bit_depth, out.hdr, out.wide_gamut) == (8, "", False)
    assert abs(levels(out.path)[0] - 243) <= 3
    assert notes == ["PQ to standard range (bt709), highlights rolled off", "10 bits to 8"]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "mjpeg"])
def test_clips_of_one_or_two_frames_are_extended(tmp_path: Path, codec: str, count: int) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    video = open_video(make(tmp_path / "in.mkv", grays(count, 64, 64), ClipSpec(codec, pixels=pixels)))
    write_extension(video, tmp_path / "out.mp4", [np.full((64, 64, 3), 240, np.uint8)] * 2)
    assert np.allclose(levels(tmp_path / "out.mp4"), [*[20, 28][:count], 240, 240], atol=3)


def test_new_frames_are_scaled_to_the_input_size(tmp_path: Path) -> None:
    video = open_video(make(tmp_path / "in.mp4", [corners(90, 160)] * 2, ClipSpec()))
    write_extension(video, tmp_path / "out.mp4", [np.full((32, 48, 3), (9, 99, 199), np.uint8)] * 2)
    last = [frame for frame, _ in FrameReader(open_video(tmp_path / "out.mp4"))][-1]
    assert last.shape == (90, 160, 3)
    assert np.abs(last.astype(int) - (9, 99, 199)).max() <= 4


@pytest.mark.parametrize("scale", [Scale(), Scale(2)])
def test_a_repeated_frame_is_scaled_and_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale) -> None:
    video = clip(tmp_path / "in.mp4")
    frames = [corners(24, 32), corners(24, 32)[::-1].copy(), corners(24, 32)[:, ::-1].copy()]
    options = ExtensionOptions(scale=scale, metadata={"seed": 1})
    write_extension(video, tmp_path / "apart.mp4", [frame.copy() for frame in frames for _ in range(3)], options)
    calls: list[int] = []
    convert = FrameConverter.convert
    monkeypatch.setattr(FrameConverter, "convert", lambda *args: calls.append(1) or convert(*args))
    write_extension(video, tmp_path / "repeated.mp4", [frame for frame in frames for _ in range(3)], options)
    assert len(calls) == len(frames)
    assert (tmp_path / "repeated.mp4").read_bytes() == (tmp_path / "apart.mp4").read_bytes()


def test_a_frame_buffer_may_be_reused_for_the_next_video_frame(tmp_path: Path) -> None:
    buffer = np.zeros((48, 64, 3), np.uint8)

    def refilled() -> Iterator[np.ndarray]:
        for level in (40, 120, 200):
            buffer[:] = level
            yield buffer

    with VideoWriter(tmp_path / "v.mp4", 64, 48, 8) as writer:
        writer.write(refilled())
    assert np.allclose(levels(tmp_path / "v.mp4"), [40, 120, 200], atol=2)


def test_only_new_writes_the_continuation_from_time_zero(tmp_path: Path) -> None:
    video = clip(tmp_path / "in.mp4", ClipSpec(audio="aac"))
    notes = write_extension(video, tmp_path / "out.mp4", NEW, ExtensionOptions(only_new=True))
    assert np.allclose(levels(tmp_path / "out.mp4"), LEVELS[12:], atol=2)
    assert open_video(tmp_path / "out.mp4").times == [k / video.rate for k in range(7)]
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert not file.streams.audio
    assert notes == ["audio dropped"]


def test_a_gif_can_be_input_and_output(tmp_path: Path) -> None:
    write_extension(clip(tmp_path / "in.mp4"), tmp_path / "first.gif", NEW)
    write_extension(open_video(tmp_path / "first.gif"), tmp_path / "second.gif", NEW[:2])
    assert np.allclose(levels(tmp_path / "second.gif"), LEVELS + LEVELS[12:14], atol=2)


def test_the_trailing_comment_of_a_gif_is_no_frame(tmp_path: Path) -> None:
    path = tmp_path / "in.gif"
    write_extension(clip(tmp_path / "in.mp4"), path, NEW, ExtensionOptions(metadata={"prompt": "a boat, " * 100}))
    video = open_video(path)
    assert video.frames == len(LEVELS)
    write_extension(video, tmp_path / "longer.gif", NEW[:2])
    with av.open(str(tmp_path / "longer.gif")) as file:
        times = [frame.time for frame in file.decode(video=0)]
    assert np.diff(times) == pytest.approx(float(1 / video.rate), abs=0.011)


# When it does not end well


def test_an_input_is_never_its_own_output(tmp_path: Path) -> None:
    for name, out in (("in.mp4", "in.mp4"), ("in.partial.mp4", "in.mp4")):
        video = clip(tmp_path / name)
        before = video.path.read_bytes()
        with pytest.raises(OutputError, match="overwrite its own input"):
            write_extension(video, tmp_path / out, NEW)
        assert video.path.read_bytes() == before


def interrupted() -> Iterator[np.ndarray]:
    yield from NEW[:3]
    raise KeyboardInterrupt


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_interrupt_saves_new_frames(tmp_path: Path, suffix: str) -> None:
    video = clip(tmp_path / "in.mkv", ClipSpec(audio="libopus"))
    with pytest.raises(KeyboardInterrupt):
        write_extension(video, tmp_path / f"out{suffix}", interrupted())
    assert np.allclose(levels(tmp_path / f"out.partial{suffix}"), LEVELS[:15], atol=2)
    assert not (tmp_path / f"out{suffix}").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_interrupted_copy_is_discarded_at_once(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for encoder in (SegmentedEncoder, GifEncoder, ExternalEncoder):
        monkeypatch.setattr(encoder, "close", lambda self: pytest.fail("what is dropped was encoded"))
    with ExtensionWriter(clip(tmp_path / "in.mp4"), tmp_path / f"out{suffix}") as extension:
        next(iter(extension.copy_input()))
        assert extension.close_partial() is None
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_bad_input_leaves_no_output(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_text("no video")
    with pytest.raises(InputError):
        write_extension(open_video(tmp_path / "in.mp4"), tmp_path / "out.mp4", NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_copying_reports_progress(tmp_path: Path) -> None:
    video, counts = clip(tmp_path / "in.mp4"), []
    write_extension(video, tmp_path / "out.mp4", NEW, progress=counts.append)
    assert counts == list(range(1, 13))


def test_new_frames_are_appended_chunk_by_chunk(tmp_path: Path) -> None:
    video = clip(tmp_path / "in.mp4")
    with ExtensionWriter(video, tmp_path / "out.mp4") as extension:
        assert sum(1 for _ in extension.copy_input()) == 12
        for start in range(0, 7, 3):
            extension.write(np.stack(NEW[start : start + 3]))
    assert np.allclose(levels(tmp_path / "out.mp4"), LEVELS, atol=2)


@pytest.mark.integration
def test_memory_does_not_grow_with_the_length_of_the_video(tmp_path: Path) -> None:
    script = """
        import pathlib, resource, sys
        import numpy as np
        from pavdm_cli.video import ExtensionWriter, open_video
        video = open_video(sys.argv[1])
        with ExtensionWriter(video, sys.argv[2]) as file:
            for _ in file.copy_input():
                pass
            file.write(np.full((64, 96, 3), 9, np.uint8) for _ in range(video.frames))
        status = pathlib.Path("/proc/self/status")  # the resource usage on Linux is at least that of the parent
        lines = status.read_text().splitlines() if status.exists() else []
        peaks = [line.split()[1] for line in lines if line.startswith("VmHWM")]
        print(*peaks or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])
    """
    peaks = []
    for count in (240, 600):  # with 60, the encoder's lookahead is not full yet
        path = make(tmp_path / f"{count}.mp4", itertools.repeat(corners(180, 320), count), ClipSpec(audio="aac"))
        command = [sys.executable, "-c", textwrap.dedent(script), str(path), str(tmp_path / f"out{count}.mp4")]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    assert peaks[1] < 1.1 * peaks[0]  # 720 frames of 320x180 more would be 124 MB


def test_an_output_that_is_the_input_is_rejected_without_suggesting_force(tmp_path):
    make(tmp_path / "x.mp4", grays(9))
    code, _, err = pavdm("extend", "x.mp4", "-p", "a red ball", "-o", "x.mp4", folder=tmp_path)
    assert (code, "x.mp4 would overwrite its own input" in err, "--force" in err) == (4, True, False)
