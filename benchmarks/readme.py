"""Prints the README's section on speed from the stored rows; a test holds the two equal."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- speed: made by benchmarks/readme.py -->", "<!-- end of speed -->"
Row = dict[str, Any]


def stored(name: str, kind: str, model: str, **settings: Any) -> list[Row]:
    """The rows of a kind, a model and some settings, the oldest first."""
    lines = (RESULTS / name).read_text(encoding="utf-8").splitlines()
    asked = {"model": model, **settings}
    rows = [row for row in map(json.loads, lines) if row["kind"] == kind and "engine" in row["config"]]
    clean = [row for row in rows if "+" not in row["env"]["commit"]]  # of code that can be had again
    return [row for row in clean if asked.items() <= row["config"].items()]


def typical(rows: list[Row]) -> Row:
    """Of the last three the one in the middle, end to end: this machine's speed comes and goes."""
    alone = [row for row in rows if row["config"]["engine"].get("decode_beside") != "on"]
    return sorted(alone[-3:], key=lambda row: row["summary"]["end_to_end_fps"])[1]


def pocket(row: Row, waits: Row, narrow: Row) -> list[str]:
    """Speed of the embedded model, and what a person waits for; `narrow` is its row in bfloat16."""
    found, waited, config, lower = row["summary"], waits["summary"], row["config"], narrow["summary"]
    first = f"{waited['first_frame_cold_p50_s']:.1f} s, {waited['first_frame_warm_p50_s']:.2f} s"
    stages = ", ".join(f"{name} {found[f'{name}_s']:.2f} s" for name in ("text", "denoise", "decode", "write"))
    return [
        f"| `pocket`, {config['frames']} frames at 96x64, {config['steps']} steps | |",
        "|---|---|",
        f"| denoising alone, steady state | {found['steady_fps']:.1f} frames/s |",
        f"| end to end, to a file | {found['end_to_end_fps']:.1f} frames/s, "
        f"{found['real_time_factor']:.1f}x real time |",
        f"| the same with `--precision bf16` | {lower['steady_fps']:.1f} and {lower['end_to_end_fps']:.1f} frames/s |",
        f"| stages, one after another | {stages} |",
        f"| first frame: new process, torch already imported | {first} |",
        f"| a file that plays, new process | {waited['playable_file_p50_s']:.1f} s |",
        f"| step | {found['step_p50_ms']:.0f} ms in the median, {found['step_p99_ms']:.0f} ms at the 99th percentile; "
        f"{found['matrix_share']:.0%} of the matrix-product rate of the same run |",
    ]


def mid(recomputed: Row, ladder: Row, small: Row) -> list[str]:
    """A network large enough to be bound by products, one optimisation after another."""
    found, rounds = recomputed["summary"], len(ladder["samples"]["plain"])
    rungs = [
        f"| {one['rung']} | {one['step_p50_ms'] / 1e3:.2f} s | {one['ratio']:.2f}x | {one['deviation']:.0e} |"
        for one in ladder["ladder"]
    ]
    return [
        f"A transformer of 384 columns on Open-Sora's window (`--shape mid`, {found['step_tflop']:.2f} TFLOP a step,",
        f"random weights) runs at {found['matrix_share']:.0%} of the matrix-product rate with the overlap computed",
        "again at every step. Against the released code's sequence of operations, rebuilt on the same weights, each",
        "line with one more optimisation (`--ablate`; a few per cent are noise on this machine; overlap memory is",
        f"exact only for a network that was trained so). All lines run in each of {rounds} rounds:",
        "a step is the median, and so is times as fast, taken round by round, not from the steps shown:",
        "",
        "| | step | times as fast | off plain by |",
        "|---|---|---|---|",
        *rungs,
        "",
        f"Compiled blocks (`--compile`) are {compiled(ladder):.2f} times as fast as the line before them, round by",
        f"round in the median, those of `pocket` {compiled(small):.2f} times: no gain beyond the noise,",
        "so it stays off unless asked for.",
    ]


def compiled(ladder: Row) -> float:
    """How many times as fast the last rung is as the one before it, in the median round."""
    pairs = zip(ladder["samples"]["+ overlap memory"], ladder["samples"]["+ compile"], strict=True)
    return median(before / after for before, after in pairs)


def section() -> str:
    """All between the README's two marks."""
    fast, narrow = (
        typical(stored("throughput.jsonl", "throughput", "pocket", random_weights=False, precision=precision))
        for precision in ("fp32", "bf16")
    )
    waits = stored("latency.jsonl", "latency", "pocket")[-1]
    large = stored("throughput.jsonl", "throughput", "mid", overlap_kv="recompute")[-1]
    ladder, small = (stored("throughput.jsonl", "ablate", model)[-1] for model in ("mid", "pocket"))
    return "\n".join([BEGIN, "", *pocket(fast, waits, narrow), "", *mid(large, ladder, small), "", END])


if __name__ == "__main__":
    print(section())
