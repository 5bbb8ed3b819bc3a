"""`pavdm evaluate`: metrics of any video over time, and paired comparisons of two sets of videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pavdm_cli.commands import common, options
from pavdm_cli.errors import InputError, OutputError, PavdmError, UsageError

if TYPE_CHECKING:
    from pavdm_cli.evaluation.measure import Measurement
    from pavdm_cli.evaluation.results import ResultsFile
    from pavdm_cli.video import VideoInfo

DEFAULT = "videos"
KINDS = (".mp4", ".mkv", ".webm", ".mov", ".gif", ".avi", ".m4v", ".ts")
MOST_COLUMNS = 3  # videos that stand side by side in the table
COLUMNS = ("scenes", "joint_ratio", "largest_jump", "dynamics", "frozen", "flicker", "shake", "min_color_similarity")


class DefaultCommand(common.Group):
    """A group whose first word may be left out: then it is `videos`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual, with the default command's name in front where no command is named."""
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


app = common.App(cls=DefaultCommand, help="Measure the quality of videos over time, without downloads.")

Paths = Annotated[list[Path], typer.Argument(metavar="VIDEOS...", help="Video files, or folders of them.")]
Reference = Annotated[
    list[Path] | None,
    typer.Option(help="A real video, or a folder of them: metrics also as z-scores. Repeatable; three or more videos."),
]
ChunkFrames = Annotated[
    int | None,
    typer.Option(min=2, max=10_000, help="Frames per chunk, for the joint ratio; default: the file's metadata."),
]
Flow = Annotated[
    bool, typer.Option("--flow", help="Also dynamic degree and unpredicted change, by optical flow: much slower.")
]
Plot = Annotated[Path | None, typer.Option(help="Write the metrics over time as FILE.png, .svg or .html.")]
Out = Annotated[
    Path | None, typer.Option(help="Keep measurements in this .jsonl file; what it has already is not measured again.")
]
Export = Annotated[
    tuple[str, str],
    typer.Option(metavar="vbench-long DIR", help="Write the videos in VBench-Long's layout, to be scored elsewhere."),
]
NO_EXPORT = ("", "")


@app.callback()
def root() -> None:
    """Measure the quality of videos over time, without downloads.

    `pavdm evaluate VIDEOS...` measures them; `pavdm evaluate compare A/ B/` compares two sets.
    """


@app.command(DEFAULT)
def videos(
    paths: Paths,
    reference: Reference = None,
    chunk_frames: ChunkFrames = None,
    flow: Flow = False,
    plot: Plot = None,
    out: Out = None,
    export: Export = NO_EXPORT,
    as_json: options.Json = False,
) -> None:
    """Scene changes, jumps at chunk borders, dynamics, flicker, shake, drift of brightness, contrast, noise and more.

    Every metric is also averaged over clips of two seconds. Real videos of the same length tell what is ordinary.
    """
    from pavdm_cli import ui
    from pavdm_cli.evaluation.comparison import z_scores
    from pavdm_cli.evaluation.plot import write_plot

    check_installed()
    _check_plot(plot)
    files, references = find_videos(paths), find_videos(reference or [])
    if export != NO_EXPORT:
        _export(files, export[0], Path(export[1]))
        return
    measured = measure_all([*files, *references], chunk_frames, flow, out)
    results, real = measured[: len(files)], [one.metrics for one in measured[len(files) :]]
    scores = [z_scores(one.metrics, real) if real else {} for one in results]
    rows = table(results, scores)
    if plot:
        write_plot(plot, results, rows)
    if as_json:
        for one, z in zip(results, scores, strict=True):
            print(json.dumps(one.to_json() | ({"z_scores": z} if z else {})))
    else:
        ui.show_table("", rows[0], rows[1:])
    if plot and not as_json:
        print(plot)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A folder of videos.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="A folder of the same prompts and seeds, or file names.")],
    chunk_frames: ChunkFrames = None,
    flow: Flow = False,
    out: Out = None,
    as_json: options.Json = False,
) -> None:
    """Compare videos paired by prompt and seed: mean difference, 95 % bootstrap interval, corrected sign test."""
    from pavdm_cli import ui
    from pavdm_cli.evaluation import comparison

    check_installed()
    pairs = pair(find_videos([a]), find_videos([b]))
    measured = measure_all([path for pair in pairs for path in pair], chunk_frames, flow, out)
    results = comparison.compare([one.metrics for one in measured[::2]], [one.metrics for one in measured[1::2]])
    if as_json:
        print(json.dumps({"pairs": len(pairs), "metrics": [one.to_json() for one in results]}))
        return
    rows = [
        (
            *(one.metric, number(one.mean_a), number(one.mean_b)),
            *(f"{number(one.low)} to {number(one.high)}", f"{one.p_value:.3g}", one.result),
        )
        for one in results
    ]
    ui.show_table(f"{len(pairs)} pairs", ("metric", "A", "B", "B - A, 95 %", "p (Holm)", "result"), rows)


def check_installed() -> None:
    """Refuse to begin without the packages of the extra `eval`. Raises: PavdmError."""
    from importlib.util import find_spec

    from pavdm_cli.runtime.install_hints import install_command

    modules = {"scenedetect-headless": "scenedetect", "opencv-python-headless": "cv2", "matplotlib": "matplotlib"}
    if missing := [package for package, module in modules.items() if find_spec(module) is None]:
        raise PavdmError(f"evaluate needs {', '.join(missing)}", install_command("eval"))


def _check_plot(plot: Path | None) -> None:
    from pavdm_cli.evaluation.plot import SUFFIXES

    if plot is None:
        return
    if plot.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot must end in {', '.join(SUFFIXES)}, got {plot.name!r}", "for example --plot drift.png")
    if plot.is_dir() or not plot.absolute().parent.is_dir():
        raise OutputError(f"cannot write {plot}", "its folder must exist")


def find_videos(paths: Sequence[Path]) -> list[Path]:
    """The files, and those in the folders in order of their names. Raises: InputError."""
    found = []
    for path in paths:
        inside = [one for one in sorted(path.iterdir()) if one.suffix.lower() in KINDS] if path.is_dir() else [path]
        if not inside:
            raise InputError(f"no video in {path}", f"it has no file that ends in {', '.join(KINDS)}")
        found += inside
    return found


def measure_all(paths: Sequence[Path], chunk_frames: int | None, flow: bool, out: Path | None) -> list[Measurement]:
    """The measurement of each video, under one progress bar. Raises: InputError, OutputError."""
    from pavdm_cli import ui
    from pavdm_cli.evaluation.results import ResultsFile
    from pavdm_cli.video import open_video

    opened = [open_video(path) for path in paths]
    results = ResultsFile(out)
    with ui.progress("measuring", sum(video.frames for video in opened), waiting=True) as advance:
        advance(0)
        return [_measure(video, chunk_frames, flow, results, advance) for video in opened]


def _measure(video: VideoInfo, chunk_frames: int | None, flow: bool, results: ResultsFile, advance: Any) -> Measurement:
    from pavdm_cli.evaluation.measure import measure

    frames = chunk_frames or stored_chunk_frames(video.path)
    settings = {"chunk_frames": frames, "flow": flow}
    if stored := results.find(video.path, settings):
        advance(video.frames, video.path.name)
        return replace(stored, path=str(video.path))
    one = measure(video, chunk_frames=frames, flow=flow, advance=lambda count: advance(count, video.path.name))
    results.add(video.path, settings, one)
    return one


def stored_chunk_frames(path: Path) -> int | None:
    """Frames per chunk of a video that pavdm generated, by its metadata; None for others and for continuations.

    With rn and rw a whole window leaves at a time.
    """
    from pavdm_cli.generation.metadata import sound_fields
    from pavdm_cli.models.registry import find
    from pavdm_cli.video import read_metadata

    try:
        metadata, _ = sound_fields(read_metadata(path) or {})
        if "source" in metadata or "image" in metadata:
            return None
        model = find(metadata["model"])
        layout = model.layout(model.spec.size, model.spec.fps)
        chunk = metadata["window" if metadata["method"] in ("rn", "rw") else "chunk"]
        frames = chunk * layout.frames_per_latent
        return int(frames) if frames.denominator == 1 and frames > 1 else None
    except (KeyError, PavdmError):
        return None


def pair(a: Sequence[Path], b: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Videos of the same prompt and seed, else of the same name. Raises: InputError where none or several fit."""
    sides = [{pairing_key(path): path for path in side} for side in (a, b)]
    if any(len(keyed) < len(side) for keyed, side in zip(sides, (a, b), strict=True)):
        raise InputError("two videos on one side have the same prompt and seed", "leave one of them out")
    shared = [key for key in sides[0] if key in sides[1]]
    if len(shared) < 2:
        hint = "files are paired by stored prompt and seed, else by name; at least two pairs are needed"
        raise InputError(f"{len(shared)} of {len(a)} and {len(b)} videos can be paired", hint)
    return [(sides[0][key], sides[1][key]) for key in shared]


def pairing_key(path: Path) -> tuple[object, ...]:
    """Prompt and seed of a video that pavdm generated, else its name."""
    from pavdm_cli.video import read_metadata

    try:
        metadata = read_metadata(path) or {}
    except InputError:
        metadata = {}
    prompt, seed = metadata.get("prompt"), metadata.get("seed")
    return (prompt, seed) if isinstance(prompt, str) and isinstance(seed, int) else (path.stem,)


def table(results: Sequence[Measurement], scores: Sequence[dict[str, float | None]]) -> list[tuple[str, ...]]:
    """A head and rows: metrics below each other for a few videos, videos below each other for many."""
    names = list(dict.fromkeys(name for one in results for name in one.metrics))
    if len(results) <= MOST_COLUMNS:
        head = ("metric", *(Path(one.path).name for one in results))
        return [head, *((name, *map(_cell(name), results, scores)) for name in names)]
    shown = [name for name in names if name in COLUMNS or name.startswith("drift_")]
    head = ("video", *(name.replace("_", " ") for name in shown))
    pairs = zip(results, scores, strict=True)
    return [head, *((Path(one.path).name, *(_cell(name)(one, z) for name in shown)) for one, z in pairs)]


def _cell(name: str) -> Any:
    def cell(one: Measurement, scores: dict[str, float | None]) -> str:
        score = scores.get(name)
        return number(one.metrics.get(name)) + ("" if score is None else f" (z {score:+.1f})")

    return cell


def number(value: float | None) -> str:
    """A figure as people read it."""
    return "-" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _export(files: Sequence[Path], kind: str, folder: Path) -> None:
    from pavdm_cli import ui
    from pavdm_cli.evaluation import vbench_export
    from pavdm_cli.runtime.printable import quote
    from pavdm_cli.video import open_video

    if kind != "vbench-long":
        raise UsageError(f"--export must be vbench-long, got {kind!r}", "for example --export vbench-long clips/")
    vbench_export.check_export(folder, files)
    opened = [open_video(path) for path in files]
    with ui.progress("exporting", sum(video.frames for video in opened)) as advance:
        for video in opened:
            vbench_export.export(video, folder, advance)
    ui.note(f"in a checkout of VBench: {' '.join(quote(word) for word in vbench_export.command(folder))}")
    print(folder)
