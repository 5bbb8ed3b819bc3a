"""Encode frames with an external ffmpeg, for encoders that PyAV's FFmpeg lacks and for smaller GIFs."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.runtime.install_hints import install_command
from pavdm_cli.video.convert import SWSCALE_FLAGS
from pavdm_cli.video.frame import Frame
from pavdm_cli.video.write.encode import (
    MUXER_BITEXACT,
    X264_DETERMINISTIC,
    EncoderOptions,
    VideoParams,
    WholeFileEncoder,
    pad_to_even,
)
from pavdm_cli.video.write.gif import GIF_DITHER, GIF_PALETTE, append_gif_comment

# Plays while it grows and after a kill; closing turns it into a regular MP4. `delay_moov` writes the header with the
# first GOP: without it, B-frames shift every timestamp by two frames.
FRAGMENTED_MP4 = "+hybrid_fragmented+frag_keyframe+delay_moov+use_metadata_tags"

HINT_CONFIGURED = "unset PAVDM_FFMPEG to do without it"
HINT_DEFAULT = "check for free disk space; mp4, mkv and webm do not need ffmpeg, unless --encoder is used"


def find_ffmpeg(path: str = "") -> str:
    """The external ffmpeg: `path`, else imageio-ffmpeg's, else the one on PATH, else empty. Raises: UsageError."""
    if path:
        program = shutil.which(path)
        if program is None:
            raise UsageError(f"{path!r} is not a program", "set PAVDM_FFMPEG to the path of ffmpeg, or unset it")
        return program
    return _bundled_ffmpeg() or shutil.which("ffmpeg") or ""


def require_ffmpeg(options: EncoderOptions) -> str:
    """Like `find_ffmpeg`, but raises: UsageError if there is none."""
    program = find_ffmpeg(options.ffmpeg)
    if not program:
        hint = f"install ffmpeg, or run `{install_command('ffmpeg')}`, or omit --encoder"
        raise UsageError(f"{options.encoder} needs an ffmpeg program, and there is none", hint)
    return program


def probe_encoder(options: EncoderOptions, size: tuple[int, int], suffix: str) -> None:
    """Encode two black frames of `size`, width and height, as a video will be. Raises: UsageError."""
    width, height = size
    with tempfile.TemporaryDirectory() as folder:
        encoder = ExternalEncoder(
            Path(folder) / f"probe.partial{suffix}", VideoParams(width, height, Fraction(8)), options
        )
        try:
            for time in range(2):
                encoder.encode(np.zeros((height, width, 3), np.uint8), time)
            encoder.close()
        except OutputError:
            reason = encoder.first_log_line
            hint = "`ffmpeg -encoders` lists what it has; without --encoder no ffmpeg is needed"
            raise UsageError(f"ffmpeg cannot encode with {options.encoder}: {reason}", hint) from None


class ExternalEncoder(WholeFileEncoder):
    """Pipes frames to an external ffmpeg, which runs in its own session so that Ctrl-C does not end it first."""

    def __init__(self, path: Path, params: VideoParams, options: EncoderOptions, comment: str = "") -> None:
        self.path, self.comment = path, comment
        self._gif = path.suffix.lower() == ".gif"
        self._hint = HINT_CONFIGURED if options.ffmpeg else HINT_DEFAULT
        self.first_log_line = "it exited without a message"
        command = _command(path, params, options, comment)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, start_new_session=True
            )
        except OSError as error:
            raise OutputError(f"cannot start {command[0]}: {error.strerror}", "check PAVDM_FFMPEG") from None

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append an RGB frame; `time` is ignored, since a pipe of raw frames has a constant frame rate."""
        assert not isinstance(frame, av.VideoFrame)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((frame if self._gif else pad_to_even(frame)).tobytes())
        except OSError:
            self._fail()

    def close(self) -> None:
        """Wait for ffmpeg to finish the file."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            has_failed = self._process.wait() != 0
        except OSError:
            has_failed = True
        if has_failed:
            self._fail()
        self._log.close()
        if self._gif:
            append_gif_comment(self.path, self.comment)

    def abort(self) -> None:
        """Kill ffmpeg."""
        self._process.kill()
        with suppress(OSError), self._process:  # also closes the pipe
            pass
        self._log.close()

    def _fail(self) -> NoReturn:
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        if not self._log.closed:
            with self._log:
                self._log.seek(0)
                self.first_log_line = _first_line(self._log.read().decode(errors="replace"))
        raise OutputError(f"ffmpeg failed on {self.path.name}: {self.first_log_line}", self._hint)


def _first_line(log: str) -> str:
    """The first line of ffmpeg's log, which later ones follow from, without the address of what printed it."""
    lines = log.strip().splitlines() or ["it exited without a message"]
    return re.sub(r"^\[[^]]* @ [^]]*\] ", "", lines[0])


def _bundled_ffmpeg() -> str:
    if find_spec("imageio_ffmpeg") is None:
        return ""
    try:
        return str(import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except RuntimeError:  # installed without its binary
        return ""


def _command(path: Path, params: VideoParams, options: EncoderOptions, comment: str) -> list[str]:
    import ffmpeg  # imported late: it loads the `future` package

    gif = path.suffix.lower() == ".gif"
    width, height = (params.width, params.height) if gif else params.coded_size
    raw = {"format": "rawvideo", "pix_fmt": "rgb24", "s": f"{width}x{height}", "framerate": str(params.rate)}
    frames = ffmpeg.input("pipe:", **raw)
    if gif:
        output = _apply_palette(frames).output(str(path.absolute()), loop=0)
    else:
        output = _convert_to_bt709(frames).output(
            str(path.absolute()), **_output_options(path, options, params.rate, comment)
        )
    output = output.global_args("-loglevel", "error", "-nostats")
    return list(ffmpeg.compile(output, cmd=require_ffmpeg(options), overwrite_output=True))


def _apply_palette(frames: Any) -> Any:
    import ffmpeg

    parts = frames.split()
    palette = parts[1].filter("palettegen", **GIF_PALETTE)
    return ffmpeg.filter([parts[0], palette], "paletteuse", **GIF_DITHER)


def _convert_to_bt709(frames: Any) -> Any:
    left_siting = {"out_h_chr_pos": "0", "out_v_chr_pos": "128"}  # older versions do not support `out_chroma_loc`
    return frames.filter("scale", out_color_matrix="bt709", out_range="tv", flags=SWSCALE_FLAGS, **left_siting)


def _output_options(path: Path, options: EncoderOptions, rate: Fraction, comment: str) -> dict[str, str]:
    quality = "cq" if options.encoder.endswith("_nvenc") else "crf"
    muxer = {"movflags": FRAGMENTED_MP4} if path.suffix.lower() == ".mp4" else {"fflags": MUXER_BITEXACT}
    x264 = {"x264-params": X264_DETERMINISTIC, "threads": str(options.threads)}
    return {
        "vcodec": options.encoder,
        quality: str(options.crf),
        "g": str(options.segment_frames(rate)),
        "pix_fmt": "yuv420p",
        "colorspace": "bt709",
        "color_primaries": "bt709",
        "color_trc": "bt709",
        "color_range": "tv",
        "chroma_sample_location": "left",
        "metadata": f"comment={comment}",
        **muxer,
        **(x264 if options.encoder == "libx264" else {}),
    }
