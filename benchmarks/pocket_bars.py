"""Measure pocket against its bars: see --help; rows go to benchmarks/results/pocket.jsonl.

A bar is the one in `evaluation/bars.py`, or the best value among earlier rows less noise, whichever is stricter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pavdm_cli.bench.env import environment
from pavdm_cli.evaluation import bars, probe_training, ratchet
from pavdm_cli.evaluation.bars import Bar, Rhythm
from pavdm_cli.evaluation.probe import Probe, load, read, save
from pavdm_cli.evaluation.videos import PARTIAL, Video, Wanted, generated, real
from pavdm_cli.generation.request import Sampling
from pavdm_cli.generation.settings import settle
from pavdm_cli.models.pocket.checkpoint import about, digest, load_codec
from pavdm_cli.video.contact_sheet import write_contact_sheet

HERE = Path(__file__).parent
PARTS = ("codec", "probe", "videos", "partial", "minute")
SPAN = 10.0  # seconds at either end of a minute
LONG = 60.0
HELD_OUT = range(256)  # seeds of real clips that nothing was trained on


def main() -> None:
    """Measure the parts asked for; the exit code is 1 if a bar is missed."""
    given = arguments()
    torch.set_num_threads(given.threads)
    probe = None if given.only == ["codec"] else ready(given)
    passed = [measure(part, given, probe) for part in given.only]
    sys.exit(0 if all(passed) else 1)


def arguments() -> argparse.Namespace:
    """What to measure, on which weights, how much of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Sampling().spec.folder, help="codec and denoiser .safetensors")
    parser.add_argument("--probe", type=Path, default=HERE / "probe.safetensors", help="trained and kept if not there")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--partial", type=int, default=24, help="videos of each class of partial prompts")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--minutes", type=int, default=8, help="videos of a minute")
    parser.add_argument("--first-seed", type=int, default=0, help="of scenes, captions and noise")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processes", type=int, default=1, help="classes of partial prompts made at a time")
    parser.add_argument("--sheet", type=Path, help="a PNG of 16 videos, a row each; of minutes, beside it")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "pocket.jsonl")
    return parser.parse_args()


def ready(given: argparse.Namespace) -> Probe:
    """The kept probe, or a fresh one."""
    if given.probe.exists():
        return load(given.probe)

    def report(name: str, step: int, loss: float) -> None:
        if step % 50 == 49:
            print(f"{name} {step + 1} loss {loss:.3f}", file=sys.stderr, flush=True)

    return load(
        save(
            probe_training.train(load_codec(given.weights / "codec.safetensors"), probe_training.Lessons(), report),
            given.probe,
        )
    )


def measure(part: str, given: argparse.Namespace, probe: Probe | None) -> bool:
    """One part: its bars printed and appended as a row."""
    begun = time.monotonic()
    codec, rhythm = load_codec(given.weights / "codec.safetensors"), rhythm_of(given)
    settings: dict[str, Any]
    if part == "codec":
        found, settings = bars.codec_bars(codec, HELD_OUT[:128], rhythm), {"scenes": 128}
    elif part == "probe":
        assert probe
        found, settings = (
            bars.probe_bars(probe, HELD_OUT, codec),
            {"scenes": len(HELD_OUT), "probe": digest(given.probe)},
        )
    else:
        assert probe
        found, settings = judge(part, given, probe)
    settings = {"world": world_of(given.weights / "codec.safetensors"), **settings}
    found = ratchet.tightened(found, part, settings, ratchet.stored(given.results))
    row = {"part": part, "bars": {b.name: b.row() for b in found}, "settings": settings}
    keep(given, row | {"seconds": round(time.monotonic() - begun, 1)})
    for bar in found:
        bounds = " ".join(f"{name} {bound:g}" for name, bound in bar.row().items() if name in ("low", "high"))
        print(f"{'ok  ' if bar.passed else 'MISS'} {bar.name}: {bar.value:.3f} ({bounds})", flush=True)
    return all(bar.passed for bar in found)


def world_of(weights: Path) -> str:
    """Which world the weights were trained on, in a few digits."""
    return hashlib.sha256(str(about(weights).get("world", "")).encode()).hexdigest()[:16]


def judge_partial(given: argparse.Namespace, probe: Probe) -> tuple[list[Bar], dict[str, Any]]:
    """Videos of prompts that leave things out, every class with scenes and noise of its own."""
    rhythm, wanted = rhythm_of(given), wanted_of("videos", given)
    firsts = range(given.first_seed, given.first_seed + len(PARTIAL) * given.partial, given.partial)
    parts = [
        replace(wanted, seeds=range(first, first + given.partial), kinds=kinds)
        for first, kinds in zip(firsts, PARTIAL.values(), strict=True)
    ]
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        made = dict(zip(PARTIAL, pool.map(all_generated, parts), strict=True))
    for name, videos in made.items():
        for video in videos:
            told(video, probe, rhythm)
        if given.sheet:
            sheet(given.sheet.with_stem(f"{given.sheet.stem}-partial-{len(PARTIAL[name])}"), videos)
    seeds = range(firsts.start, firsts.stop)
    return bars.partial_bars(probe, made, rhythm), settings_of(given, replace(wanted, seeds=seeds))


def all_generated(wanted: Wanted) -> list[Video]:
    """The videos of a class, in a process of its own."""
    return list(generated(wanted))


def settings_of(given: argparse.Namespace, wanted: Wanted) -> dict[str, Any]:
    """What a row says of the videos that it judges."""
    return {
        "seeds": [wanted.seeds.start, wanted.seeds.stop],
        "length": wanted.seconds,
        "weights": digest(given.weights / "codec.safetensors", given.weights / "denoiser.safetensors"),
        "probe": digest(given.probe),
        **asdict(settle(wanted.sampling)),
    }


def judge(part: str, given: argparse.Namespace, probe: Probe) -> tuple[list[Bar], dict[str, Any]]:
    """Generated videos: many short ones, or a few long ones beside many real ones."""
    if not bars.trusted(probe, HELD_OUT):
        sys.exit(f"{given.probe} misreads real clips: the world has changed; remove it, and a new one is trained")
    if part == "partial":
        return judge_partial(given, probe)
    wanted, rhythm = wanted_of(part, given), rhythm_of(given)
    made = [told(video, probe, rhythm) for video in generated(wanted)]
    if given.sheet:
        path = given.sheet if part == "videos" else given.sheet.with_stem(given.sheet.stem + "-minute")
        sheet(path, made)
    settings = settings_of(given, wanted)
    if part == "videos":
        return bars.video_bars(probe, made, list(real(wanted)), rhythm), settings
    span = round(SPAN * rhythm.fps)
    many = replace(wanted, seeds=range(10_000, 10_000 + 64))
    return bars.minute_bars(probe, made, list(real(many, span)), rhythm, span), settings


def told(video: Video, probe: Probe, rhythm: Rhythm) -> Video:
    """Print what the probe sees in a video beside its prompt."""
    seen = read(probe, video.pixels(), rhythm.fps)
    wrong = [f"{name} {seen.words[name]}" for name, asked in video.asked.items() if seen.words[name] != asked]
    print(f"{video.prompt} | one {seen.one:.2f} | {', '.join(wrong) or 'all right'}", file=sys.stderr, flush=True)
    return video


def wanted_of(part: str, given: argparse.Namespace) -> Wanted:
    """The videos of a part."""
    count, seconds = (given.prompts, given.seconds) if part == "videos" else (given.minutes, LONG)
    sampling = Sampling(threads=given.threads, device="cpu", guidance=given.guidance, steps=given.steps)
    return Wanted(range(given.first_seed, given.first_seed + count), seconds, given.weights, sampling)


def rhythm_of(given: argparse.Namespace) -> Rhythm:
    """Of the model's videos."""
    spec = Sampling().spec
    return Rhythm(spec.frames(spec.chunk), spec.fps)


def sheet(path: Path, videos: Sequence[Video], columns: int = 10) -> None:
    """At most sixteen videos, a row each, from the first frame to the last."""
    rows = [v.frames[np.linspace(0, len(v.frames) - 1, columns).round().astype(int)] for v in videos[:16]]
    write_contact_sheet(path, np.stack(rows))


def keep(given: argparse.Namespace, row: dict[str, Any]) -> None:
    """Append a row with where it was measured."""
    given.results.parent.mkdir(parents=True, exist_ok=True)
    with given.results.open("a") as file:
        file.write(json.dumps({"schema": "pavdm.pocket_bars/1", **environment(), **row}) + "\n")


if __name__ == "__main__":
    main()
