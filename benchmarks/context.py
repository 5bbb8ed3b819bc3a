"""Contexts of more than one clean chunk: `python benchmarks/context.py FOLDER` generates, measures and reports.

Arms with the same prompts and seeds: 1, 2 or 4 chunks of context, and 1 or 2 with the first chunk as a sink; with
positions that repeat, so that none exceeds those of training, or that continue in order.
An interrupted run is continued. Rows go to benchmarks/results/context.jsonl, from a clean commit only.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paper import runs
from paper.arms import POCKET_FORMAT, config_of
from paper.report import replace_section
from paper.statistics import Column, Estimate, Rows, estimate, value_of

from pavdm_cli.bench.env import commit
from pavdm_cli.evaluation.comparison import bootstrap_interval
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.pipeline import Pixels
from pavdm_cli.generation.provenance import collect_metadata
from pavdm_cli.generation.request import Output, Request
from pavdm_cli.generation.write import encoder_options, scale_metadata
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.runner import ModelRunner

ROOT = Path(__file__).parents[1]
DOCUMENT, RESULTS = ROOT / "docs" / "results.md", ROOT / "benchmarks" / "results" / "context.jsonl"
BEGIN, END = "<!-- context -->", "<!-- end of context -->"
ARMS = {"1": (1, 0), "2": (2, 0), "4": (4, 0), "1 + sink": (1, 1), "2 + sink": (2, 1)}  # chunks of context, of the sink
IN_ORDER = ", in order"  # positions continue beyond those of training, instead of being repeated
ARMS |= {name + IN_ORDER: counts for name, counts in ARMS.items() if name != "1"}
COLUMNS = (
    Column("identity drift", "identity_drift", "change of the object from its first two seconds to the last 15 %"),
    Column("one object", "one_object", "share of frames with exactly one object", False),
    Column("color error", "color_error", "of the object, RGB from 0 to 1"),
    Column("adherence", "adherence", "share of clips that show the prompt's words", False),
    Column("drift of brightness", "drift_brightness", "last 15 % against the first, by size"),
    Column("drift of sharpness", "drift_sharpness", "the same of the mean gradient"),
    Column(
        "boundary deviation",
        "boundary_deviation",
        "absolute logarithm of the boundary ratio: 0 if boundaries do not show",
    ),
    Column("unpredicted", "unpredicted", "change that optical flow does not predict"),
    Column("ms per chunk", "chunk_ms", "processor time of denoising and decoding, one thread"),
)


def main(words: Sequence[str] | None = None) -> None:
    """Generate and measure missing videos, and with --report write the report."""
    args = parse_arguments(words)
    torch.set_num_threads(1)
    if args.output == RESULTS and not args.report_only and "+" in (commit() or "+"):
        sys.exit("rows are stored from a clean commit: commit first, or give --output")
    if not args.report_only:
        run(args)
    if args.report:
        lines = section_lines(runs.read_rows([args.output]))
        replace_section(args.report, "\n".join([BEGIN, *lines, END]), (BEGIN, END))
        print(args.report)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the videos")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0, help="first seed of held-out scenes and noise")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--weights", type=Path, help="a denoiser; default: the bundled one")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument(
        "--report", nargs="?", type=Path, const=DOCUMENT, help="write the report; default: docs/results.md"
    )
    parser.add_argument("--report-only", action="store_true", help="do not generate or measure")
    return parser.parse_args(words)


def run(args: argparse.Namespace) -> None:
    """Generate and measure the videos that have no row yet."""
    finished_keys = {(row["arm"], row["seed"], row["seconds"]) for row in runs.read_rows([args.output])}
    args.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for arm in args.arms:
            if (arm, seed, args.seconds) not in finished_keys:
                add_video(args, arm, seed)
                print(f"{arm}: {seed}", file=sys.stderr, flush=True)


def add_video(args: argparse.Namespace, arm: str, seed: int) -> None:
    """Generate, measure and store one video."""
    context, sink = ARMS[arm]
    weights = runs.pocket_folder(args.folder / "weights", args.weights) if args.weights else "pocket"
    kind = {"context": context, "sink": sink, "repeat_positions": not arm.endswith(IN_ORDER)}
    options = {"model": str(weights), "seed": seed, "output": Output(scale=1), **POCKET_FORMAT, **kind}
    request = Request(
        runs.study_prompt(seed), args.seconds, execution=ExecutionConfig(device="cpu", threads=1), **options
    )
    config = config_of(request, runs.distilled_guidance(args.weights))
    model, encoding = pipeline.open_model(config), encoder_options(config, runs.OUTPUT)
    metadata = collect_metadata(config, model) | {"crf": runs.OUTPUT.crf} | scale_metadata(encoding.scale)
    path, timer = args.folder / f"{re.sub('[^a-z0-9]+', '-', arm)}-{seed}.mp4", Timer()
    runs.write_video(path, timer.frames(config, model), config.spec.fps, encoding, metadata)
    row = {"settings": kind, "weights": model.digest, "seconds": args.seconds}
    row |= {"chunk_ms": 1000 * timer.seconds / config.total_chunks}
    runs.add_row(args.output, arm, seed, path, row, features=False)


class Timer:
    """Accumulates the processor time of generating frames."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def frames(self, config: GenerationConfig, model: ModelRunner) -> Iterator[Pixels]:
        """The video's frames; time between them is not counted."""
        frames = pipeline.generate_frames(config, model)
        while True:
            start = time.thread_time()
            pixels = next(frames, None)
            self.seconds += time.thread_time() - start
            if pixels is None:
                return
            yield pixels


def section_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The section of the document: one part for each length of videos and its weights, the longest first."""
    groups = sorted({(-row["seconds"], row["weights"]) for row in rows})
    parts = [[row for row in rows if (-row["seconds"], row["weights"]) == group] for group in groups]
    return [
        "Means; in parentheses the paired difference to one chunk with its 95 % interval, where that excludes 0.",
        "",
        *(line for part in parts for line in (*part_lines(part), "")),
        *(f"- *{column.title}*: {column.description}." for column in COLUMNS),
    ]


def part_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each configuration, from rows of the same weights and length."""
    arms: dict[str, dict[int, Mapping[str, Any]]] = {name: {} for name in ARMS}
    for row in rows:
        measurement = row["measurement"]
        metrics = measurement["metrics"] | {"chunk_ms": row["chunk_ms"]}
        arms[row["arm"]][row["seed"]] = row | {"measurement": measurement | {"metrics": metrics}}
    seeds, commits = sorted({row["seed"] for row in rows}), sorted({str(row["commit"]) for row in rows})
    heads = [f"{column.title} {'↓' if column.lower_is_better else '↑'}" for column in COLUMNS]
    title = f"{len(seeds)} prompts of {rows[0]['seconds']:g} s, the same in every arm"
    return [
        f"{title}; weights {rows[0]['weights']}, commit {', '.join(commits)}.",
        "",
        f"| context | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
        *(arm_line(name, arms[name], arms["1"]) for name in ARMS if arms[name]),
    ]


def arm_line(name: str, rows: Rows, one_chunk: Rows) -> str:
    """Means of an arm, and significant differences from the arm with one chunk."""
    cells = []
    for column in COLUMNS:
        mean, difference = estimate(rows, {}, column.metric), paired_difference(rows, one_chunk, column.metric)
        is_significant = difference and not difference.low <= 0 <= difference.high
        cells.append(f"{mean.value:.3g}" + (f" ({difference})" if is_significant else "") if mean else "-")
    return f"| {name} | {' | '.join(cells)} |"


def paired_difference(rows: Rows, one_chunk: Rows, metric: str) -> Estimate | None:
    """The arm minus the one with one chunk, over common seeds; times only from the same commit, and thus run."""
    seeds = rows.keys() & one_chunk.keys()
    if metric == "chunk_ms":
        seeds = {seed for seed in seeds if rows[seed]["commit"] == one_chunk[seed]["commit"]}
    pairs = [(value_of(rows[seed], metric), value_of(one_chunk[seed], metric)) for seed in seeds]
    values = np.array([a - b for a, b in pairs if a is not None and b is not None])
    return Estimate(float(values.mean()), *bootstrap_interval(values)) if len(values) > 1 and values.any() else None


if __name__ == "__main__":
    main()
