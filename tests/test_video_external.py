"""Writing with an external ffmpeg: its arguments, and its errors."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from support.clips import EXACT
from support.decoding import decoded_frames

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.video import EncoderOptions, VideoWriter, read_metadata
from pavdm_cli.video.write import external
from pavdm_cli.video.write.external import find_ffmpeg

ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="the stand-in is a script")


def write(path: Path, frames: np.ndarray, encoding: EncoderOptions) -> None:
    with VideoWriter(path, frames.shape[2], frames.shape[1], 12, {"seed": 3}, encoding) as writer:
        writer.write(frames)


STAND_IN = """\
#!{python}
# Stands in for ffmpeg: notes what it was asked, reads the frames, writes what a GIF ends with.
import json, os, sys
frames = sys.stdin.buffer.read()
note = {{"arguments": sys.argv[1:], "bytes": len(frames), "own_session": os.getsid(0) == os.getpid()}}
json.dump(note, open({log!r}, "w"))
target = next(word for word in sys.argv if ".partial." in word)
open(target, "wb").write(b"GIF89a;")
sys.exit({ending!r})
"""


def stand_in(folder: Path, ending: str | int = 0) -> str:
    program = folder / "ffmpeg"
    program.write_text(STAND_IN.format(python=sys.executable, log=str(folder / "log.json"), ending=ending))
    program.chmod(0o755)
    return str(program)


@ON_POSIX
def test_gifs_are_encoded_by_the_configured_ffmpeg(tmp_path: Path) -> None:
    write(tmp_path / "clip.gif", np.zeros((5, 31, 45, 3), np.uint8), EncoderOptions(ffmpeg=stand_in(tmp_path)))
    log = json.loads((tmp_path / "log.json").read_text())
    assert log["bytes"] == 5 * 31 * 45 * 3
    assert log["own_session"]
    assert any("palettegen" in word and "paletteuse" in word for word in log["arguments"])
    assert b'!\xfe\x0a{"seed":3}\x00;' in (tmp_path / "clip.gif").read_bytes()


@ON_POSIX
def test_a_named_encoder_runs_in_the_external_ffmpeg(tmp_path: Path) -> None:
    encoding = EncoderOptions(crf=20, segment=15, encoder="h264_nvenc", ffmpeg=stand_in(tmp_path))
    write(tmp_path / "clip.mp4", np.zeros((5, 31, 45, 3), np.uint8), encoding)
    log = json.loads((tmp_path / "log.json").read_text())
    line = " ".join(log["arguments"])
    assert log["bytes"] == 5 * 32 * 46 * 3
    for words in ("-framerate 12 ", "-vcodec h264_nvenc", "-cq 20 ", "-g 15 ", "frag_keyframe"):
        assert words in line
    assert 'comment={"seed":3}' in log["arguments"]


@ON_POSIX
def test_an_ffmpeg_failure_reports_its_first_log_line(tmp_path: Path) -> None:
    log = "[vost#0:0 @ 0x55d0] Unknown encoder 'x'\nError opening output file"
    encoding = EncoderOptions(ffmpeg=stand_in(tmp_path, log))
    with pytest.raises(OutputError, match=r"clip[.]partial[.]gif: Unknown encoder 'x'$") as excinfo:
        write(tmp_path / "clip.gif", np.zeros((5, 48, 64, 3), np.uint8), encoding)
    assert "unset PAVDM_FFMPEG" in excinfo.value.hint
    assert not (tmp_path / "clip.gif").exists()


@ON_POSIX
def test_the_hint_mentions_only_variables_that_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = stand_in(tmp_path, "No space left on device")
    monkeypatch.setattr(external, "_bundled_ffmpeg", lambda: program)
    with pytest.raises(OutputError, match="No space left") as excinfo:
        write(tmp_path / "clip.gif", np.zeros((5, 48, 64, 3), np.uint8), EncoderOptions())
    assert "PAVDM_FFMPEG" not in excinfo.value.hint
    assert "free disk space" in excinfo.value.hint


def test_a_missing_configured_ffmpeg_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a program"):
        find_ffmpeg(str(tmp_path / "ffmpeg"))


@pytest.mark.skipif(not find_ffmpeg(), reason="no ffmpeg outside PyAV")
@pytest.mark.parametrize(("suffix", "encoder"), [(".mp4", "libx264"), (".gif", "")])
def test_an_external_ffmpeg_writes_the_same_as_pyav(tmp_path: Path, suffix: str, encoder: str) -> None:
    path = tmp_path / f"clip{suffix}"
    write(path, np.full((20, 48, 64, 3), (200, 30, 60), np.uint8), EncoderOptions(encoder=encoder))
    frames = decoded_frames(path, interpolation=EXACT)
    assert len(frames) == 20
    assert max(np.abs(frame.astype(int) - (200, 30, 60)).max() for frame in frames) <= 2
    assert read_metadata(path) == {"seed": 3}
