"""Write frames to standard output as they are generated. Nothing is stored, so it cannot be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from pavdm_cli.errors import OutputError
from pavdm_cli.generation import image_start
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import Rendered
from pavdm_cli.generation.memory_plan import told
from pavdm_cli.generation.pipeline import graphs_of, rendered
from pavdm_cli.generation.recovery import Recovery
from pavdm_cli.generation.request import Output
from pavdm_cli.generation.write import Made, Watch, encoding_of, new_metadata
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.runtime.diagnose import write_hint
from pavdm_cli.video import StillImage
from pavdm_cli.video.write.stream import StreamWriter

STDOUT = 1  # file descriptor


def stream(
    config: GenerationConfig, model: ModelRunner, output: Output, watch: Watch, still: StillImage | None = None
) -> Made:
    """Sample, decode and write a video to standard output. Raises: OutputError if the reader closes the pipe early."""
    assert output.path
    recovery, metadata = Recovery(model), new_metadata(config, model, output, still)
    kind, encoding, whole = output.stream_format or "mp4", encoding_of(config, output), False
    writer = StreamWriter(STDOUT, kind, config.spec.size, config.spec.fps, metadata, encoding)
    try:
        chunks = _chunks(config, model, still, recovery, watch)
        with told(config), suppress(KeyboardInterrupt), watch.interruptible():
            whole = _write(chunks, writer, config.frames, watch)
    except BrokenPipeError:
        if not (config.endless or watch.stopped()):
            message = f"the reader closed standard output after {writer.frames / config.spec.fps:.1f} s of video"
            raise OutputError(message, "use --seconds forever for a video that ends when its reader does") from None
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}", write_hint(error)) from None
    stopped = config.endless and (watch.stopped_by_user() or not watch.stopped())
    return Made(output.path, writer.frames, whole or stopped, metadata, tuple(recovery.notes), stopped=stopped)


def _write(chunks: Iterator[Rendered], writer: StreamWriter, total: int, watch: Watch) -> bool:
    """Write all chunks; returns False if stopped early. Raises: OSError."""
    for chunk in chunks:
        writer.write(chunk.frames)
        watch.advance(len(chunk.frames))
        if watch.stopped() and writer.frames < total:
            break
    writer.finish()
    return writer.frames >= total


def _chunks(
    config: GenerationConfig, model: ModelRunner, still: StillImage | None, recovery: Recovery, watch: Watch
) -> Iterator[Rendered]:
    graphs = graphs_of(config, model)
    if still:
        return image_start.rendered_from(config, model, still, graphs, recovery)
    warmed_up = partial(watch.warmed_up, int(config.frames_per_chunk))
    return rendered(config, model, graphs=graphs, recovery=recovery, on_warmup=warmed_up)
