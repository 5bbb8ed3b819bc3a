"""Video files and what is stored of them: chunk borders, scenes, pairs of one prompt and seed, earlier measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pavdm_cli.errors import InputError, PavdmError
from pavdm_cli.evaluation.measure import Measurement, measure
from pavdm_cli.evaluation.results import ResultsFile
from pavdm_cli.video import VideoInfo, read_metadata

if TYPE_CHECKING:
    from pavdm_cli.evaluation.ground_truth import WorldMeter

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".gif", ".avi", ".m4v", ".ts")

Advance = Callable[[int, str], object]  # frames, file name


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What is measured beyond the metrics of every video."""

    chunk_frames: int | None = None  # None: by the metadata of the file
    flow: bool = False
    features: bool = False  # of the probe, for distances between sets


def find_videos(paths: Sequence[Path]) -> list[Path]:
    """The files, and those in the folders in order of their names. Raises: InputError."""
    files: list[Path] = []
    for path in paths:
        inside = [one for one in sorted(path.iterdir()) if one.suffix.lower() in SUFFIXES] if path.is_dir() else [path]
        if not inside:
            raise InputError(f"no video in {path}", f"it has no file that ends in {', '.join(SUFFIXES)}")
        files += inside
    return files


def measure_file(video: VideoInfo, options: MeasureOptions, results: ResultsFile, advance: Advance) -> Measurement:
    """The stored measurement of a video, or a new one, which is stored. Raises: InputError, OutputError."""
    frames = options.chunk_frames or stored_chunk_frames(video.path)
    world, settings = world_meter(video, options.features)
    settings |= {"chunk_frames": frames, "flow": options.flow}
    if stored := results.find(video.path, settings):
        advance(video.frames, video.path.name)
        return replace(stored, path=str(video.path))

    def count(frames: int) -> None:
        advance(frames, video.path.name)

    one = measure(video, chunk_frames=frames, flow=options.flow, world=world, advance=count)
    results.add(video.path, settings, one)
    return one


def world_meter(video: VideoInfo, features: bool) -> tuple[WorldMeter | None, dict[str, Any]]:
    """What reads a video by the probe, where that is needed, and what a stored row says of it.

    Needed for videos of the painted world, whose prompts it checks, and for features of any video.
    """
    metadata = _metadata(video.path)
    if not features and "prompt" not in metadata:
        return None, {}
    from pavdm_cli.evaluation.ground_truth import WorldMeter, stored_scene
    from pavdm_cli.evaluation.probe import SHIPPED
    from pavdm_cli.models.pocket.checkpoint import digest

    scene = stored_scene(video.path)
    if scene is None and not features:
        return None, {}
    caption = {"caption": metadata.get("caption") or metadata["prompt"]} if scene else {}
    return WorldMeter(float(video.rate), scene), {"probe": digest(SHIPPED), **caption}


def stored_chunk_frames(path: Path) -> int | None:
    """Frames per chunk of a video that pavdm generated, by its metadata; None for others and for continuations.

    With rn and rw a whole window leaves at a time.
    """
    from pavdm_cli.generation.metadata import sound_fields
    from pavdm_cli.models.registry import find

    try:
        metadata, _ = sound_fields(_metadata(path))
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
    metadata = _metadata(path)
    prompt, seed = metadata.get("prompt"), metadata.get("seed")
    return (prompt, seed) if isinstance(prompt, str) and isinstance(seed, int) else (path.stem,)


def _metadata(path: Path) -> dict[str, Any]:
    """What pavdm stored in the file, if anything."""
    try:
        return dict(read_metadata(path) or {})
    except InputError:
        return {}
