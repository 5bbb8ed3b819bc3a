"""Write frames to a video file that plays while it grows; the complete file is made of it and gets its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import av

from pavdm_cli.errors import OutputError, PavdmError
from pavdm_cli.runtime.diagnose import write_hint
from pavdm_cli.runtime.durable import TEMPORARY
from pavdm_cli.runtime.printable import command_line, pluralize
from pavdm_cli.video.frame import Frame
from pavdm_cli.video.metadata import Metadata, to_comment
from pavdm_cli.video.paths import checkpoint_path, latents_path, partial_path
from pavdm_cli.video.upscale import Upscaler
from pavdm_cli.video.write.encode import Encoder, EncoderOptions, EncoderState, VideoParams
from pavdm_cli.video.write.executor import SerialExecutor
from pavdm_cli.video.write.external import ExternalEncoder, find_ffmpeg
from pavdm_cli.video.write.gif import GifEncoder
from pavdm_cli.video.write.partial import PartialFile
from pavdm_cli.video.write.segmented import SegmentedEncoder
from pavdm_cli.video.write.upscaling import UpscalingEncoder

AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)


class BaseWriter(Generic[AnyEncoder]):
    """Writes NAME.partial.EXT, encoding on a background thread, and makes the complete file of it at the end.

    An interruption leaves the partial file closed and playable, and the last checkpoint as it is. Raises:
    OutputError, also for errors of the encoder's thread since the last call.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        open_encoder: Callable[[Path], AnyEncoder],
        force: bool = False,
        resume: EncoderState | None = None,
    ) -> None:
        """force: the complete file replaces an existing one; resume: state of an interrupted run to continue."""
        self.path, self.force = Path(path), force
        self.partial = partial_path(self.path)
        self.checkpoint, self.latents = checkpoint_path(self.partial), latents_path(self.partial)
        self.saved_partial: Path | None = None  # what an interruption left
        self.frames = self.durable_frames = resume.written if resume else 0  # the latter are in a checkpoint
        self._closed = False
        try:
            _separate(self.partial, self.path)
            self._file = PartialFile(self.partial)
            if not (resume and resume.size):
                self._file.clear()
            if not resume:
                self._remove_checkpoint()
        except OSError as error:
            raise self._to_output_error(error) from None
        try:
            self.encoder = open_encoder(self.partial)
        except BaseException as error:
            if not resume:
                self._file.remove()
            self._file.close()
            if isinstance(error, (OSError, av.FFmpegError)):
                raise self._to_output_error(error) from None
            raise
        self._executor = SerialExecutor()

    def append(self, frame: Frame | av.VideoFrame, time: int) -> None:
        """Queue an RGB frame (H, W, 3) or a decoded frame, which must not change later, and its timestamp in ticks."""
        self.submit(partial(self.encoder.encode, frame, time))
        self.frames += 1

    def end_chunk(self, force: bool = False) -> None:
        """A segment of the file may end after the frames appended so far, or with `force` must."""
        self.submit(partial(self.encoder.end_chunk, force))

    def submit(self, call: Callable[[], None]) -> None:
        """Run a call on the encoder's thread, after everything queued so far."""
        with self._as_output_error():
            self._executor.submit(call)

    def commit(self, write: Callable[[EncoderState], None]) -> None:
        """Queue a checkpoint: `write` is given the encoder's state with all frames appended so far, and stores it."""
        self.submit(partial(self._commit, write, self.frames))

    def _commit(self, write: Callable[[EncoderState], None], frames: int) -> None:
        write(self.encoder.state())
        self.durable_frames = frames

    def flush(self) -> None:
        """Wait until the encoder has received every frame."""
        with self._as_output_error():
            self._executor.flush()

    def check(self) -> None:
        """Detect that another program deleted, replaced or truncated the growing file. Raises: OutputError."""
        self._file.check(pluralize(self.frames, "frame"))

    def finish(self, keep_checkpoint: bool = False) -> Path:
        """Close the file, make the complete one of it and delete it, with its checkpoint unless that is kept.

        Raises: OutputError, also if another file has taken the name meanwhile: the video then gets a numbered one.
        """
        assert self.frames, "a video has at least one frame"
        with self._as_output_error():
            self._executor.join()
            self._close_encoder()
            self.check()
            name = self._file.publish(self._finalize(), self.path, self.force)
            self._file.remove()
            if not keep_checkpoint:
                self._remove_checkpoint()
        self._file.close()
        if name != self.path:
            message = f"{self.path} appeared during the run and was not replaced"
            raise OutputError(message, f"the complete video is {name}; use --force to replace existing files")
        return self.path

    def replace_metadata(self, metadata: Metadata) -> None:
        """Give the complete file other metadata than the growing one."""
        self.encoder.comment = to_comment(metadata)

    def _finalize(self) -> Path:
        """The complete file, under a temporary name."""
        return self.encoder.finalize()

    def close_partial(self) -> Path | None:
        """Close the file under its partial name; if no frame of it can be played, delete it and return None.

        A file with a valid checkpoint is never deleted: its first frames may be in the checkpoint.
        """
        self._stop()
        with suppress(OSError):  # a file that cannot be read is left alone
            if self._is_worth_saving() and self._file.is_playable():
                self.saved_partial = self.partial
            elif not self._file.is_intact() and self.encoder.continuable:
                self._remove_checkpoint()
            elif not self.checkpoint.exists():
                self._file.remove()
        self._file.close()
        return self.saved_partial

    def _remove_checkpoint(self) -> None:
        temporary = self.checkpoint.with_name(self.checkpoint.name + TEMPORARY)
        for path in (self.latents, temporary, self.checkpoint):
            path.unlink(missing_ok=True)

    @property
    def resume_command(self) -> str:
        """The command that continues an interrupted video; empty if there is no checkpoint."""
        return command_line(("pavdm", "resume"), str(self.path)) if self.checkpoint.exists() else ""

    def _is_worth_saving(self) -> bool:
        """Whether what is written would take time to generate again."""
        return self.frames > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.close_partial()
        elif not self._closed:
            self._finish_or_save()

    def _finish_or_save(self) -> None:
        try:
            self.finish()
        except BaseException:
            self.close_partial()
            raise

    def _stop(self) -> None:
        if not self._is_worth_saving() and not self._closed:  # the queue of a 4K copy can hold a minute of encoding
            self._closed = True
            self._executor.cancel()
            with suppress(OSError, av.FFmpegError):
                self.encoder.abort()
        with suppress(OSError, av.FFmpegError, PavdmError):  # a full disk fails here a second time
            self._executor.join()
        with suppress(OSError, av.FFmpegError, PavdmError):
            self._close_encoder()

    def _close_encoder(self) -> None:
        if not self._closed:
            self._closed = True
            self.encoder.close()

    @contextmanager
    def _as_output_error(self) -> Iterator[None]:
        """Close a file that cannot be written, and report what is left of it."""
        try:
            yield
        except (OSError, av.FFmpegError, OutputError) as error:
            saved_path = self.close_partial()
            raise self._to_output_error(error, saved_path, self.resume_command) from None

    def _to_output_error(self, error: Exception, saved_path: Path | None = None, command: str = "") -> OutputError:
        if isinstance(error, OutputError):
            message, advice = error.message, error.hint
        else:
            message = f"cannot write {self.path}: {getattr(error, 'strerror', None) or error}"
            advice = write_hint(error) if isinstance(error, OSError) else ""
        file_hint = (
            f"playable so far: {saved_path}" if saved_path else "" if advice else "choose another folder with -o"
        )
        resume = f"`{command}` continues it" if command else ""
        return OutputError(message, "; ".join(filter(None, (advice, file_hint, resume))))


class VideoWriter(BaseWriter[Encoder]):
    """Writes frames of one size at a constant rate to MP4, Matroska, WebM or GIF, by the suffix of `path`.

    `width` and `height` are those of the frames; the options may upscale them.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        rate: Fraction | int,
        metadata: Metadata | None = None,
        options: EncoderOptions | None = None,
        force: bool = False,
    ) -> None:
        options, self.shape = options or EncoderOptions(), (height, width, 3)
        height, width = options.scale.size((height, width))
        self.params = VideoParams(width, height, Fraction(rate))
        open_encoder = partial(_open_encoder, self.params, options, to_comment(metadata))
        super().__init__(path, open_encoder, force, options.resume)

    def write(self, frames: Iterable[Frame]) -> None:
        """Append a chunk of frames (T, H, W, 3), or any iterable of (H, W, 3), uint8 RGB."""
        for frame in frames:
            assert frame.shape == self.shape, f"{frame.shape} is not {self.shape}"
            self.append(frame.copy(), self.frames)
        self.end_chunk()


def _separate(partial: Path, path: Path) -> None:
    """Remove a partial file that is the complete one under a second name, which a kill left. Raises: OSError."""
    if partial.exists() and path.exists() and partial.samefile(path):
        partial.unlink()


def _open_encoder(params: VideoParams, options: EncoderOptions, comment: str, path: Path) -> Encoder:
    """An external ffmpeg if options name an encoder, and for GIF if there is one; otherwise PyAV."""
    gif = path.suffix.lower() == ".gif"
    encoder: Encoder
    if options.encoder or (gif and find_ffmpeg(options.ffmpeg)):
        encoder = ExternalEncoder(path, params, options, comment)
    elif gif:
        encoder = GifEncoder(path, params, comment)
    else:
        encoder = SegmentedEncoder(path, params, options, comment)
    return UpscalingEncoder(encoder, Upscaler(options.scale)) if options.scale.factor > 1 else encoder
