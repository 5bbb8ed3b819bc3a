"""Video on standard output: format, pace, and behavior without a reader."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.command import CommandResult, pavdm
from support.processes import start, strike
from support.tiers import integration

import pavdm_cli
from pavdm_cli.video.upscale import Scale
from pavdm_cli.video.write.encode import EncoderOptions
from pavdm_cli.video.write.stream import StreamWriter

SAMPLED = ("--seed", 3, "--threads", 1, "--device", "cpu", "--steps", 6, "--warmup", 0, "--scale", 1)
SEA = ("generate", "a red ball bouncing over the sea by day", *SAMPLED)
ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="pipes and signals of this kind are POSIX")
FORMATS = ("mp4", "y4m", "rawvideo")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Reader:
    """The other end of standard output, read by a thread."""

    def __init__(self) -> None:
        self.end, self.descriptor = os.pipe()
        self.data = b""
        self._thread = threading.Thread(target=self._read)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> bytes:
        """All that was written."""
        os.close(self.descriptor)
        self._thread.join()
        os.close(self.end)
        return self.data

    def _read(self) -> None:
        while data := os.read(self.end, 1 << 16):
            self.data += data


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    reader = Reader()
    for name in ("generation.write_stream.STDOUT_FD", "commands.stream_output.STDOUT"):
        monkeypatch.setattr(f"pavdm_cli.{name}", reader.descriptor)
    return reader


def streamed(reader: Reader, *words: object) -> tuple[CommandResult, bytes]:
    reader.start()
    return pavdm(*SEA, *words, "-o", "-"), reader.finish()


def decoded(data: bytes, kind: str = "mp4") -> np.ndarray:
    if kind == "rawvideo":
        return np.frombuffer(data, np.uint8).reshape(-1, 64, 96, 3)
    with av.open(io.BytesIO(data)) as file:
        assert file.streams.video[0].average_rate in (8, None) or kind == "mp4"
        return np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in file.decode(video=0)])


@ON_POSIX
@pytest.mark.parametrize("kind", ["mp4", *integration("y4m", "rawvideo")])
def test_standard_output_is_the_video_and_nothing_else(kind: str, reader: Reader) -> None:
    result, data = streamed(reader, "--frames", 18, *(("--stream-format", kind) if kind != "mp4" else ()))
    assert (result.code, result.out) == (0, ""), result.err
    assert "18 frames in" in result.err
    assert list(Path().iterdir()) == []
    stream_frames = decoded(data, kind).astype(int)
    model = pavdm_cli.load_model("pocket", steps=6, warmup=0, seed=3, threads=1, device="cpu")
    expected = np.stack(list(model.generate(SEA[1], frames=18).frames())).astype(int)
    assert stream_frames.shape == expected.shape
    assert np.abs(stream_frames - expected).mean() < {"mp4": 4, "y4m": 3, "rawvideo": 1e-9}[kind]


def written(kind: str, frames: np.ndarray, rate: Fraction, scale: int = 1) -> bytes:
    reader = Reader()
    reader.start()
    options = EncoderOptions(crf=0, scale=Scale(scale, "nearest"))
    writer = StreamWriter(reader.descriptor, kind, frames.shape[1:3], rate, {"prompt": "x"}, options)
    for chunk in np.split(frames, range(4, len(frames), 4)):
        writer.write(chunk)
    writer.finish()
    return reader.finish()


@ON_POSIX
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(20, 32), (21, 33)])
def test_every_format_keeps_frames_in_order_and_odd_sizes(kind: str, size: tuple[int, int]) -> None:
    frames = np.stack([np.full((*size, 3), 10 * number, np.uint8) for number in range(22)])
    data = written(kind, frames, Fraction(30000, 1001))
    if kind == "rawvideo":
        assert data == frames.tobytes()
        return
    with av.open(io.BytesIO(data)) as file:
        decoded_frames = [(frame.time, frame.to_ndarray(format="rgb24", threads=1)) for frame in file.decode(video=0)]
        assert kind == "y4m" or file.metadata["comment"] == '{"prompt":"x"}'
    assert [round(time * 30000 / 1001) for time, _ in decoded_frames] == list(range(22))
    assert all(
        np.abs(frame[: size[0], : size[1]].astype(int) - 10 * n).max() <= 2
        for n, (_, frame) in enumerate(decoded_frames)
    )


@ON_POSIX
def test_frames_are_enlarged() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 8, 12, 3), np.uint8)
    data = written("rawvideo", frames, Fraction(8), scale=2)
    assert data == frames.repeat(2, axis=1).repeat(2, axis=2).tobytes()


@ON_POSIX
def test_a_fragment_arrives_after_a_second_of_video_not_at_the_end() -> None:
    reader, frames = Reader(), np.zeros((8, 64, 96, 3), np.uint8)
    reader.start()
    writer = StreamWriter(reader.descriptor, "mp4", (64, 96), 8, {}, EncoderOptions())
    writer.write(frames)
    until = time.monotonic() + 20
    while not reader.data and time.monotonic() < until:
        time.sleep(0.01)
    assert len(decoded(reader.data)) == 8
    writer.finish()
    reader.finish()


@ON_POSIX
def test_a_slow_reader_slows_the_writer_down_and_loses_nothing() -> None:
    reader, frames = Reader(), np.random.default_rng(0).integers(0, 255, (200, 64, 96, 3), np.uint8)
    os.set_blocking(reader.descriptor, False)  # as a reader that shares the descriptor may set it
    writer = StreamWriter(reader.descriptor, "rawvideo", (64, 96), 8, {}, EncoderOptions())

    def write() -> None:
        for chunk in np.split(frames, 50):
            writer.write(chunk)
        writer.finish()

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.3)
    buffered = 65536 // frames[0].nbytes
    assert writer.frames <= buffered + 8 + 3  # what the pipe holds, the queue, and what is on its way
    reader.start()
    thread.join()
    assert reader.finish() == frames.tobytes()


@ON_POSIX
@pytest.mark.parametrize("endless", [False, True])
def test_a_reader_that_leaves_ends_the_run(endless: bool, reader: Reader) -> None:
    os.close(reader.end)
    length = ("--seconds", "forever") if endless else ("--frames", 400)
    result = pavdm(*SEA, *length, "-o", "-", "--stream-format", "rawvideo")
    assert (result.code, result.out) == (0 if endless else 4, "")
    assert ("stopped after" if endless else "error: the reader closed standard output after") in result.err
    os.close(reader.descriptor)


@ON_POSIX
def test_a_stream_that_is_stopped_has_no_end_to_miss(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    write = StreamWriter.write

    def write_and_stop(writer: StreamWriter, frames: np.ndarray) -> None:
        write(writer, frames)
        if writer.frames == 12:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(StreamWriter, "write", write_and_stop)
    result, data = streamed(reader, "--seconds", "forever")
    signal.signal(signal.SIGINT, before)
    assert (result.code, len(decoded(data))) == (0, 12)
    assert "stopped after 1.5 s of video\n" in result.err


@ON_POSIX
def test_a_stream_that_is_interrupted_says_how_far_it_came(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    write = StreamWriter.write
    monkeypatch.setattr(
        StreamWriter, "write", lambda writer, frames: (write(writer, frames), os.kill(os.getpid(), signal.SIGTERM))
    )
    result, data = streamed(reader, "--frames", 30)
    assert (result.code, len(decoded(data))) == (75, 4)
    assert "interrupted after 0.5 s of video\n" in result.err


REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "json": (("-o", "-", "--json"), "-o - cannot be combined with --json"),
    "several": (("-o", "-", "-n", 2), "-o - cannot be combined with -n 2"),
    "state": (("-o", "-", "--keep-state"), "-o - cannot be combined with --keep-state"),
    "encoder": (("-o", "-", "--encoder", "libx264"), "-o - cannot be combined with --encoder"),
    "format": (("--stream-format", "y4m"), "--stream-format needs -o -"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_incompatible_with_a_stream_are_rejected(name: str) -> None:
    words, reason = REFUSED[name]
    result = pavdm(*SEA, *words)
    assert (result.code, reason in result.err) == (2, True)
    assert result.out == "" or name == "json"


def test_an_extension_is_a_file() -> None:
    result = pavdm("extend", "in.mp4", "-o", "-")
    assert (result.code, "-o - is only supported by generate" in result.err) == (2, True)


@ON_POSIX
def test_a_terminal_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    import pty

    ours, theirs = pty.openpty()
    monkeypatch.setattr("pavdm_cli.commands.stream_output.STDOUT", theirs)
    result = pavdm(*SEA, "-o", "-")
    os.close(ours)
    os.close(theirs)
    assert (result.code, result.out) == (2, "")
    assert "standard output is a terminal" in result.err


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(*SEA, "--seconds", "forever", "-o", "-", "--stream-format", "rawvideo", cwd=tmp_path)
    with process:
        yield process
        process.kill()


@ON_POSIX
@pytest.mark.integration
def test_a_process_whose_reader_sleeps_waits_and_ends_at_the_second_signal(endless: subprocess.Popen[str]) -> None:
    assert endless.stdout is not None
    os.read(endless.stdout.fileno(), 1)  # it has begun; now nobody reads
    time.sleep(3)
    strike(endless, [(0, signal.SIGINT), (1, signal.SIGINT)])
    assert endless.wait(timeout=30) == 0
    assert "Traceback" not in endless.stderr.read()


@ON_POSIX
@pytest.mark.integration
def test_a_player_reads_the_pipe(tmp_path: Path) -> None:
    process = start(*SEA, "--frames", 40, "-o", "-", cwd=tmp_path)
    with process, av.open(process.stdout.buffer) as file:
        assert len(list(file.decode(video=0))) == 40
    assert process.returncode == 0


@ON_POSIX
@pytest.mark.integration
def test_a_closed_standard_output_is_named(tmp_path: Path) -> None:
    words = " ".join(f"'{word}'" for word in SEA)
    command = f"exec {os.sys.executable} -m pavdm_cli {words} -o - >&-"
    result = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 4
    assert "cannot write to standard output" in result.stderr
