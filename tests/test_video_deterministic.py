"""The same frames give the same file, whatever the memory contents, the number of cores and the CPU."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from support.clips import ClipSpec, make

from pavdm_cli.video import VideoWriter
from pavdm_cli.video.write import segment

SIZE = 129, 97  # odd; 7 blocks of 16 in a row, where x264's AVX-512 takes 8; 9 rows, enough for two threads of x264
WRITE_ALL = """
    import hashlib, os, sys
    from pathlib import Path
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[: int(sys.argv[1])])
    import numpy as np
    from pavdm_cli.video import EncoderOptions, ExtensionOptions, ExtensionWriter, VideoWriter, open_video
    from pavdm_cli.video.write import writer as video_writer

    def record(name, encoding=None):
        with VideoWriter(name, shots.shape[2], shots.shape[1], 12, {"seed": 1}, encoding) as writer:
            writer.write(shots)

    shots, video = np.load("shots.npy"), open_video(Path("input.mp4"))
    for suffix in ("mp4", "mkv", "webm", "gif"):
        record(f"a.{suffix}")
    if video_writer.find_ffmpeg():
        record("outer.mkv", EncoderOptions(encoder="libx264"))
        video_writer.find_ffmpeg = lambda named: ""
        record("inner.gif")
    for suffix in ("mp4", "mkv"):
        with ExtensionWriter(video, f"extended.{suffix}", ExtensionOptions(metadata={"seed": 1})) as file:
            for _ in file.copy_input():
                pass
            file.write(shots)
    for path in sorted(Path.cwd().iterdir()):
        print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
"""


def panned(count: int = 12) -> np.ndarray:  # (count, H, W, 3)
    """Colored blocks that move under noise: an encoder looks ahead and back, and leans on what it finds."""
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 256, (20, 20, 3)), np.ones((8, 8, 1), int))
    shots = [blocks[k : k + SIZE[0], k : k + SIZE[1]] + rng.integers(-12, 13, (*SIZE, 3)) for k in range(count)]
    return np.clip(shots, 0, 255).astype(np.uint8)


@pytest.mark.integration
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="poisons memory by glibc's MALLOC_PERTURB_")
def test_files_are_identical_on_any_number_of_cores(tmp_path: Path) -> None:
    np.save(tmp_path / "shots.npy", panned())
    make(tmp_path / "input.mp4", panned(6)[:, :128, :96], ClipSpec(audio="aac"))
    assert hashes(tmp_path, poison=85, cores=1) == hashes(tmp_path, poison=200, cores=2)


def hashes(folder: Path, poison: int, cores: int) -> list[str]:
    """Name and hash of each file written where new memory is full of one byte."""
    for path in folder.iterdir():
        if path.name not in ("shots.npy", "input.mp4"):
            path.unlink()  # a file that is there is not replaced
    command = [sys.executable, "-c", textwrap.dedent(WRITE_ALL), str(cores)]
    surroundings = os.environ | {"MALLOC_PERTURB_": str(poison)}
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=surroundings)
    assert "extended.mkv" in result.stdout
    return result.stdout.splitlines()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_x264_output_does_not_depend_on_the_cpu(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = written(tmp_path / f"here{suffix}")
    codec, codecs = segment._codec, []
    monkeypatch.setattr(segment, "X264_DETERMINISTIC", f"{segment.X264_DETERMINISTIC}:asm=0")  # a CPU without SIMD
    monkeypatch.setattr(segment, "_codec", lambda *arguments: codecs.append(codec(*arguments)) or codecs[-1])
    assert here == written(tmp_path / f"there{suffix}")
    assert codecs
    assert all(options["x264-params"].endswith(":asm=0") for _, options in codecs)


def test_x264_uses_frame_threads(tmp_path: Path) -> None:
    contents = written(tmp_path / "clip.mp4")  # x264 writes its settings into the file
    assert b" sliced_threads=0 " in contents
    assert b" threads=1 " not in contents


def written(path: Path) -> bytes:
    with VideoWriter(path, SIZE[1], SIZE[0], 12) as writer:
        writer.write(panned())
    return path.read_bytes()
