"""Measure pocket against its bars; rows go to benchmarks/results/pocket.jsonl (see --help).

A bar is the stricter of that in `evaluation/bars.py` and the best value among earlier rows, minus noise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from pavdm_cli.bench.env import environment
from pavdm_cli.evaluation import bars, probe_training, ratchet
from pavdm_cli.evaluation.bars import Bar, ChunkTiming
from pavdm_cli.evaluation.probe import SHIPPED, Probe, load, read_video, save
from pavdm_cli.evaluation.videos import PARTIAL, Video, VideoSet, generate_videos, render_videos
from pavdm_cli.generation.request import Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.pocket.checkpoint import digest, load_vae, training_metadata
from pavdm_cli.models.pocket.frame_format import CODED_FPS, CODED_SIZE
from pavdm_cli.models.pocket.model import DENOISER_FILE, VAE_FILE
from pavdm_cli.runtime.untrusted import stored_values
from pavdm_cli.video.contact_sheet import write_contact_sheet

HERE = Path(__file__).parent
PARTS = ("vae", "full-size", "probe", "videos", "partial", "minute")
SPAN = 10.0  # seconds at either end of a long video
LONG = 60.0
HELD_OUT = range(256)  # seeds of scenes that nothing was trained on


def main() -> None:
    """Measure the selected parts; the exit code is 1 if a bar is missed."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    probe = None if {*args.only} <= {"vae", "full-size"} else load_or_train_probe(args)
    passed = [measure(part, args, probe) for part in args.only]
    sys.exit(0 if all(passed) else 1)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--weights",
        type=Path,
        default=Request("").spec.folder,
        help="folder of the .safetensors files",
    )
    parser.add_argument("--probe", type=Path, default=SHIPPED, help="trained if it does not exist")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--partial", type=int, default=24, help="videos per class of partial prompts")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--minutes", type=int, default=16, help="one-minute videos")
    parser.add_argument("--first-seed", type=int, default=0, help="of scenes, captions and noise")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processes", type=int, default=1, help="classes of partial prompts generated in parallel")
    parser.add_argument(
        "--sheet", type=Path, help="PNG for a contact sheet of 16 videos; further sheets are written next to it"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results" / "pocket.jsonl")
    return parser.parse_args()


def load_or_train_probe(args: argparse.Namespace) -> Probe:
    """The probe of the given file, trained first if it does not exist."""
    if args.probe.exists():
        return load(args.probe)

    def report(name: str, step: int, loss: float) -> None:
        if step % 50 == 49:
            print(f"{name} {step + 1} loss {loss:.3f}", file=sys.stderr, flush=True)

    vae = load_vae(args.weights / VAE_FILE)
    return load(save(probe_training.train(vae, probe_training.ProbeTraining(), report), args.probe))


def measure(part: str, args: argparse.Namespace, probe: Probe | None) -> bool:
    """Measure one part, print its bars and append them as a row."""
    start = time.monotonic()
    vae, timing = load_vae(args.weights / VAE_FILE), chunk_timing(args)
    conditions: dict[str, Any]
    shares: dict[str, float] = {}
    if part == "vae":
        results, conditions = bars.vae_bars(vae, HELD_OUT[:128], timing), {"scenes": 128}
    elif part == "full-size":
        results, conditions = bars.full_size_bars(vae, HELD_OUT[:128]), {"scenes": 128}
    elif part == "probe":
        assert probe
        results, conditions = (
            bars.probe_bars(probe, HELD_OUT, vae),
            {"scenes": len(HELD_OUT), "probe": digest(args.probe)},
        )
    else:
        assert probe
        results, conditions, shares = evaluate(part, args, probe)
    conditions = {"world": world_of(args.weights / VAE_FILE), **conditions}
    results = ratchet.tighten(results, part, conditions, ratchet.load_rows(args.results))
    row = {"part": part, "bars": {b.name: b.row() for b in results}, "settings": conditions}
    if shares:
        row["one_object_by_kind"] = shares
    append_row(args, row | {"seconds": round(time.monotonic() - start, 1)})
    for bar in results:
        bounds = " ".join(f"{name} {bound:g}" for name, bound in bar.row().items() if name in ("low", "high"))
        print(f"{'ok  ' if bar.passed else 'MISS'} {bar.name}: {bar.value:.3f} ({bounds})", flush=True)
    return all(bar.passed for bar in results)


def world_of(weights: Path) -> str:
    """A hash of the world that the weights were trained on."""
    return hashlib.sha256(str(training_metadata(weights).get("world", "")).encode()).hexdigest()[:16]


Evaluation = tuple[list[Bar], dict[str, Any], dict[str, float]]  # bars, conditions, share of frames by kind of object


def evaluate_partial(args: argparse.Namespace, probe: Probe) -> Evaluation:
    """Evaluate partial prompts; each class has its own scenes and noise."""
    timing, video_set = chunk_timing(args), select_videos("videos", args)
    firsts = range(args.first_seed, args.first_seed + len(PARTIAL) * args.partial, args.partial)
    parts = [
        replace(video_set, seeds=range(first, first + args.partial), kinds=kinds)
        for first, kinds in zip(firsts, PARTIAL.values(), strict=True)
    ]
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        generated = dict(zip(PARTIAL, pool.map(generate_all, parts), strict=True))
    for name, videos in generated.items():
        if args.sheet:
            write_sheet(args.sheet.with_stem(f"{args.sheet.stem}-partial-{len(PARTIAL[name])}"), videos)
    seeds = range(firsts.start, firsts.stop)
    shares = print_results([video for videos in generated.values() for video in videos], probe, timing)
    return bars.partial_bars(probe, generated, timing), conditions_of(args, replace(video_set, seeds=seeds)), shares


def generate_all(video_set: VideoSet) -> list[Video]:
    """Generate the videos of a class, in a worker process."""
    return list(generate_videos(video_set))


def conditions_of(args: argparse.Namespace, video_set: VideoSet) -> dict[str, Any]:
    """The conditions stored in a row."""
    return {
        "seeds": [video_set.seeds.start, video_set.seeds.stop],
        "length": video_set.seconds,
        "weights": digest(args.weights / VAE_FILE, args.weights / DENOISER_FILE),
        "probe": digest(args.probe),
        **stored_values(resolve(video_set.request)),
    }


def evaluate(part: str, args: argparse.Namespace, probe: Probe) -> Evaluation:
    """Evaluate many short videos, or a few long ones against many real ones."""
    if not bars.is_reliable(probe, HELD_OUT):
        sys.exit(f"{args.probe} misreads real clips: the world has changed; remove it to train a new one")
    if part == "partial":
        return evaluate_partial(args, probe)
    video_set, timing = select_videos(part, args), chunk_timing(args)
    generated = list(generate_videos(video_set))
    shares = print_results(generated, probe, timing)
    if args.sheet:
        path = args.sheet if part == "videos" else args.sheet.with_stem(args.sheet.stem + "-minute")
        write_sheet(path, generated)
    conditions = conditions_of(args, video_set)
    if part == "videos":
        return bars.video_bars(probe, generated, list(render_videos(video_set)), timing), conditions, shares
    span = round(SPAN * timing.fps)
    many = replace(video_set, seeds=range(10_000, 10_000 + 64))
    return bars.long_video_bars(probe, generated, list(render_videos(many, span)), timing, span), conditions, shares


def print_results(videos: Sequence[Video], probe: Probe, timing: ChunkTiming) -> dict[str, float]:
    """Print each prompt and where the probe disagrees with it; returns the share of frames with exactly one object."""
    shares: dict[str, list[float]] = defaultdict(list)
    for video in videos:
        result = read_video(probe, video.pixels(), timing.fps)
        mistakes = [
            f"{name} {result.words[name]}" for name, word in video.requested.items() if result.words[name] != word
        ]
        share = result.one_object_share()
        shares[video.requested["object"]].append(share)
        print(f"{video.prompt} | one {share:.2f} | {', '.join(mistakes) or 'all correct'}", file=sys.stderr, flush=True)
    return {kind: round(fmean(values), 3) for kind, values in sorted(shares.items())}


def select_videos(part: str, args: argparse.Namespace) -> VideoSet:
    """The videos to evaluate in a part."""
    count, seconds = (args.prompts, args.seconds) if part == "videos" else (args.minutes, LONG)
    execution = ExecutionConfig(device="cpu", threads=args.threads)
    request = Request(
        "a ball", size=CODED_SIZE, fps=CODED_FPS, guidance=args.guidance, steps=args.steps, execution=execution
    )
    return VideoSet(range(args.first_seed, args.first_seed + count), seconds, args.weights, request)


def chunk_timing(args: argparse.Namespace) -> ChunkTiming:
    """The timing of the model's videos."""
    config = resolve(Request("a ball", size=CODED_SIZE, fps=CODED_FPS))
    return ChunkTiming(int(config.frames_per_chunk), config.spec.fps)


def write_sheet(path: Path, videos: Sequence[Video], columns: int = 10) -> None:
    """Write up to sixteen videos, one per row, from the first frame to the last."""
    rows = [v.frames[np.linspace(0, len(v.frames) - 1, columns).round().astype(int)] for v in videos[:16]]
    write_contact_sheet(path, np.stack(rows))


def append_row(args: argparse.Namespace, row: dict[str, Any]) -> None:
    """Append a row and the environment."""
    args.results.parent.mkdir(parents=True, exist_ok=True)
    with args.results.open("a") as file:
        file.write(json.dumps({"schema": "pavdm.pocket_bars/1", **environment(), **row}) + "\n")


if __name__ == "__main__":
    main()
