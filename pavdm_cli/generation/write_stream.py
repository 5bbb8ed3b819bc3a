"""Write frames to standard output as they are generated. Nothing is stored, so it cannot be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from pavdm_cli.errors import OutputError
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import RenderedChunk
from pavdm_cli.generation.device_errors import report_device_errors
from pavdm_cli.generation.pipeline import choose_graph_capturer
from pavdm_cli.generation.recovery import Recovery
from pavdm_cli.generation.request import Output
from pavdm_cli.generation.write import RunControl, WriteResult, build_metadata, chunks_from_start, encoder_options
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.runtime.diagnose import write_hint
from pavdm_cli.video import StillImage
from pavdm_cli.video.write.stream import StreamWriter

STDOUT_FD = 1  # file descriptor


def write_stream(
    config: GenerationConfig, model: ModelRunner, output: Output, control: RunControl, still: StillImage | None = None
) -> WriteResult:
    """Sample, decode and write a video to standard output. Raises: OutputError if the reader closes the pipe early."""
    assert output.path
    recovery, metadata = Recovery(model), build_metadata(config, model, output, still)
    stream_format, encoding, is_complete = output.stream_format or "mp4", encoder_options(config, output), False
    writer = StreamWriter(STDOUT_FD, stream_format, config.spec.size, config.spec.fps, metadata, encoding)
    try:
        graph_capturer = choose_graph_capturer(config, model)
        chunks = chunks_from_start(config, model, still, graph_capturer, recovery, control)
        with report_device_errors(config), suppress(KeyboardInterrupt), control.interruptible():
            is_complete = _write(chunks, writer, config.frames, control)
    except BrokenPipeError:
        if not (config.endless or control.should_stop()):
            message = f"the reader closed standard output after {writer.frames / config.spec.fps:.1f} s of video"
            raise OutputError(message, "use --seconds forever for a video that ends when its reader does") from None
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}", write_hint(error)) from None
    was_stopped = config.endless and (control.stopped_by_user() or not control.should_stop())
    return WriteResult(
        output.path, writer.frames, is_complete or was_stopped, metadata, tuple(recovery.notes), was_stopped=was_stopped
    )


def _write(chunks: Iterator[RenderedChunk], writer: StreamWriter, total: int, control: RunControl) -> bool:
    """Write all chunks; returns False if stopped early. Raises: OSError."""
    for chunk in chunks:
        writer.write(chunk.frames)
        control.on_frames(len(chunk.frames))
        if control.should_stop() and writer.frames < total:
            break
    writer.finish()
    return writer.frames >= total
