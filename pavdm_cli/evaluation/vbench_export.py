"""Videos in the folder layout of VBench-Long, which has to be installed and run elsewhere.

VBench-Long reads DIR/NAME.mp4 and, with --mode long_custom_input, two-second clips from DIR/split_clip/NAME/. Source:
github.com/Vchitect/VBench, vbench2_beta_long.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pavdm_cli.errors import OutputError, UsageError
from pavdm_cli.evaluation.measure import CLIP_SECONDS
from pavdm_cli.video import EncoderOptions, Frame, FrameReader, VideoInfo, VideoWriter

DIMENSIONS = (
    *("subject_consistency", "background_consistency", "motion_smoothness", "dynamic_degree"),
    *("aesthetic_quality", "imaging_quality"),
)
CRF = 10  # visually lossless


def check_export(folder: Path, videos: Sequence[Path]) -> None:
    """Reject a folder that is not empty, and videos with the same name. Raises: OutputError, UsageError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists and is not an empty folder", "name a new one")
    names = [video.stem for video in videos]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two videos are called {duplicates[0]}", "VBench-Long tells videos apart by name: rename one")


def export(video: VideoInfo, folder: Path, on_progress: Callable[[int], object]) -> None:
    """Write one video and its two-second clips. Raises: InputError, OutputError."""
    name, clips = video.path.stem, folder / "split_clip" / video.path.stem
    clips.mkdir(parents=True, exist_ok=True)
    length = max(1, round(CLIP_SECONDS * float(video.rate)))
    with ExitStack() as stack:
        full_writer = None
        if video.path.suffix.lower() == ".mp4":
            shutil.copyfile(video.path, folder / f"{name}.mp4")
        else:
            full_writer = stack.enter_context(_writer(folder / f"{name}.mp4", video))
        for number, clip in enumerate(_split_clips(video, length)):
            with _writer(clips / f"{name}_{number:03d}.mp4", video) as writer:
                for frame in clip:
                    for target in (writer, full_writer):
                        if target is not None:
                            target.write([frame])
                    on_progress(1)
                writer.finish()
        if full_writer is not None:
            full_writer.finish()


def command(folder: Path) -> list[str]:
    """The command that computes VBench-Long's scores of the folder, in a checkout of VBench."""
    return [
        *("python", "vbench2_beta_long/eval_long.py", "--videos_path", str(folder.absolute())),
        *("--mode", "long_custom_input", "--dev_flag", "--dimension", *DIMENSIONS),
    ]


def _writer(path: Path, video: VideoInfo) -> VideoWriter:
    return VideoWriter(path, video.width, video.height, video.rate, None, EncoderOptions(crf=CRF))


def _split_clips(video: VideoInfo, length: int) -> Iterator[Iterator[Frame]]:
    """Clips of `length` frames; a shorter remainder belongs to the last one."""
    stream, clips = (frame for frame, _ in FrameReader(video)), max(1, video.frames // length)
    for number in range(clips):
        count = length if number < clips - 1 else None
        yield _take(stream, count)


def _take(stream: Iterator[Frame], count: int | None) -> Iterator[Frame]:
    """The next `count` frames, or all that are left."""
    if count is None:
        yield from stream
        return
    for _ in range(count):
        frame = next(stream, None)
        if frame is None:
            return
        yield frame
