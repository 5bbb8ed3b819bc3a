"""`pavdm evaluate`: metrics of any video over time, and paired comparisons of two sets of videos."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pavdm_cli.commands import common, output_options
from pavdm_cli.commands.default_command import DefaultGroup
from pavdm_cli.errors import OutputError, PavdmError, UsageError

if TYPE_CHECKING:
    from pavdm_cli.evaluation.files import MeasureOptions
    from pavdm_cli.evaluation.measure import Measurement
    from pavdm_cli.evaluation.set_distances import SetDistances

DEFAULT = "videos"
MAX_COLUMNS = 3  # videos that stand side by side in the table
COLUMNS = ("scenes", "boundary_ratio", "largest_jump", "dynamics", "frozen", "flicker", "shake", "min_color_similarity")
WORLD_COLUMNS = ("adherence_object", "adherence_color", "one_object", "object_survival", "color_error", "speed_error")


class EvaluateGroup(DefaultGroup):
    """`pavdm evaluate VIDEOS...`, and `pavdm evaluate compare`."""

    default_command = DEFAULT


app = common.App(cls=EvaluateGroup, help="Measure video quality over time with metrics that need no downloaded models.")

Paths = Annotated[list[Path], typer.Argument(metavar="VIDEOS", help="Video files, or folders of them.")]
Reference = Annotated[
    list[Path] | None,
    typer.Option(
        help="A real video or folder of videos to compare with: distances between the sets, and z-scores if there are "
        "at least three. Repeatable."
    ),
]
ChunkFrames = Annotated[
    int | None,
    typer.Option(min=2, max=10_000, help="Frames per chunk, for the boundary ratio; default: the file's metadata."),
]
Flow = Annotated[
    bool,
    typer.Option("--flow", help="Also measure dynamic degree and unpredicted change with optical flow (much slower)."),
]
Plot = Annotated[Path | None, typer.Option(help="Write the metrics over time as FILE.png, .svg or .html.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Store measurements in this .jsonl file, and reuse those already in it."),
]
Export = Annotated[
    tuple[str, str],
    typer.Option(metavar="vbench-long DIR", help="Export the videos in VBench-Long's layout, for scoring with VBench."),
]
NO_EXPORT = ("", "")


@app.callback()
def root() -> None:
    """Measure video quality over time with metrics that need no downloaded models."""


@app.command(DEFAULT)
def videos(
    paths: Paths,
    reference: Reference = None,
    chunk_frames: ChunkFrames = None,
    flow: Flow = False,
    plot: Plot = None,
    output: Output = None,
    export: Export = NO_EXPORT,
    as_json: output_options.Json = False,
) -> None:
    """Measure scene changes, jumps at chunk boundaries, dynamics, flicker, camera shake, brightness drift and more.

    `pavdm evaluate boat.mp4` measures a video, `pavdm evaluate videos/` all videos in a folder, and `pavdm evaluate
    compare A/ B/` compares two sets. Every metric is also averaged over clips of two seconds. Use real videos of the
    same length with --reference for comparison. Videos of the bundled model are also compared with what their prompts
    say.
    """
    from pavdm_cli import ui
    from pavdm_cli.evaluation.comparison import z_scores
    from pavdm_cli.evaluation.files import MeasureOptions, find_videos
    from pavdm_cli.evaluation.plot import write_plot

    check_installed()
    _check_plot(plot)
    files, references = find_videos(paths), find_videos(reference or [])
    if export != NO_EXPORT:
        _check_export_only(
            {"--reference": reference, "--flow": flow, "--plot": plot, "--output": output, "--json": as_json}
        )
        _export(files, export[0], Path(export[1]))
        return
    measurements = measure_all(
        [*files, *references], MeasureOptions(chunk_frames, flow, features=bool(references)), output
    )
    results, real = measurements[: len(files)], measurements[len(files) :]
    _note_missing(results, len(references))
    scores = [z_scores(result.metrics, [video.metrics for video in real]) if real else {} for result in results]
    rows, distances = table(results, scores), set_distances(results, real)
    if plot:
        write_plot(plot, results, rows)
    if as_json:
        for result, z in zip(results, scores, strict=True):
            print(json.dumps(result.summary() | ({"z_scores": z} if z else {})))
        if distances:
            print(json.dumps({"distances": distances.to_json()}))
    else:
        ui.show_table("", rows[0], rows[1:])
        for result in (result for result in results if len(result.spans) > 1):
            ui.show_table(f"prompts of {Path(result.path).name}", *span_table(result))
        if distances:
            ui.show_table(distances.title, ("distance to the reference", "value", "95 %"), distance_rows(distances))
    if plot and not as_json:
        print(plot)


def _note_missing(results: Sequence[Measurement], num_references: int) -> None:
    """Say why a table has no z-scores or no slopes."""
    from pavdm_cli import ui
    from pavdm_cli.evaluation.comparison import MIN_REFERENCES
    from pavdm_cli.evaluation.measure import CLIP_SECONDS, MIN_SLOPE_CLIPS

    if 0 < num_references < MIN_REFERENCES:
        ui.note(f"no z-scores: they need at least {MIN_REFERENCES} videos of --reference, got {num_references}")
    if any(name.startswith("slope_") and value is None for result in results for name, value in result.metrics.items()):
        ui.note(f"no slopes for videos shorter than {MIN_SLOPE_CLIPS * CLIP_SECONDS:g} s")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A folder of videos.")],
    b: Annotated[
        Path,
        typer.Argument(metavar="B", help="A folder of videos with the same prompts and seeds, or the same file names."),
    ],
    chunk_frames: ChunkFrames = None,
    flow: Flow = False,
    output: Output = None,
    as_json: output_options.Json = False,
) -> None:
    """Compare videos paired by prompt and seed: mean difference, 95 % bootstrap interval, corrected sign test."""
    from pavdm_cli import ui
    from pavdm_cli.evaluation import comparison
    from pavdm_cli.evaluation.files import MeasureOptions, find_videos, pair

    check_installed()
    pairs = pair(find_videos([a]), find_videos([b]))
    measurements = measure_all([path for paths in pairs for path in paths], MeasureOptions(chunk_frames, flow), output)
    results = comparison.compare(
        [result.metrics for result in measurements[::2]], [result.metrics for result in measurements[1::2]]
    )
    if as_json:
        print(json.dumps({"pairs": len(pairs), "metrics": [result.to_json() for result in results]}))
        return
    rows = [
        (
            *(result.metric, format_number(result.mean_a), format_number(result.mean_b)),
            *(f"{format_number(result.low)} to {format_number(result.high)}", f"{result.p_value:.3g}", result.result),
        )
        for result in results
    ]
    ui.show_table(f"{len(pairs)} pairs", ("metric", "A", "B", "B - A, 95 %", "p (Holm)", "result"), rows)


def check_installed() -> None:
    """Fail early if the packages of the extra `eval` are missing. Raises: PavdmError."""
    from importlib.util import find_spec

    from pavdm_cli.runtime.install_hints import install_command

    modules = {"scenedetect-headless": "scenedetect", "opencv-python-headless": "cv2", "matplotlib": "matplotlib"}
    if missing := [package for package, module in modules.items() if find_spec(module) is None]:
        raise PavdmError(f"evaluate needs {', '.join(missing)}", install_command("eval"))


def _check_plot(plot: Path | None) -> None:
    from pavdm_cli.evaluation.plot import PLOT_SUFFIXES

    if plot is None:
        return
    if plot.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(
            f"--plot must end in {', '.join(PLOT_SUFFIXES)}, got {plot.name!r}", "for example --plot drift.png"
        )
    if plot.is_dir() or not plot.absolute().parent.is_dir():
        raise OutputError(f"cannot write {plot}", "it is a folder, or its parent folder does not exist")


def measure_all(paths: Sequence[Path], options: MeasureOptions, out: Path | None) -> list[Measurement]:
    """The measurement of each video, under one progress bar. Raises: InputError, OutputError."""
    from pavdm_cli import ui
    from pavdm_cli.evaluation.files import measure_file
    from pavdm_cli.evaluation.results import ResultsFile
    from pavdm_cli.video import open_video

    videos = [open_video(path) for path in paths]
    results = ResultsFile(out)
    with ui.progress("measuring", sum(video.frames for video in videos), waiting=True) as advance:
        advance(0)
        return [measure_file(video, options, results, advance) for video in videos]


def set_distances(results: Sequence[Measurement], references: Sequence[Measurement]) -> SetDistances | None:
    """Distances between the two sets, with a warning if too few videos make them unreliable; None without any."""
    if not references:
        return None
    from pavdm_cli import ui
    from pavdm_cli.evaluation.set_distances import compare_sets

    distances = compare_sets([result.features for result in results], [result.features for result in references])
    if distances.note:
        ui.note(distances.note)
    return distances


def distance_rows(distances: SetDistances) -> list[tuple[str, ...]]:
    """A row for each distance."""
    return [
        (name, format_number(value), "-" if low is None else f"{format_number(low)} to {format_number(high)}")
        for name, (value, low, high) in distances.values.items()
    ]


def table(results: Sequence[Measurement], scores: Sequence[dict[str, float | None]]) -> list[tuple[str, ...]]:
    """A header and rows: one row per metric for a few videos, one row per video for many."""
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    if len(results) <= MAX_COLUMNS:
        head = ("metric", *(Path(result.path).name for result in results))
        return [head, *((name, *map(_cell(name), results, scores)) for name in names)]
    column_names = [name for name in names if name in (*COLUMNS, *WORLD_COLUMNS) or name.startswith("drift_")]
    head = ("video", *(name.replace("_", " ") for name in column_names))
    pairs = zip(results, scores, strict=True)
    return [
        head,
        *((Path(result.path).name, *(_cell(name)(result, z) for name in column_names)) for result, z in pairs),
    ]


def span_table(result: Measurement) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A header, and a row for each span of a prompt timeline."""
    names = dict.fromkeys(name for span in result.spans for name in span["metrics"] if name.startswith("adherence_"))
    ends = [f" to {span['end']:g} s" if span["end"] is not None else " s to the end" for span in result.spans]
    rows = [
        (f"{span['start']:g}{end}", span["caption"], *(format_number(span["metrics"].get(name)) for name in names))
        for span, end in zip(result.spans, ends, strict=True)
    ]
    return ("span", "prompt", *(name.removeprefix("adherence_") for name in names)), rows


def _cell(name: str) -> Any:
    def cell(result: Measurement, scores: dict[str, float | None]) -> str:
        score = scores.get(name)
        return format_number(result.metrics.get(name)) + ("" if score is None else f" (z {score:+.1f})")

    return cell


def format_number(value: float | None) -> str:
    """Format a number for people."""
    return "-" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _check_export_only(others: Mapping[str, object]) -> None:
    """Reject options that measure, which an export does not. Raises: UsageError."""
    if flags := [name for name, value in others.items() if value]:
        raise UsageError(f"--export cannot be combined with {flags[0]}: it does not measure", f"omit {flags[0]}")


def _export(files: Sequence[Path], kind: str, folder: Path) -> None:
    from pavdm_cli import ui
    from pavdm_cli.evaluation import vbench_export
    from pavdm_cli.runtime.printable import quote
    from pavdm_cli.video import open_video

    if kind != "vbench-long":
        raise UsageError(f"--export must be vbench-long, got {kind!r}", "for example --export vbench-long clips/")
    vbench_export.check_export(folder, files)
    inputs = [open_video(path) for path in files]
    with ui.progress("exporting", sum(video.frames for video in inputs)) as advance:
        for video in inputs:
            vbench_export.export(video, folder, advance)
    ui.info(f"in a checkout of VBench: {' '.join(quote(word) for word in vbench_export.command(folder))}")
    print(folder)
