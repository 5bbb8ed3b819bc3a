"""Frames to a video file that plays while it grows, encoded beside the model and named only when whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import av

from pavdm_cli.errors import OutputError, PavdmError
from pavdm_cli.runtime.counting import counted
from pavdm_cli.runtime.diagnose import write_advice
from pavdm_cli.video.metadata import Metadata, to_comment
from pavdm_cli.video.upscale import Upscaler
from pavdm_cli.video.write.encode import Encoder, EncoderOptions, Frame, GifEncoder, PyAVEncoder, Track
from pavdm_cli.video.write.executor import SerialExecutor
from pavdm_cli.video.write.external import ExternalEncoder, find_ffmpeg
from pavdm_cli.video.write.output import partial_path
from pavdm_cli.video.write.partial import PartialFile

AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)


class BaseWriter(Generic[AnyEncoder]):
    """A file in the making: NAME.partial.EXT takes its name when whole; an interrupt keeps it, closed and playable.

    Raises: OutputError, also for what went wrong in the encoder's thread since the last call.
    """

    def __init__(
        self, path: str | os.PathLike[str], open_encoder: Callable[[Path], AnyEncoder], force: bool = False
    ) -> None:
        """force: the finished file replaces one that has its name."""
        self.path, self.force = Path(path), force
        self.partial = partial_path(self.path)
        self.kept: Path | None = None
        self.frames = 0
        self._closed = False
        try:
            self._file = PartialFile(self.partial)
        except OSError as error:
            raise self._error(error) from None
        try:
            self.encoder = open_encoder(self.partial)
        except BaseException as error:
            self._file.remove()
            self._file.close()
            if isinstance(error, (OSError, av.FFmpegError)):
                raise self._error(error) from None
            raise
        self._background = SerialExecutor()

    def put(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append a frame (H, W, 3), or a picture as decoded, that is shown from `time`, in the track's ticks."""
        own = frame if isinstance(frame, av.VideoFrame) else frame.copy()
        self.run(partial(self.encoder.encode, own, time))
        self.frames += 1

    def run(self, call: Callable[[], None]) -> None:
        """Run a call on the encoder after all that was put before it."""
        with self._as_output_error():
            self._background.submit(call)

    def flush(self) -> None:
        """Wait until the encoder has taken every frame."""
        with self._as_output_error():
            self._background.flush()

    def check(self) -> None:
        """Notice that another program deleted, replaced or cut the growing file. Raises: OutputError."""
        self._file.check(counted(self.frames, "frame"))

    def finish(self) -> Path:
        """Close the file and give it its name.

        Raises: OutputError, also where another file has taken the name: the video then has a numbered one.
        """
        assert self.frames, "a video has a frame at least"
        with self._as_output_error():
            self._background.join()
            self._close()
            self.check()
            name = self._file.publish(self.path, self.force)
        self._file.close()
        if name != self.path:
            taken = f"{self.path} appeared while the video was made, and stays as it is"
            raise OutputError(taken, f"the whole video is {name}; --force replaces what has its name")
        return self.path

    def close_partial(self) -> Path | None:
        """Close the file so that it plays, under its partial name; None, and no file, if no frame of it does."""
        self._stop()
        with suppress(OSError):  # what cannot be read is left alone
            if self._worth_keeping() and self._file.plays():
                self.kept = self.partial
            else:
                self._file.remove()
        self._file.close()
        return self.kept

    def _worth_keeping(self) -> bool:
        """Whether what is written would cost time to make again."""
        return self.frames > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.close_partial()
        elif not self._closed:
            self._finish_or_keep()

    def _finish_or_keep(self) -> None:
        try:
            self.finish()
        except BaseException:
            self.close_partial()
            raise

    def _stop(self) -> None:
        if not self._worth_keeping() and not self._closed:  # of a 4K copy the encoder holds a minute of work
            self._closed = True
            self._background.cancel()
            with suppress(OSError, av.FFmpegError):
                self.encoder.abandon()
        with suppress(OSError, av.FFmpegError, PavdmError):  # a full disk fails here a second time
            self._background.join()
        with suppress(OSError, av.FFmpegError, PavdmError):
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self.encoder.close()

    @contextmanager
    def _as_output_error(self) -> Iterator[None]:
        """Close the file where it cannot be written, and say what is left of it."""
        try:
            yield
        except (OSError, av.FFmpegError, OutputError) as error:
            raise self._error(error, self.close_partial()) from None

    def _error(self, error: Exception, kept: Path | None = None) -> OutputError:
        if isinstance(error, OutputError):
            message, advice = error.message, error.hint
        else:
            message = f"cannot write {self.path}: {getattr(error, 'strerror', None) or error}"
            advice = write_advice(error) if isinstance(error, OSError) else ""
        left = f"what was written plays: {kept}" if kept else "" if advice else "choose another folder with -o"
        return OutputError(message, "; ".join(filter(None, (advice, left))))


class VideoWriter(BaseWriter[Encoder]):
    """Writes frames of one size at a constant rate to MP4, Matroska, WebM or GIF, by the suffix of `path`.

    The encoding may enlarge them first.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        rate: Fraction | int,
        metadata: Metadata | None = None,
        encoding: EncoderOptions | None = None,
        force: bool = False,
    ) -> None:
        encoding, self.shape = encoding or EncoderOptions(), (height, width, 3)
        height, width = encoding.scale.size((height, width))
        self.track = Track(width, height, Fraction(rate))
        make = partial(open_enlarged, self.track, encoding, to_comment(metadata))
        super().__init__(path, make, force)

    def write(self, frames: Iterable[Frame]) -> None:
        """Append frames (T, H, W, 3), or any iterable of (H, W, 3), uint8 RGB of the size given."""
        for frame in frames:
            assert frame.shape == self.shape, f"{frame.shape} is not {self.shape}"
            self.put(frame, self.frames)


@dataclass(frozen=True, slots=True)
class UpscalingEncoder:
    """An encoder that enlarges frames before it hands them on."""

    encoder: Encoder
    enlarge: Upscaler

    def encode(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Append a frame of the model's size."""
        assert not isinstance(frame, av.VideoFrame)
        self.encoder.encode(self.enlarge(frame), time)

    def close(self) -> None:
        """Close the file."""
        self.encoder.close()

    def abandon(self) -> None:
        """Close the file without its last frames."""
        self.encoder.abandon()


def open_enlarged(track: Track, encoding: EncoderOptions, comment: str, path: Path) -> Encoder:
    """The encoder for the suffix, of frames that are enlarged to the track's size where the encoding says so."""
    encoder = open_encoder(track, encoding, comment, path)
    return UpscalingEncoder(encoder, Upscaler(encoding.scale)) if encoding.scale.factor > 1 else encoder


def open_encoder(track: Track, encoding: EncoderOptions, comment: str, path: Path) -> Encoder:
    """The encoder for the suffix: external for GIF where there is an ffmpeg, and for an encoder asked for by name."""
    if encoding.encoder:
        return ExternalEncoder(path, track, encoding, comment)
    if path.suffix.lower() != ".gif":
        return PyAVEncoder(path, track, encoding, comment)
    if find_ffmpeg(encoding.ffmpeg):
        return ExternalEncoder(path, track, encoding, comment)
    return GifEncoder(path, track, comment)
