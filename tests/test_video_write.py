"""Writing: frames are read back as written, at any moment, whatever interrupts it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import EXACT
from support.decoding import decoded_frames

from pavdm_cli.errors import InputError, OutputError, UsageError
from pavdm_cli.video import SUFFIXES, EncoderOptions, VideoWriter, partial_path, read_metadata

COLORS = [(200, 30, 60), (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255), (18, 52, 86), (240, 200, 20)]
ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and file limits of POSIX")


def write_all(writer: VideoWriter, frames: np.ndarray) -> None:
    with writer:
        writer.write(frames)


def solid(color: tuple[int, int, int], count: int = 6, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((count, *size, 3), color, np.uint8)


def decode(path: Path) -> np.ndarray:
    return decoded_frames(path, interpolation=EXACT)


def playable(path: Path) -> int:
    """How many frames a player shows of a file whose end may be missing."""
    num_frames = 0
    with av.open(str(path)) as file:
        for packet in file.demux(video=0):
            with suppress(av.error.InvalidDataError):
                num_frames += len(packet.decode())
    return num_frames


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("color", COLORS, ids=str)
def test_a_solid_color_survives_the_round_trip(tmp_path: Path, suffix: str, color: tuple[int, int, int]) -> None:
    path = tmp_path / f"clip{suffix}"
    with VideoWriter(path, 64, 48, 12) as writer:
        writer.write(solid(color))
    frames = decode(path)
    assert len(frames) == 6
    assert max(np.abs(frame.astype(int) - color).max() for frame in frames) <= 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_written_frames_are_read_back_in_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    levels = np.linspace(0, 250, 31).astype(np.uint8)
    with VideoWriter(path, 64, 48, 10) as writer:
        for start in range(0, 31, 7):
            writer.write(np.stack([np.full((48, 64, 3), level) for level in levels[start : start + 7]]))
    assert np.allclose([frame.mean() for frame in decode(path)], levels, atol=2)
    assert [float(time) for time in times(path)] == pytest.approx([k / 10 for k in range(31)], abs=0.0011)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_odd_sizes_are_padded_to_even(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"odd{suffix}"
    picture = np.zeros((1, 31, 45, 3), np.uint8)
    picture[:, -1:], picture[:, :, -1:] = 250, 250
    with VideoWriter(path, 45, 31, 12, options=EncoderOptions(crf=4)) as writer:
        writer.write(picture)
    frame = decode(path)[0]
    assert frame.shape == (32, 46, 3)
    assert frame[31].min() > 230
    assert frame[:, 45].min() > 230


def test_appended_frames_may_be_modified_afterwards(tmp_path: Path) -> None:
    path, frames = tmp_path / "clip.mp4", solid((90, 90, 90))
    with VideoWriter(path, 64, 48, 12) as writer:
        writer.write(frames)
        frames[:] = 255
    assert abs(decode(path)[-1].mean() - 90) <= 2


def test_a_lower_crf_gives_a_larger_and_more_accurate_file(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
    sizes = {}
    for crf in (10, 40):
        with VideoWriter(tmp_path / f"{crf}.mp4", 64, 48, 12, options=EncoderOptions(crf=crf)) as writer:
            writer.write(picture)
        sizes[crf] = (tmp_path / f"{crf}.mp4").stat().st_size
    assert sizes[10] > 1.5 * sizes[40]


def test_the_file_is_tagged_bt709(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", 64, 48, 12) as writer:
        writer.write(solid((1, 2, 3)))
    with av.open(str(tmp_path / "clip.mp4")) as file:
        codec = file.streams.video[0].codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range) == (1, 1, 1, 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_round_trips_in_every_container(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    metadata = {
        "prompt": 'a "red" ballön; = \\ \U0001f388' * 20,
        "seed": 2**63,
        "settings": {"steps": 30, "size": [64, 96]},
    }
    with VideoWriter(path, 64, 48, 12, metadata) as writer:
        writer.write(solid((9, 9, 9)))
    assert read_metadata(path) == metadata


def test_a_video_without_our_metadata_has_none(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", 64, 48, 12) as writer:
        writer.write(solid((9, 9, 9)))
    assert read_metadata(tmp_path / "clip.mp4") is None
    with pytest.raises(InputError):
        read_metadata(tmp_path / "missing.mp4")


@pytest.mark.parametrize(
    ("comment", "reason"),
    [
        ("[" * 100_000, "nested"),
        ('{"a":' * 2000, "nested"),
        ('{"seed": NaN}', "NaN"),
        ('{"\\ud800": 1}', "Unicode"),
        ('"text"', ""),
        ("{a film}", ""),
    ],
)
def test_foreign_comments_are_ignored_and_damaged_json_reported(tmp_path: Path, comment: str, reason: str) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as file:
        file.metadata["comment"] = comment
        stream = file.add_stream("mpeg4", 8)
        stream.width, stream.height = 64, 48
        for frame in (av.VideoFrame(64, 48, "yuv420p"), None):
            file.mux(stream.encode(frame))
    if reason:
        with pytest.raises(InputError, match=reason):
            read_metadata(tmp_path / "clip.mp4")
    else:
        assert read_metadata(tmp_path / "clip.mp4") is None


# While it grows


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_partial_file_plays_while_it_grows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    with VideoWriter(path, 64, 48, 12, {"seed": 1}, EncoderOptions(segment=12)) as writer:
        writer.write(noise(96))
        writer.flush()
        assert not path.exists()
        shutil.copy(writer.partial, tmp_path / f"seen{suffix}")
    assert len(decode(tmp_path / f"seen{suffix}")) >= 24
    assert suffix == ".gif" or read_metadata(tmp_path / f"seen{suffix}") == {"seed": 1}
    assert len(decode(path)) == 96
    assert not writer.partial.exists()


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), np.uint8)


@ON_POSIX
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_the_file_plays_after_a_kill(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    script = f"""
        import sys, numpy as np
        from pavdm_cli.video import EncoderOptions, VideoWriter
        writer = VideoWriter({str(path)!r}, 64, 48, 12, {{"seed": 1}}, EncoderOptions(segment=12))
        while True:
            writer.write(np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8))
            print(writer.frames, flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        written = next(int(line) for line in process.stdout if int(line) >= 120)
        process.send_signal(signal.SIGKILL)
    assert playable(partial_path(path)) >= written - 8 - 60  # the queue, and what the encoder looks ahead
    assert read_metadata(partial_path(path)) == {"seed": 1}
    assert not path.exists()


def interrupted(writer: VideoWriter, kind: type[BaseException]) -> None:
    with writer:
        writer.write(solid((50, 60, 70), 17))
        raise kind


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_an_interrupt_saves_all_written_frames(tmp_path: Path, suffix: str, kind: type) -> None:
    path = tmp_path / f"clip{suffix}"
    writer = VideoWriter(path, 64, 48, 12, {"seed": 1})
    with pytest.raises(kind):
        interrupted(writer, kind)
    assert writer.saved_partial == writer.partial == tmp_path / f"clip.partial{suffix}"
    assert len(decode(writer.saved_partial)) == 17
    assert read_metadata(writer.saved_partial) == {"seed": 1}
    assert not path.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_error_before_the_first_frame_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match="early"), VideoWriter(tmp_path / f"clip{suffix}", 64, 48, 12) as writer:
        raise ValueError("early")
    assert writer.saved_partial is None
    assert list(tmp_path.iterdir()) == []


def test_an_existing_video_is_replaced_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt):
        interrupted(VideoWriter(path, 64, 48, 12), KeyboardInterrupt)
    assert path.read_bytes() == b"older"
    with VideoWriter(path, 64, 48, 12, force=True) as writer:
        writer.write(solid((5, 5, 5)))
    assert len(decode(path)) == 6


# When it cannot be written


@ON_POSIX
def test_a_full_disk_leaves_a_playable_file(tmp_path: Path) -> None:
    script = f"""
        import resource, numpy as np
        from pavdm_cli.errors import OutputError, UsageError
        from pavdm_cli.video import EncoderOptions, VideoWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        rng = np.random.default_rng(0)
        try:
            with VideoWriter({str(tmp_path / "clip.mp4")!r}, 64, 48, 12, None, EncoderOptions(segment=12)) as writer:
                while True:
                    writer.write(rng.integers(0, 256, (12, 48, 64, 3), np.uint8))
        except OutputError as error:
            print(error.message, "|", error.hint, "|", writer.saved_partial)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert "File too large" in result.stdout
    assert result.stdout.count("clip.partial.mp4") == 2
    assert playable(tmp_path / "clip.partial.mp4") >= 24
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the full device of Linux")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_space_left_is_an_output_error(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"clip.partial{suffix}").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left"):
        write_all(VideoWriter(tmp_path / f"clip{suffix}", 64, 48, 12, None, EncoderOptions(segment=4)), noise(240))


def test_an_encoder_that_cannot_start_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        VideoWriter(tmp_path / "clip.gif", 64, 48, 12, None, EncoderOptions(ffmpeg=str(tmp_path / "missing")))
    with pytest.raises(OutputError):
        VideoWriter(tmp_path / "missing" / "clip.mp4", 64, 48, 12)
    assert list(tmp_path.iterdir()) == []
