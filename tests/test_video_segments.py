"""A file grows by closed segments: it can be continued from any chunk, to the same bytes."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.clips import ClipSpec, grays, make
from support.tiers import integration

from pavdm_cli.errors import OutputError
from pavdm_cli.video import EncoderOptions, ExtensionOptions, ExtensionWriter, VideoWriter, open_video, read_metadata
from pavdm_cli.video.upscale import Scale
from pavdm_cli.video.write.encode import EncoderState, VideoParams
from pavdm_cli.video.write.growing_file import GrowingFile
from pavdm_cli.video.write.mp4_boxes import boxes, move_index_to_front
from pavdm_cli.video.write.segment import Segment

SUFFIXES = [".mp4", ".mkv", ".webm"]
CHUNK, CHUNKS = 4, 7


def moving(count: int = CHUNK * CHUNKS) -> np.ndarray:  # (count, 48, 64, 3)
    """Colored blocks that move, so that an encoder uses B-frames."""
    blocks = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    return np.stack([np.roll(blocks, 3 * k, axis=1) for k in range(count)])


FRAMES = moving()
OPTIONS = EncoderOptions(segment=8, threads=2)


def writer(path: Path, resume: EncoderState | None = None, options: EncoderOptions = OPTIONS) -> VideoWriter:
    return VideoWriter(path, 64, 48, 8, {"seed": 1}, replace(options, resume=resume))


def write_chunks(file: VideoWriter, first: int = 0, last: int = CHUNKS) -> list[EncoderState]:
    """Write chunks; the state after each."""
    states: list[EncoderState] = []
    for chunk in range(first, last):
        file.write(FRAMES[chunk * CHUNK : (chunk + 1) * CHUNK])
        file.commit(states.append)
    file.flush()
    return states


@pytest.mark.parametrize(
    ("suffix", "scale"), [(".mp4", 1), (".mp4", 3), (".mkv", 3), (".webm", 1), *integration((".mkv", 1), (".webm", 3))]
)
def test_a_continued_file_has_the_same_bytes(tmp_path: Path, suffix: str, scale: int) -> None:
    options = EncoderOptions(segment=8, threads=2, scale=Scale(scale, "nearest"))
    whole, cut = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    with writer(whole, options=options) as file:
        write_chunks(file)
    for chunks in range(1, CHUNKS + 1):
        first = writer(cut, options=options)
        state = write_chunks(first, 0, chunks)[-1]
        assert first.close_partial() == first.partial
        assert open_video(first.partial).frames == chunks * CHUNK
        with writer(cut, state, options) as second:
            write_chunks(second, chunks)
        assert cut.read_bytes() == whole.read_bytes()
        assert sorted(tmp_path.iterdir()) == [whole, cut]
        cut.unlink()


def test_a_continued_extension_keeps_its_times_if_frames_of_the_input_share_theirs(tmp_path: Path) -> None:
    path, whole, cut = (tmp_path / name for name in ("in.mkv", "a.mp4", "b.mp4"))
    with (
        av.open(str(make(tmp_path / "plain.mkv", grays(12), ClipSpec("mpeg4")))) as plain,
        av.open(str(path), "w") as file,
    ):
        stream = file.add_stream_from_template(plain.streams.video[0])
        for number, packet in enumerate(packet for packet in plain.demux(video=0) if packet.size):
            packet.pts = packet.dts = number // 2 * 200
            packet.stream = stream
            file.mux(packet)
    states: list[EncoderState] = []
    with ExtensionWriter(open_video(path), whole, ExtensionOptions(encoder=OPTIONS)) as file:
        assert list(file.copy_input())[-1] == 12
        for chunk in (FRAMES[:4], FRAMES[4:8]):
            file.write(chunk)
            file.commit(states.append)
    first = ExtensionWriter(open_video(path), cut, ExtensionOptions(encoder=OPTIONS))
    list(first.copy_input())
    first.write(FRAMES[:4])
    first.close_partial()
    with ExtensionWriter(open_video(path), cut, ExtensionOptions(encoder=replace(OPTIONS, resume=states[0]))) as second:
        second.write(FRAMES[4:8])
    assert open_video(cut).timestamps == open_video(whole).timestamps


def test_a_state_has_the_frames_of_the_open_segment_alone(tmp_path: Path) -> None:
    file = writer(tmp_path / "v.mp4")
    states = write_chunks(file)
    file.close_partial()
    assert [(state.segments, state.times) for state in states[:3]] == [
        (0, (0, 1, 2, 3)),
        (1, ()),
        (1, (8, 9, 10, 11)),
    ]
    assert states[0].size == 0
    assert states[0].frames.shape == (4, 72, 64)
    assert [state.size for state in states] == sorted(state.size for state in states)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_header_of_every_segment_is_the_same(suffix: str) -> None:
    headers = set()
    for number, length in enumerate([1, 2, 9]):
        segment = Segment(suffix, VideoParams(64, 48, Fraction(8)), OPTIONS, number, "{}")
        for time in range(length):
            segment.encode(av.VideoFrame.from_ndarray(FRAMES[time], format="rgb24").reformat(format="yuv420p"), time)
        headers.add(segment.close().header)
    assert len(headers) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_partial_and_complete_file_have_every_frame_at_its_time(tmp_path: Path, suffix: str) -> None:
    file = writer(tmp_path / f"v{suffix}")
    write_chunks(file)
    partial = file.close_partial()
    assert partial
    with writer(tmp_path / f"w{suffix}") as file:
        write_chunks(file)
    for path in (partial, file.path):
        video = open_video(path)
        assert video.times == [Fraction(k, 8) for k in range(CHUNK * CHUNKS)]
        assert video.end == Fraction(CHUNK * CHUNKS, 8)
        assert video.rate == 8


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_may_be_longer_than_a_muxer_buffers(tmp_path: Path, suffix: str) -> None:
    metadata = {"prompt": "a red ball " * 4000}
    file = VideoWriter(tmp_path / f"v{suffix}", 64, 48, 8, metadata, OPTIONS)
    write_chunks(file)
    partial = file.close_partial()
    assert partial
    assert open_video(partial).frames == CHUNK * CHUNKS
    assert read_metadata(partial) == metadata


def test_a_long_chunk_is_divided_so_that_memory_is_bounded(tmp_path: Path) -> None:
    file, states = writer(tmp_path / "v.mp4"), []
    file.write(np.repeat(FRAMES[:1], 100, axis=0))
    file.commit(states.append)
    file.flush()
    file.close_partial()
    assert states[0].segments > 2
    assert len(states[0].times) <= 32


def test_the_index_of_a_complete_mp4_is_at_its_front(tmp_path: Path) -> None:
    with writer(tmp_path / "v.mp4") as file:
        write_chunks(file)
    data = file.path.read_bytes()
    assert [box.name for box in boxes(data)] == [b"ftyp", b"moov", b"free", b"mdat"]


def test_the_index_of_a_file_with_cover_and_audio_is_moved_too(tmp_path: Path) -> None:
    video = open_video(make(tmp_path / "in.mp4", grays(12), ClipSpec(audio="aac")))
    with ExtensionWriter(video, tmp_path / "out.mp4") as file:
        for _ in file.copy_input():
            pass
        file.write(FRAMES)
    assert next(iter(list(boxes(file.path.read_bytes()))[1:])).name == b"moov"
    assert open_video(file.path).frames == 12 + len(FRAMES)


def test_an_index_whose_offsets_would_not_fit_stays_at_the_end(tmp_path: Path) -> None:
    table = b"\0\0\0\x18stco" + bytes(4) + (2).to_bytes(4, "big") + (24).to_bytes(4, "big") + b"\xff\xff\xff\xf0"
    moov = b"moov" + table
    for name in (b"stbl", b"minf", b"mdia", b"trak"):
        table = (len(table) + 8).to_bytes(4, "big") + name + table
    moov = (len(table) + 8).to_bytes(4, "big") + b"moov" + table
    data = b"\0\0\0\x10ftypisom" + bytes(4) + b"\0\0\0\x10mdat" + bytes(8) + moov
    path = tmp_path / "large.mp4"
    path.write_bytes(data)
    move_index_to_front(path)
    assert path.read_bytes() == data


def test_a_segment_that_does_not_fit_on_the_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = GrowingFile(tmp_path / "v.mp4")
    file.append(b"whole")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.append(b"half")
    file.close()
    assert (tmp_path / "v.mp4").read_bytes() == b"whole"


def test_a_file_that_is_shorter_than_its_state_is_not_continued(tmp_path: Path) -> None:
    file = writer(tmp_path / "v.mp4")
    state = write_chunks(file)[-1]
    file.close_partial()
    os.truncate(file.partial, state.size - 1)
    with pytest.raises(OutputError, match="lacks its last 1 byte"):
        writer(tmp_path / "v.mp4", state)
    assert file.partial.stat().st_size == state.size - 1


def test_a_new_run_removes_the_checkpoint_of_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "v.partial.mp4.state").write_bytes(b"old")
    with writer(tmp_path / "v.mp4") as file:
        assert not file.checkpoint.exists()
        write_chunks(file)
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_at_the_end_keeps_the_partial_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pavdm_cli.video.write.remux.sync_file", full)
    file = writer(tmp_path / f"v{suffix}")
    with pytest.raises(OutputError, match="No space left"), file:
        write_chunks(file)
    assert [path.name for path in tmp_path.iterdir()] == [f"v.partial{suffix}"]
    assert open_video(file.partial).frames == CHUNK * CHUNKS
