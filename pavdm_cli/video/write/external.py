"""Pictures to a video file by an ffmpeg outside this program, for what the one inside PyAV lacks."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import av

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.runtime.install_hints import install_command
from pavdm_cli.video.convert import EXACT
from pavdm_cli.video.write.encode import (
    DITHER,
    FRAGMENTED_MP4,
    MUXER_BITEXACT,
    PALETTE,
    X264_DETERMINISTIC,
    EncoderOptions,
    Frame,
    Track,
    append_gif_comment,
    pad_to_even,
)

NAMED = "unset PAVDM_FFMPEG to do without it"
FOUND = "see whether the disk is full; mp4, mkv and webm are written without it, unless --encoder asks"


def find_ffmpeg(program: str = "") -> str:
    """The external ffmpeg: the one named, else imageio-ffmpeg's, else the one on PATH, else an empty string."""
    if program:
        found = shutil.which(program)
        if found is None:
            raise UsageError(f"{program!r} is not a program", "set PAVDM_FFMPEG to the path of ffmpeg, or unset it")
        return found
    return _bundled_ffmpeg() or shutil.which("ffmpeg") or ""


def require_ffmpeg(encoding: EncoderOptions) -> str:
    """The external ffmpeg that an encoding asks for. Raises: UsageError."""
    found = find_ffmpeg(encoding.ffmpeg)
    if not found:
        hint = f"install ffmpeg, or run `{install_command('ffmpeg')}`, or leave --encoder out"
        raise UsageError(f"{encoding.encoder} needs an ffmpeg program, and there is none", hint)
    return found


class ExternalEncoder:
    """Frames piped to an external ffmpeg, in a session of its own so that Ctrl-C does not end it before us."""

    def __init__(self, path: Path, track: Track, encoding: EncoderOptions, comment: str = "") -> None:
        self._path, self._comment = path, comment
        self._gif = path.suffix.lower() == ".gif"
        self._hint = NAMED if encoding.ffmpeg else FOUND
        command = _command(path, track, encoding, comment)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=self._errors, stderr=self._errors, start_new_session=True
            )
        except OSError as error:
            raise OutputError(f"cannot start {command[0]}: {error.strerror}", "check PAVDM_FFMPEG") from None

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append an RGB frame; `time` is not looked at: a pipe of raw frames has a constant rate."""
        assert not isinstance(frame, av.VideoFrame)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((frame if self._gif else pad_to_even(frame)).tobytes())
        except OSError:
            self._fail()

    def close(self) -> None:
        """Let ffmpeg finish the file."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            failed = self._process.wait() != 0
        except OSError:
            failed = True
        if failed:
            self._fail()
        self._errors.close()
        if self._gif:
            append_gif_comment(self._path, self._comment)

    def abandon(self) -> None:
        """End ffmpeg at once."""
        self._process.kill()
        with suppress(OSError), self._process:  # closes the pipe too
            pass
        self._errors.close()

    def _fail(self) -> NoReturn:
        self._process.kill()
        self._process.wait()
        raise OutputError(f"ffmpeg failed on {self._path.name}: {self._last_words()}", self._hint)

    def _last_words(self) -> str:
        if self._errors.closed:
            return "it has ended"
        with self._errors:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
        return said[-1] if said else "it ended without a word"


def _bundled_ffmpeg() -> str:
    if find_spec("imageio_ffmpeg") is None:
        return ""
    try:
        return str(import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except RuntimeError:  # installed without its binary
        return ""


def _command(path: Path, track: Track, encoding: EncoderOptions, comment: str) -> list[str]:
    import ffmpeg  # late: it drags in the `future` package

    gif = path.suffix.lower() == ".gif"
    width, height = track.width, track.height
    if not gif:
        width, height = width + width % 2, height + height % 2
    raw = {"format": "rawvideo", "pix_fmt": "rgb24", "s": f"{width}x{height}", "framerate": str(track.rate)}
    frames = ffmpeg.input("pipe:", **raw)
    if gif:
        output = _with_palette(frames).output(str(path.absolute()), loop=0)
    else:
        output = _to_bt709(frames).output(str(path.absolute()), **_options(path, encoding, comment))
    output = output.global_args("-loglevel", "error", "-nostats")
    return list(ffmpeg.compile(output, cmd=require_ffmpeg(encoding), overwrite_output=True))


def _with_palette(frames: Any) -> Any:
    import ffmpeg

    parts = frames.split()
    palette = parts[1].filter("palettegen", **PALETTE)
    return ffmpeg.filter([parts[0], palette], "paletteuse", **DITHER)


def _to_bt709(frames: Any) -> Any:
    left = {"out_h_chr_pos": "0", "out_v_chr_pos": "128"}  # older ones know no `out_chroma_loc`
    return frames.filter("scale", out_color_matrix="bt709", out_range="tv", flags=EXACT, **left)


def _options(path: Path, encoding: EncoderOptions, comment: str) -> dict[str, str]:
    quality = "cq" if encoding.encoder.endswith("_nvenc") else "crf"
    container = {"movflags": FRAGMENTED_MP4} if path.suffix.lower() == ".mp4" else {"fflags": MUXER_BITEXACT}
    same = (
        {"x264-params": X264_DETERMINISTIC, "threads": str(encoding.threads)} if encoding.encoder == "libx264" else {}
    )
    return {
        "vcodec": encoding.encoder,
        quality: str(encoding.crf),
        "g": str(encoding.gop),
        "pix_fmt": "yuv420p",
        "colorspace": "bt709",
        "color_primaries": "bt709",
        "color_trc": "bt709",
        "color_range": "tv",
        "chroma_sample_location": "left",
        "metadata": f"comment={comment}",
        **container,
        **same,
    }
