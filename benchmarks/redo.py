"""How well a regenerated span joins what follows it, and how well a looping video meets its start.

Twelve videos of `pocket` at its default size and frame rate, three spans of each, and a loop of each; one row for every
video, in `benchmarks/results/redo.jsonl`. A video that has a row of this commit is skipped, so that an interrupted run
continues. `python benchmarks/redo.py`; `--sheets FOLDER` also writes contact sheets around the joins.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from math import inf
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
from pavdm_cli.generation.redo import with_new_sink
from pavdm_cli.generation.request import build_request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.loop import SampledChunk, state_from_clip
from pavdm_cli.sampling.right_context import LOOP_CHUNKS, with_loop_context, with_right_context
from pavdm_cli.video.contact_sheet import write_contact_sheet

Pixels = NDArray[np.uint8]
PROMPTS = (
    "a red ball bouncing in the desert",
    "a green cube hovering over the sea",
    "a yellow ball rolling on snow",
    "a red ball on a beach at night",
)
VIDEOS, CHUNKS, SEED, OTHER_SEED = 12, 24, 100, 900
SPANS = (range(4), range(8, 12), range(8, 20))  # chunks; a segment of the file holds 4
RESULTS = Path(__file__).parent / "results" / "redo.jsonl"
MAX_MEDIAN, MAX_WORST, MAX_LOOP_MEDIAN = 1.2, 3.0, 2.0  # the bars for jumps at the joins
HEAD = "| | jump at the join | worst | jump at the left join | sharpness |\n|---|---|---|---|---|"
KINDS = {"redo": "redo with `--to`", "cut": "hard cut: the same without what follows", "original": "the original there"}
LOOPS = {"loop": "`--loop`", "none": "without"}


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """A video and what is needed to regenerate parts of it."""

    config: GenerationConfig
    model: ModelRunner
    warmup: Tensor  # (1, W, C, h, w), latents before the first frame
    chunks: list[SampledChunk]
    latents: Tensor  # (1, T, C, h, w)
    frames: Pixels  # (n, H, W, 3)

    @property
    def frames_per_chunk(self) -> int:
        """Number of frames of every chunk."""
        return self.config.frames_before(1)

    def latents_before(self, chunk: int) -> Tensor:
        """All latents before a chunk, including the warm-up."""
        return torch.cat([self.warmup, self.latents[:, : self.config.latents_before(chunk)]], dim=1)

    def decode(self, latents: Tensor) -> Pixels:
        """Frames (n, H, W, 3) of latents that follow the warm-up, at the model's own size."""
        with torch.no_grad():
            pixels = self.model.decode(torch.cat([self.warmup, latents], dim=1))[0]
        return to_bytes(pixels[self.config.layout.num_frames(self.warmup.shape[1]) :])


def make_source(number: int, model: ModelRunner | None, chunks: int = CHUNKS) -> SourceVideo:
    """The video of a number."""
    values = {"prompt": PROMPTS[number % len(PROMPTS)], "seed": SEED + number, "threads": 1, "device": "cpu"}
    config = resolve(build_request(values))
    config = replace(config, frames=config.frames_before(chunks))
    model, warmup = model or pipeline.open_model(config), list[Tensor]()
    sampled_chunks = list(pipeline.sample_chunks(config, model, on_warmup=warmup.append))
    latents = torch.cat([chunk.latents for chunk in sampled_chunks], dim=1)
    source = SourceVideo(config, model, torch.cat(warmup, dim=1), sampled_chunks, latents, np.empty(0, np.uint8))
    return replace(source, frames=source.decode(latents))


def regenerate_span(source: SourceVideo, span: range, seed: int, joins: bool) -> Pixels:
    """The video with a regenerated span; joins: conditioned on what follows, instead of ending the video.

    The last chunk of a span that joins keeps its latents. Frames after the span stay those of the original, as in the
    file.
    """
    config, size = source.config, source.config.schedule.chunk
    new = new_chunks(source, span) if joins else span
    first, stop = config.warmup + span.start, config.warmup + new.stop
    schedule = with_new_sink(config.schedule, first)
    schedule = with_right_context(schedule, stop, size, first, join=config.spec.join) if joins else schedule
    before, after = source.latents_before(span.start), source.latents[:, config.latents_before(new.stop) :]
    start = state_from_clip(schedule, before, pipeline.make_levels(config).sigmas, first)
    start = replace(start, right_context=after[:, :size].clone() if joins else None)
    new_config = replace(config, schedule=schedule, seed=seed, frames=config.frames_before(span.stop))
    new_config = replace(new_config, num_kept_chunks=len(span) - len(new))
    latents = list(pipeline.sample_latents(new_config, source.model, start))
    frames = source.decode(torch.cat([source.latents[:, : config.latents_before(span.start)], *latents], dim=1))
    return np.concatenate([frames, source.frames[len(frames) :]])


def new_chunks(source: SourceVideo, span: range) -> range:
    """The chunks of a span with new latents, as in `redo.Span`."""
    return range(span.start, span.stop - source.config.layout.is_causal)


def regenerate_loop_end(source: SourceVideo) -> Pixels:
    """The video with its last chunks regenerated to lead into its first two, whose frames are appended."""
    config, size = source.config, source.config.schedule.chunk
    first = source.latents[:, : LOOP_CHUNKS * size]
    schedule = with_loop_context(config.schedule, config.total_chunks, config.warmup, config.spec.join)
    assert schedule.right_context_from is not None
    before = source.chunks[schedule.right_context_from - 1 - config.warmup]  # a looping video is the same up to here
    new_config = replace(config, schedule=schedule)
    new = list(pipeline.sample_latents(new_config, source.model, replace(before.state, right_context=first.clone())))
    kept_latents = source.latents[:, : config.latents_before(schedule.right_context_from - config.warmup)]
    return append_first_chunk(source, source.decode(torch.cat([kept_latents, *new], dim=1)))


def append_first_chunk(source: SourceVideo, frames: Pixels) -> Pixels:
    """The frames, then those of the original's first chunk."""
    return np.concatenate([frames, source.frames[: source.frames_per_chunk]])


def jump(frames: Pixels, index: int) -> float:
    """Mean absolute difference of a frame from the one before, of 255."""
    return float(np.abs(frames[index].astype(int) - frames[index - 1]).mean())


def sharpness(frames: Pixels) -> float:
    """Mean magnitude of the Laplacian."""
    gray = frames.astype(float).mean(-1)
    inner = 4 * gray[:, 1:-1, 1:-1] - gray[:, :-2, 1:-1] - gray[:, 2:, 1:-1] - gray[:, 1:-1, :-2] - gray[:, 1:-1, 2:]
    return float(np.abs(inner).mean())


def join_metrics(frames: Pixels, source: SourceVideo, first: int, end: int) -> dict[str, float]:
    """Jumps relative to the median one of the video, and sharpness relative to the original's.

    end: the first frame after the join. It may lie halfway between its neighbors, so the next jump counts, too.
    """
    typical_jump = median(jump(source.frames, index) for index in range(8, len(source.frames)))
    sharp = sharpness(frames[first:end]) / sharpness(source.frames[first:end])
    values = {
        "join": max(jump(frames, index) for index in (end, end + 1)) / typical_jump if end < len(frames) else 0.0,
        "left": jump(frames, first) / typical_jump if first else 0.0,
    }
    return {name: round(value, 3) for name, value in (values | {"sharpness": sharp}).items()}


def measure(source: SourceVideo, number: int) -> tuple[dict[str, Any], list[Pixels]]:
    """The metrics of a video, and frames around its joins."""
    spans, sheet = [], []
    for span in SPANS:
        first, join, end = map(source.config.frames_before, (span.start, new_chunks(source, span).stop, span.stop))
        results = {kind: regenerate_span(source, span, OTHER_SEED + number, kind == "redo") for kind in ("redo", "cut")}
        results["original"] = source.frames
        joins = {"redo": join, "cut": end, "original": join}
        rows = {kind: join_metrics(frames, source, first, joins[kind]) for kind, frames in results.items()}
        rows["redo"]["border"] = round(jump(results["redo"], end) / jump(source.frames, end), 3)
        spans.append({"first": first, "end": end} | rows)
        sheet += [frames_around(frames, joins[kind]) for kind, frames in results.items()]
    cut_loop = append_first_chunk(source, source.frames)
    end, loop = len(source.frames), regenerate_loop_end(source)
    start = end - 8 * source.frames_per_chunk
    loops = {"loop": join_metrics(loop, source, start, end), "none": join_metrics(cut_loop, source, start, end)}
    sheet += [frames_around(loop, end), frames_around(cut_loop, end)]
    return {"spans": spans, "loop": loops}, sheet


def frames_around(frames: Pixels, index: int, count: int = 6) -> Pixels:
    """`count` frames before and after an index."""
    return frames[index - count : index + count]


def line(name: str, rows: list[dict[str, float]], max_median: float = inf, max_worst: float = inf) -> str:
    """A row of the table; values above their bars are marked."""
    joins, left_values, sharp = ([row[key] for row in rows] for key in ("join", "left", "sharpness"))
    left = f"{median(left_values):.1f}" if any(left_values) else ""
    jumps = f"{with_bar(median(joins), max_median)} | {with_bar(max(joins), max_worst)}"
    return f"| {name} | {jumps} | {left} | {median(sharp):.2f} |"


def with_bar(value: float, highest: float) -> str:
    """A value, and whether it misses its bar."""
    return f"{value:.1f}: missed" if value > highest else f"{value:.1f}"


def span_name(span: range) -> str:
    """The span as the table describes it."""
    return f"{len(span)} chunks{'' if span.start else ' from the start'}"


def format_rows(rows: list[dict[str, Any]]) -> list[str]:
    """The documented table of some rows."""
    lines = HEAD.splitlines()
    for index, span in enumerate(SPANS):
        for kind, name in KINDS.items():
            limits = (MAX_MEDIAN, MAX_WORST) if kind == "redo" else (inf, inf)
            lines.append(line(f"{span_name(span)}, {name}", [row["spans"][index][kind] for row in rows], *limits))
    for kind, name in LOOPS.items():
        limit = MAX_LOOP_MEDIAN if kind == "loop" else inf
        lines.append(line(f"loop point, {name}", [row["loop"][kind] for row in rows], limit))
    return lines


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
    measured = {row["video"] for row in read_rows(arguments.results) if row["commit"] == environment()["commit"]}
    for number in sorted({*range(VIDEOS)} - measured):
        source = make_source(number, model)
        model = source.model
        joins, sheet = measure(source, number)
        parameters: dict[str, Any] = {"video": number, "seed": SEED + number, "span_seed": OTHER_SEED + number}
        height, width = source.frames.shape[1:3]
        parameters |= {"chunks": CHUNKS, "size": f"{width}x{height}", "fps": source.config.spec.fps}
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
