"""Hostile and broken inputs: one clear line, bounded memory, and no network access."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support.clips import ClipSpec, audio_only, bomb, corners, grays, make
from support.extending import write_extension

from pavdm_cli.errors import InputError
from pavdm_cli.video import EncoderOptions, FrameReader, VideoWriter, open_video, read_last_frames
from pavdm_cli.video.io.info import decode_frames
from pavdm_cli.video.io.input import Limits


def flip(path: Path, count: int = 400) -> Path:
    """Turn bytes of the pictures over."""
    data = bytearray(path.read_bytes())
    start, stop = data.index(b"mdat") + 2000, data.rindex(b"moov")
    for place in np.random.default_rng(0).integers(start, stop, count):
        data[place] ^= 255
    path.write_bytes(data)
    return path


def test_damaged_packets_are_counted_and_skipped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = flip(make(tmp_path / "clip.mp4", rng.integers(0, 256, (40, 48, 64, 3), np.uint8), ClipSpec(crf=20)))
    reader = FrameReader(open_video(path))
    frames = list(reader)
    assert reader.skipped > 0
    assert len(frames) >= 10
    assert all(frame.shape == (48, 64, 3) for frame, _ in frames)
    times = [time for _, time in frames]
    assert times == sorted(set(times))


@pytest.mark.parametrize("damaged", [True, False])
def test_frames_in_the_wrong_order_are_skipped_only_after_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    path, decode = make(tmp_path / "clip.mp4", grays(10), ClipSpec()), decode_frames

    def out_of_order(*arguments: Any) -> Iterator[av.VideoFrame | None]:
        decoded = list(decode(*arguments))
        yield from [*decoded[:3], *([None] if damaged else []), decoded[6], *decoded[4:6], *decoded[7:]]

    monkeypatch.setattr("pavdm_cli.video.io.frames.decode_frames", out_of_order)
    reader = FrameReader(open_video(path))
    order = [time * reader.video.rate for _, time in reader]
    assert order == ([0, 1, 2, 6, 7, 8, 9] if damaged else [0, 1, 2, 6, 4, 5, 7, 8, 9])
    assert reader.skipped == (3 if damaged else 0)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_with_damaged_frames_is_extended(tmp_path: Path, suffix: str) -> None:
    frames = [np.roll(corners(), 2 * number, 1) for number in range(30)]
    plain, path = make(tmp_path / "plain.mov", frames, ClipSpec("png", pixels="rgb24")), tmp_path / "in.mov"
    damaged = {7, 8, 13, 20, 21, 22}
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            copy = av.Packet(bytes(100)) if number in damaged else packet
            copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
            new.mux(copy)
    write_extension(open_video(path), tmp_path / f"out{suffix}", frames[:3])
    expected = [Fraction(number, 10) for number in range(33) if number not in damaged]
    assert open_video(tmp_path / f"out{suffix}").times == expected


def test_last_frames_are_complete_after_a_damaged_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spec = ClipSpec("mjpeg", pixels="yuvj420p")
    path = make(tmp_path / "clip.mp4", rng.integers(0, 256, (20, 48, 64, 3), np.uint8), spec)
    with av.open(str(path)) as file:
        last = max((packet for packet in file.demux(video=0) if packet.size), key=lambda packet: packet.pos)
        start, stop = last.pos, last.pos + last.size
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(stop - start) + data[stop:])
    video = open_video(path)
    assert sum(1 for _ in FrameReader(video)) == 19
    assert read_last_frames(video, Fraction(40), 9).shape == (9, 48, 64, 3)


CUT = {
    "h264.mp4": ClipSpec(audio="aac"),
    "h264.mkv": ClipSpec(audio="libopus"),
    "vp9.webm": ClipSpec("vp9"),
    "mjpeg.avi": ClipSpec("mjpeg", pixels="yuvj420p"),
}


@pytest.mark.parametrize("share", [0.02, 0.4, 0.9, 0.995])
@pytest.mark.parametrize("kind", [*CUT, "faststart.mp4", "ours.mp4", "ours.gif"])
def test_a_truncated_file_is_rejected(tmp_path: Path, kind: str, share: float) -> None:
    whole = noisy(tmp_path / kind)
    assert open_video(whole).frames == 24
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(InputError, match="truncated"):
        open_video(cut)


def test_proprietary_data_of_cameras_is_accepted(tmp_path: Path) -> None:
    whole = noisy(tmp_path / "h264.mp4")
    for added in (b"SEFH" * 40, bytes(40), b"\0\0\xff\xff" + b"note" * 9):
        (tmp_path / "noted.mp4").write_bytes(whole.read_bytes() + added)
        assert open_video(tmp_path / "noted.mp4").frames == 24
    data = noisy(tmp_path / "h264.mkv").read_bytes()
    segment = data.index(b"\x18\x53\x80\x67")
    (tmp_path / "padded.mkv").write_bytes(data[:segment] + b"\xec\x85" + bytes(5) + data[segment:] + b"junk" * 9)
    assert open_video(tmp_path / "padded.mkv").frames == 24


def noisy(path: Path) -> Path:
    pictures = np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), np.uint8)
    if path.name == "faststart.mp4":
        return faststart(make(path.with_name("plain.mp4"), pictures), path)
    if path.name in CUT:
        return make(path, pictures, CUT[path.name])
    with VideoWriter(path, 64, 48, 10) as writer:
        writer.write(pictures)
    return path


def faststart(plain: Path, path: Path) -> Path:
    with av.open(str(plain)) as old, av.open(str(path), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return path


def test_a_killed_recording_is_read_to_its_end(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv", ".webm"):
        writer = VideoWriter(tmp_path / f"clip{suffix}", 64, 48, 10, None, EncoderOptions(segment=8))
        with writer:
            writer.write(np.random.default_rng(0).integers(0, 256, (96, 48, 64, 3), np.uint8))
            writer.flush()
            data = writer.partial.read_bytes()
        killed = tmp_path / f"killed{suffix}"
        killed.write_bytes(data[: -len(data) // 4])
        assert 16 <= open_video(killed).frames < 96
        assert 16 <= sum(1 for _ in FrameReader(open_video(killed))) < 96


def hostile(folder: Path) -> dict[str, Path | str]:
    """Inputs that are no video, by what the message says of them."""
    files = {name: folder / name for name in ("empty.mp4", "text.mp4", "list.m3u8", "list.mp4", "random.mkv")}
    files["empty.mp4"].touch()
    files["text.mp4"].write_text("This is not a video at all, but a letter.\n" * 40)
    for name in ("list.m3u8", "list.mp4"):
        files[name].write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n")
    files["random.mkv"].write_bytes(b"\x1a\x45\xdf\xa3" + np.random.default_rng(0).bytes(3000))
    make(folder / "clip.mp4", grays(12), ClipSpec())  # what the lists name is there and can be played
    (folder / "concat.txt").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    return files | {
        "missing.mp4": folder / "missing.mp4",
        "folder": folder,
        "concat.txt": folder / "concat.txt",
        "audio.mp4": audio_only(folder / "audio.mp4"),
        "http": "http://127.0.0.1:9/video.mp4",
        "concat": f"concat:{folder}/clip.mp4|{folder}/clip.mp4",
        "null": "bad\0name.mp4",
        "long": "x" * 5000,
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty.mp4", "is empty"),
        ("text.mp4", "is not a video"),
        ("list.m3u8", "is not a video"),
        ("list.mp4", "is not a video"),
        ("random.mkv", ""),
        ("concat.txt", "is not a video"),
        ("missing.mp4", "does not exist"),
        ("folder", "is a folder"),
        ("audio.mp4", "only audio"),
        ("http", "is an address"),
        ("concat", "is an address"),
        ("null", ""),
        ("long", ""),
    ],
)
def test_a_file_that_is_no_video_gives_one_error_line(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InputError) as excinfo:
        open_video(hostile(tmp_path)[name])
    assert words in excinfo.value.message
    assert "\n" not in excinfo.value.message
    assert excinfo.value.hint


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device file")
def test_a_device_file_is_rejected() -> None:
    with pytest.raises(InputError, match="not a regular file"):
        open_video("/dev/zero")


def test_oversized_frames_are_rejected_before_decoding(tmp_path: Path) -> None:
    script = """
        import resource, sys
        from pavdm_cli.errors import InputError
        from pavdm_cli.video import open_video
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            open_video(sys.argv[1])
        except InputError as error:
            print(error.message)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    path = bomb(tmp_path / "bomb.webm", 15360, 15360)
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    message, more = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    assert f"up to {8192 * 4320} pixels" in message
    assert int(more) < 100_000  # a picture would be 350 MB


def test_frames_larger_than_the_header_says_are_not_decoded(tmp_path: Path) -> None:
    reader = FrameReader(open_video(bomb(tmp_path / "liar.webm", 15360, 15360, header_size=(64, 64))))
    assert len(list(reader)) == 1
    assert reader.skipped == 1


def test_custom_limits_apply(tmp_path: Path) -> None:
    path = make(tmp_path / "clip.mp4", grays(12), ClipSpec())
    with pytest.raises(InputError, match="64x48"):
        open_video(path, Limits(pixels=64 * 48 - 1))
    with pytest.raises(InputError, match="more than 11 frames"):
        open_video(path, Limits(frames=11))
    assert open_video(path, Limits(64 * 48, 12)).frames == 12


def test_cover_art_of_a_song_is_not_a_video(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain.mp4", [corners()] * 2, ClipSpec("mjpeg", pixels="yuvj420p", audio="aac"))
    path = tmp_path / "song.mp4"
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        streams[0].disposition = av.stream.Disposition.attached_pic
        for packet in old.demux():
            if packet.size and (packet.pts or packet.stream.type == "audio"):
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    with av.open(str(path)) as file:
        assert file.streams.video[0].disposition & av.stream.Disposition.attached_pic
    with pytest.raises(InputError, match="only audio"):
        open_video(path)
