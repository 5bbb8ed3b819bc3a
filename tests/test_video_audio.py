"""The audio of a continued video: copied bit for bit, in sync, padded with silence, or dropped."""

from __future__ import annotations

import hashlib
import itertools
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import ClipSpec, grays, make
from support.extending import write_extension

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.video import ExtensionOptions, VideoInfo, check_extension, open_video

NEW = [np.full((48, 64, 3), 250 - 10 * k, np.uint8) for k in range(7)]


def sound(path: Path) -> list[tuple[str, int]]:
    """The MD5 of every sound stream's packets, and their number."""
    with av.open(str(path)) as file:
        tracks = []
        for stream in file.streams.audio:
            file.seek(0)
            packets = [bytes(packet) for packet in file.demux(stream) if packet.size]
            tracks.append((hashlib.md5(b"".join(packets)).hexdigest(), len(packets)))
    return tracks


def clip(path: Path, spec: ClipSpec | None = None) -> VideoInfo:
    return open_video(make(path, grays(12), spec))


MATCHES = [
    ("aac", "mp4", ".mp4"),
    ("aac", "mov", ".mkv"),
    ("aac", "mkv", ".mp4"),
    ("libopus", "webm", ".webm"),
    ("libopus", "mkv", ".mp4"),
    ("libmp3lame", "avi", ".mp4"),
    ("libmp3lame", "avi", ".mkv"),
    ("flac", "mkv", ".mkv"),
    ("ac3", "mp4", ".mp4"),
    ("pcm_s16le", "avi", ".mkv"),
    ("pcm_s16be", "mov", ".mkv"),
]


def with_sound(folder: Path, codec: str, kind: str) -> VideoInfo:
    return clip(folder / f"in.{kind}", ClipSpec("vp9" if kind == "webm" else "h264", audio=codec))


@pytest.mark.parametrize(("codec", "kind", "suffix"), MATCHES)
def test_audio_is_copied_bit_exactly_and_in_sync(tmp_path: Path, codec: str, kind: str, suffix: str) -> None:
    video = with_sound(tmp_path, codec, kind)
    notes = write_extension(video, tmp_path / f"out{suffix}", NEW)
    assert sound(tmp_path / f"out{suffix}") == sound(video.path)
    assert notes == ["the audio ends where the input's does"]
    assert delay(tmp_path / f"out{suffix}") == pytest.approx(delay(video.path), abs=0.002)


def delay(path: Path) -> float:
    """Seconds from the first picture to the start of the tone."""
    picture = open_video(path).start
    with av.open(str(path)) as file:
        heard = [(frame.time, np.abs(frame.to_ndarray().astype(float)), frame.rate) for frame in file.decode(audio=0)]
    loud = 0.5 * max(samples.max() for _, samples, _ in heard)
    start, samples, rate = next(sound for sound in heard if sound[1].max() > loud)
    return start + np.argmax(samples[0] > loud) / rate / (2 if len(samples) == 1 else 1) - float(picture)


def test_the_audio_language_is_copied(tmp_path: Path) -> None:
    write_extension(clip(tmp_path / "in.mp4", ClipSpec(audio="aac")), tmp_path / "out.mkv", NEW)
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert file.streams.audio[0].language in ("deu", "ger")


@pytest.mark.parametrize(("codec", "kind", "suffix"), MATCHES)
def test_silence_fills_up_to_the_last_frame(tmp_path: Path, codec: str, kind: str, suffix: str) -> None:
    video = with_sound(tmp_path, codec, kind)
    notes = write_extension(video, tmp_path / f"out{suffix}", NEW * 3, ExtensionOptions(audio="silence"))
    out = open_video(tmp_path / f"out{suffix}")
    with av.open(str(out.path)) as file:
        heard = [(frame.time, frame.to_ndarray().astype(float), frame.samples) for frame in file.decode(audio=0)]
    loud = max(np.abs(samples).max() for _, samples, _ in heard)
    read_last_frames = [np.abs(samples).max() for time, samples, _ in heard if time > float(video.end) + 0.15]
    assert len(read_last_frames) > 10
    assert max(read_last_frames) < 0.01 * loud
    assert heard[-1][0] >= float(out.end) - 0.15
    assert all(after[0] > before[0] for before, after in itertools.pairwise(heard))
    assert notes == ["silence after the input's audio"]


def test_dropped_audio_is_reported(tmp_path: Path) -> None:
    video = clip(tmp_path / "in.mp4", ClipSpec(audio="aac"))
    assert write_extension(video, tmp_path / "out.webm", NEW, ExtensionOptions(audio="drop")) == ["audio dropped"]
    assert sound(tmp_path / "out.webm") == []


def test_audio_longer_than_the_video_is_copied_completely(tmp_path: Path) -> None:
    video = clip(tmp_path / "in.mkv", ClipSpec(audio="libopus", seconds=3.5))
    write_extension(video, tmp_path / "out.mkv", NEW[:2])
    assert sound(tmp_path / "out.mkv") == sound(video.path)
    assert video.duration == Fraction(12, 10)


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".webm"), ("aac", ".gif")])
def test_unsupported_audio_is_rejected_before_any_work(tmp_path: Path, codec: str, suffix: str) -> None:
    video = clip(tmp_path / "in.mkv", ClipSpec(audio=codec))
    with pytest.raises(OutputError) as excinfo:
        check_extension(video, tmp_path / f"out{suffix}")
    assert "-o x.mkv" in excinfo.value.hint
    with pytest.raises(OutputError):
        write_extension(video, tmp_path / f"out{suffix}", NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
    check_extension(video, tmp_path / f"out{suffix}", ExtensionOptions(audio="drop"))


def test_silence_that_cannot_be_encoded_is_a_usage_error(tmp_path: Path) -> None:
    video = clip(tmp_path / "in.mkv", ClipSpec(audio="vorbis"))
    with pytest.raises(UsageError, match="vorbis"):
        check_extension(video, tmp_path / "out.mkv", ExtensionOptions(audio="silence"))
    write_extension(video, tmp_path / "out.mkv", NEW)
    assert sound(tmp_path / "out.mkv") == sound(video.path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_audio_and_video_are_interleaved(tmp_path: Path, suffix: str) -> None:
    write_extension(
        clip(tmp_path / "in.mp4", ClipSpec(audio="aac")),
        tmp_path / f"out{suffix}",
        NEW * 30,
        ExtensionOptions(audio="silence"),
    )
    reached = {"video": 0.0, "audio": 0.0}
    with av.open(str(tmp_path / f"out{suffix}")) as file:
        for packet in file.demux():
            if packet.size and packet.pts is not None:
                reached[packet.stream.type] = float(packet.pts * packet.time_base)
                assert abs(reached["video"] - reached["audio"]) < 4.5  # what the encoder looks ahead
    assert min(reached.values()) > 21


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".mp4"), ("pcm_s16le", ".mp4"), ("aac", ".mkv")])
def test_packets_with_the_same_time_follow_each_other(tmp_path: Path, codec: str, suffix: str) -> None:
    plain, path = make(tmp_path / "plain.mkv", grays(12), ClipSpec(audio=codec)), tmp_path / "in.mkv"
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        previous = 0
        for number, packet in enumerate(packet for packet in old.demux() if packet.size):
            if packet.stream.type == "audio":
                packet.pts = packet.dts = previous if 30 < number < 35 else packet.pts
                previous = packet.pts
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    write_extension(open_video(path), tmp_path / f"out{suffix}", NEW)
    (start, before), (out_start, after) = samples(plain), samples(tmp_path / f"out{suffix}")
    assert out_start == pytest.approx(start, abs=0.001)
    common = min(before.shape[1], after.shape[1])
    assert common > 57_000
    assert np.abs(before[:, :common] - after[:, :common]).max() < 0.001


def set_audio_edits(path: Path, edits: list[tuple[int, int]]) -> None:
    """Set the edits, (milliseconds, first sample), of the audio, the last track of an MP4 with its index at the end."""
    data = bytearray(path.read_bytes())
    entries = b"".join(struct.pack(">IiI", length, sample, 1 << 16) for length, sample in edits)
    box = b"elst" + struct.pack(">II", 0, len(edits)) + entries
    start = data.rindex(b"elst") - 4
    growth = len(box) + 4 - int.from_bytes(data[start : start + 4])
    data[start : start + 4 + len(box) - growth] = struct.pack(">I", len(box) + 4) + box
    for name in (b"edts", b"trak", b"moov"):
        position = data.rindex(name, 0, start) - 4
        data[position : position + 4] = (int.from_bytes(data[position : position + 4]) + growth).to_bytes(4)
    path.write_bytes(data)


@pytest.mark.parametrize(("codec", "suffix"), [("pcm_s16le", ".mkv"), ("aac", ".mp4"), ("ac3", ".mp4")])
def test_audio_of_several_edits_is_copied(tmp_path: Path, codec: str, suffix: str) -> None:
    path = make(tmp_path / ("in.mov" if suffix == ".mkv" else "in.mp4"), grays(12), ClipSpec(audio=codec, seconds=4))
    set_audio_edits(path, [(400, 1024), (500, 96_000)])
    write_extension(open_video(path), tmp_path / f"out{suffix}", NEW)
    (start, before), (out_start, after) = samples(path), samples(tmp_path / f"out{suffix}")
    assert out_start == pytest.approx(start, abs=0.001)
    assert after.shape[1] == pytest.approx(before.shape[1], abs=50)
    heard = slice(18_000) if suffix == ".mp4" else slice(None)  # a decoder of lossy audio needs time after a cut
    assert np.abs(after[:, : before.shape[1]] - before[:, : after.shape[1]])[:, heard].max() < 0.01


# What is not heard at the ends of a sound, and what a container cannot hold


def samples(path: Path) -> tuple[float, np.ndarray]:  # (channels, count) in -1..1
    """When the first sound is heard after the first picture, in seconds, and all samples."""
    parts, begin = [], None
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        for frame in file.decode(stream):
            begin = frame.time if begin is None else begin
            data = frame.to_ndarray()
            data = data if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels).T
            scale = {"u8": 128, "s16": 2**15, "s32": 2**31}.get(frame.format.packed.name, 1)
            parts.append((data.astype(float) - (128 if scale == 128 else 0)) / scale)
    return begin - float(open_video(path).start), np.concatenate(parts, 1)


@pytest.mark.parametrize(
    ("codec", "kind", "suffix"),
    [
        ("aac", "mp4", ".mp4"),
        ("aac", "mp4", ".mkv"),
        ("libopus", "webm", ".mkv"),
        ("libopus", "mp4", ".mp4"),
        ("libmp3lame", "mp4", ".mkv"),
    ],
)
def test_start_padding_stays_inaudible(tmp_path: Path, codec: str, kind: str, suffix: str) -> None:
    video = with_sound(tmp_path, codec, kind)
    write_extension(video, tmp_path / f"out{suffix}", NEW)
    (before, expected), (after, heard) = samples(video.path), samples(tmp_path / f"out{suffix}")
    count = min(expected.shape[1], heard.shape[1])
    assert after == pytest.approx(before, abs=0.0006)
    assert np.array_equal(heard[:, :count], expected[:, :count])
    assert 0 <= expected.shape[1] - count < 1152  # Matroska also says what is padding at the end


@pytest.mark.parametrize("suffix", [".webm", ".mkv"])
def test_end_padding_of_opus_stays_inaudible(tmp_path: Path, suffix: str) -> None:
    video = clip(tmp_path / "in.webm", ClipSpec("vp9", audio="libopus", seconds=0.9871))
    write_extension(video, tmp_path / f"out{suffix}", NEW)
    write_extension(video, tmp_path / "out.mp4", NEW)
    write_extension(open_video(tmp_path / "out.mp4"), tmp_path / f"again{suffix}", NEW)
    expected = samples(video.path)[1]
    assert expected.shape[1] == round(0.9871 * 48000)
    for name in (f"out{suffix}", f"again{suffix}"):
        assert np.array_equal(samples(tmp_path / name)[1], expected)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.streams.audio[0].duration == pytest.approx(expected.shape[1], abs=48)  # counted in milliseconds


def test_rounded_matroska_timestamps_become_exact_in_mp4(tmp_path: Path) -> None:
    write_extension(with_sound(tmp_path, "aac", "mkv"), tmp_path / "out.mp4", NEW)
    with av.open(str(tmp_path / "out.mp4")) as file:
        stamps = [packet.pts for packet in file.demux(audio=0) if packet.size]
    assert set(np.diff(stamps)) == {1024}


PCM = [
    ("pcm_s16le", "mov", ".mp4", "flac"),
    ("pcm_s24le", "mov", ".mp4", "flac"),
    ("pcm_u8", "avi", ".mp4", "flac"),
    ("adpcm_ms", "avi", ".mkv", "flac"),
    ("pcm_s24be", "mov", ".mkv", ""),
    ("pcm_s8", "mov", ".mkv", "pcm_u8"),
    ("pcm_mulaw", "mov", ".mkv", "pcm_s16le"),
    ("pcm_f32be", "mov", ".mkv", "pcm_f32le"),
    ("pcm_s32be", "mov", ".mkv", ""),
]


@pytest.mark.parametrize("audio", ["keep", "silence"])
@pytest.mark.parametrize(("codec", "kind", "suffix", "stored"), PCM)
def test_uncompressed_audio_keeps_its_samples(
    tmp_path: Path, codec: str, kind: str, suffix: str, stored: str, audio: str
) -> None:
    video = with_sound(tmp_path, codec, kind)
    notes = write_extension(video, tmp_path / f"out{suffix}", NEW, ExtensionOptions(audio=audio))
    (before, expected), (after, heard) = samples(video.path), samples(tmp_path / f"out{suffix}")
    assert after == pytest.approx(before, abs=0.0006)
    assert np.array_equal(heard[:, : expected.shape[1]], expected)
    assert not heard[:, expected.shape[1] :].any()
    assert (heard.shape[1] > expected.shape[1]) == (audio == "silence")
    assert (f"{codec} audio stored losslessly as {stored}" in notes) == bool(stored)


def test_samples_of_more_than_24_bits_are_rejected_in_mp4_only(tmp_path: Path) -> None:
    video = with_sound(tmp_path, "pcm_f32le", "mov")
    with pytest.raises(OutputError, match=r"mp4 files cannot hold pcm_f32le") as excinfo:
        check_extension(video, tmp_path / "out.mp4")
    assert "x.mkv" in excinfo.value.hint
    check_extension(video, tmp_path / "out.mkv")


@pytest.mark.parametrize("audio", ["keep", "silence"])
def test_audio_of_unknown_codec_is_reported_and_the_rest_copied(tmp_path: Path, audio: str) -> None:
    data = make(tmp_path / "plain.mkv", grays(12), ClipSpec(audio="aac")).read_bytes()
    assert data.count(b"A_AAC") == 1
    (tmp_path / "in.mkv").write_bytes(data.replace(b"A_AAC", b"A_XXX"))
    notes = write_extension(open_video(tmp_path / "in.mkv"), tmp_path / "out.mp4", NEW, ExtensionOptions(audio=audio))
    assert "dropped: audio of unknown codec" in notes
    assert open_video(tmp_path / "out.mp4").frames == 19
