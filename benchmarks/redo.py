"""How well a regenerated span joins what follows it, and how well a looping video meets its start.

Twelve videos of `pocket`, two spans of each, and a loop of each; one row for every video, in
`benchmarks/results/redo.jsonl`. A video that has a row for these weights is left out, so that an interrupted run
continues. `python benchmarks/redo.py`; `--sheets FOLDER` also writes contact sheets around the joins.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pavdm_cli.bench.env import environment
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.request import build_request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.loop import SampledChunk, state_from_clip
from pavdm_cli.sampling.right_context import LOOP_CHUNKS, with_loop_context, with_right_context
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.video.contact_sheet import write_contact_sheet

Pixels = NDArray[np.uint8]
PROMPTS = (
    "a red ball bouncing in the desert",
    "a green cube hovering over the sea",
    "a yellow ball rolling on snow",
    "a red ball on a beach at night",
)
VIDEOS, CHUNKS, SEED, OTHER_SEED = 12, 24, 100, 900
SPANS = (range(6, 12), range(6, 18))  # chunks
RESULTS = Path(__file__).parent / "results" / "redo.jsonl"
HEAD = "| | jump at the join | worst | jump at the left join | sharpness |\n|---|---|---|---|---|"
KINDS = {"redo": "redo with `--to`", "cut": "hard cut: the same without what follows", "original": "the original there"}
LOOPS = {"loop": "`--loop`", "none": "without"}


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """A video and what is needed to regenerate parts of it."""

    config: GenerationConfig
    model: ModelRunner
    chunks: list[SampledChunk]
    latents: Tensor  # (1, T, C, h, w)
    frames: Pixels  # (n, H, W, 3)


def make_source(number: int, model: ModelRunner | None, chunks: int = CHUNKS) -> SourceVideo:
    """The video of a number."""
    values = {"prompt": PROMPTS[number % len(PROMPTS)], "frames": 4 * chunks, "seed": SEED + number, "threads": 1}
    config = resolve(build_request(values | {"device": "cpu"}))
    model = model or pipeline.open_model(config)
    sampled_chunks = list(pipeline.sample_chunks(config, model))
    latents = torch.cat([chunk.latents for chunk in sampled_chunks], dim=1)
    return SourceVideo(config, model, sampled_chunks, latents, decode(model, latents))


@torch.no_grad()
def decode(model: ModelRunner, latents: Tensor) -> Pixels:
    """Frames (n, H, W, 3) at the model's own size."""
    return to_bytes(model.decode(latents)[0])


def regenerate_span(source: SourceVideo, span: range, seed: int, joins: bool) -> Pixels:
    """The video with a regenerated span; joins: conditioned on the chunk that follows, instead of ending the video."""
    config, size = source.config, source.config.schedule.chunk
    first, stop = config.warmup + span.start, config.warmup + span.stop
    schedule = with_right_context(config.schedule, stop, size, first) if joins else config.schedule
    start = state_from_clip(
        schedule, source.latents[:, : size * span.start], pipeline.make_levels(config).sigmas, first
    )
    after = source.latents[:, size * span.stop :]
    start = replace(start, right_context=after[:, :size].clone() if joins else None)
    new_config = replace(config, schedule=schedule, seed=seed, frames=4 * span.stop)
    new = list(pipeline.sample_latents(new_config, source.model, start))
    return decode(source.model, torch.cat([source.latents[:, : size * span.start], *new, after], dim=1))


def regenerate_loop_end(source: SourceVideo, schedule: Schedule | None = None) -> Pixels:
    """The video with its last chunks regenerated to lead into its first two, which are appended."""
    config, size = source.config, source.config.schedule.chunk
    first = source.latents[:, : LOOP_CHUNKS * size]
    schedule = schedule or with_loop_context(
        config.schedule, config.total_chunks, config.warmup, config.spec.loop_latents
    )
    assert schedule.right_context_from is not None
    before = source.chunks[schedule.right_context_from - 1 - config.warmup]  # a looping video is the same up to here
    new_config = replace(config, schedule=schedule)
    new = list(pipeline.sample_latents(new_config, source.model, replace(before.state, right_context=first.clone())))
    kept_latents = source.latents[:, : size * (schedule.right_context_from - config.warmup)]
    return decode(source.model, torch.cat([kept_latents, *new, first], dim=1))


def jump(frames: Pixels, index: int) -> float:
    """Mean absolute difference of a frame from the one before, of 255."""
    return float(np.abs(frames[index].astype(int) - frames[index - 1]).mean())


def sharpness(frames: Pixels) -> float:
    """Mean magnitude of the Laplacian."""
    gray = frames.astype(float).mean(-1)
    inner = 4 * gray[:, 1:-1, 1:-1] - gray[:, :-2, 1:-1] - gray[:, 2:, 1:-1] - gray[:, 1:-1, :-2] - gray[:, 1:-1, 2:]
    return float(np.abs(inner).mean())


def join_metrics(frames: Pixels, source: SourceVideo, first: int, end: int) -> dict[str, float]:
    """Jumps relative to the median one of the video, and sharpness relative to the original's."""
    typical_jump = median(jump(source.frames, index) for index in range(8, len(source.frames)))
    sharp = sharpness(frames[first:end]) / sharpness(source.frames[first:end])
    values = {
        "join": jump(frames, end) / typical_jump if end < len(frames) else 0.0,
        "left": jump(frames, first) / typical_jump,
    }
    return {name: round(value, 3) for name, value in (values | {"sharpness": sharp}).items()}


def measure(source: SourceVideo, number: int) -> tuple[dict[str, Any], list[Pixels]]:
    """The metrics of a video, and frames around its joins."""
    spans, sheet = [], []
    for span in SPANS:
        first, end = 4 * span.start, 4 * span.stop
        results = {kind: regenerate_span(source, span, OTHER_SEED + number, kind == "redo") for kind in ("redo", "cut")}
        results["original"] = source.frames
        rows = {kind: join_metrics(frames, source, first, end) for kind, frames in results.items()}
        spans.append({"first": first, "end": end} | rows)
        sheet += [frames_around(frames, index) for frames in results.values() for index in (first, end)]
    cut_loop = decode(source.model, torch.cat([source.latents, source.latents[:, :4]], dim=1))
    end, loop = len(source.frames), regenerate_loop_end(source)
    start = end - 32
    loops = {"loop": join_metrics(loop, source, start, end), "none": join_metrics(cut_loop, source, start, end)}
    sheet += [frames_around(loop, end), frames_around(cut_loop, end)]
    return {"spans": spans, "loop": loops}, sheet


def frames_around(frames: Pixels, index: int, count: int = 6) -> Pixels:
    """`count` frames before and after an index."""
    return frames[index - count : index + count]


def line(name: str, rows: list[dict[str, float]]) -> str:
    """A row of the table."""
    joins, left_values, sharp = ([row[key] for row in rows] for key in ("join", "left", "sharpness"))
    return f"| {name} | {median(joins):.1f} | {max(joins):.1f} | {median(left_values):.1f} | {median(sharp):.2f} |"


def format_rows(rows: list[dict[str, Any]]) -> list[str]:
    """The documented table of some rows."""
    lines = HEAD.splitlines()
    for chunks, index in ((len(span), index) for index, span in enumerate(SPANS)):
        for kind, name in KINDS.items():
            lines.append(line(f"{chunks} chunks, {name}", [row["spans"][index][kind] for row in rows]))
    return lines + [line(f"loop point, {name}", [row["loop"][kind] for row in rows]) for kind, name in LOOPS.items()]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of the last weights that were measured, one for each video."""
    rows = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    latest = {row["video"]: row for row in rows if row["weights"] == rows[-1]["weights"]}
    return [latest[video] for video in sorted(latest)]


def main() -> None:
    """Measure what has no row yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    arguments, model = parser.parse_args(), None
    for number in range(VIDEOS):
        if number in {row["video"] for row in read_rows(arguments.results)}:
            continue
        source = make_source(number, model)
        model = source.model
        joins, sheet = measure(source, number)
        parameters = {"video": number, "seed": SEED + number, "span_seed": OTHER_SEED + number, "chunks": CHUNKS}
        row = {"schema": "pavdm.redo/1", **environment(), "weights": model.digest, **parameters, **joins}
        with arguments.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if arguments.sheets and number < 4:
            arguments.sheets.mkdir(exist_ok=True)
            write_contact_sheet(arguments.sheets / f"redo-{number}.png", np.stack(sheet))
        print(f"video {number}: {row['spans'][0]['redo']} {row['loop']['loop']}", flush=True)
    print("\n".join(format_rows(read_rows(arguments.results))))


if __name__ == "__main__":
    main()
