"""The speed section of docs/performance.md, from stored rows of a quiet machine; a test holds the two equal.

`python benchmarks/performance.py` prints it. With --measure it takes new rows on this machine (about twenty minutes;
stop everything else first), appends those that are quiet to results/ and rewrites the section.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from pavdm_cli.bench.env import environment

RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- speed: made by benchmarks/performance.py -->", "<!-- end of speed -->"
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
QUIET = 0.95  # share of the best matmul throughput stored for the machine
BUSY = 0.05  # CPU time that other processes may use during a run, in cores
FILES = ("throughput.jsonl", "latency.jsonl")
MISSING = "has no rows from a quiet machine yet (`python benchmarks/performance.py --measure` takes them)."
TRIES = 3
POCKET, MID = ("throughput", "--seconds", "30"), ("throughput", "--arch", "mid")
MEASUREMENTS = (
    *[("throughput.jsonl", (*POCKET, "--precision", precision)) for precision in ("fp32", "bf16") for _ in range(3)],
    ("latency.jsonl", ("latency", "--repeat", "3")),
    ("throughput.jsonl", (*MID, "--context-cache", "recompute")),
    ("throughput.jsonl", ("throughput", "--ablate", "--arch", "mid", "--samples", "9")),
    ("throughput.jsonl", ("throughput", "--ablate", "--arch", "pocket", "--samples", "9")),
)
Row = dict[str, Any]


def rows_of(name: str) -> list[Row]:
    """All rows of a file, the oldest first."""
    return [json.loads(line) for line in (RESULTS / name).read_text(encoding="utf-8").splitlines()]


def machine(row: Row) -> tuple[Any, ...]:
    """What matmul throughput depends on: processor or GPU, threads, precision; older rows have only the name."""
    env = row["env"]
    processor = env["processor"], env.get("processor_model"), env.get("instruction_set")
    return env["gpu"], processor, env["threads"], row["ceilings"].get("matrix", "").partition(", ")[0]


def is_quiet(row: Row, rows: list[Row]) -> bool:
    """Whether no other process used the machine and its matmul throughput was within 5 % of the best ever stored."""
    if row["env"].get("other_cores", 1.0) > BUSY:
        return False
    best = max(stored_row["ceilings"]["matrix_tflops"] for stored_row in rows if machine(stored_row) == machine(row))
    return bool(row["ceilings"]["matrix_tflops"] >= QUIET * best)


def quiet_rows(name: str, kind: str, model: str, **values: Any) -> list[Row]:
    """Rows of a quiet machine with this kind, model and these settings, oldest first."""
    fields, all_rows = {"model": model, **values}, [row for file in FILES for row in rows_of(file)]
    rows = [row for row in rows_of(name) if row["kind"] == kind and execution_of(row)]
    clean = [row for row in rows if "+" not in row["env"]["commit"]]  # of committed code
    return [row for row in clean if fields.items() <= settings_of(row).items() and is_quiet(row, all_rows)]


def settings_of(row: Row) -> Row:
    """The configuration and execution switches of a row in one mapping; older rows have the precision in the former."""
    return execution_of(row) | {name: value for name, value in row["config"].items() if not isinstance(value, dict)}


def execution_of(row: Row) -> Row:
    """The execution switches of a row; rows until November 2026 have them under another name, the oldest not at all."""
    config: Row = row["config"]
    return config.get("execution") or config.get("engine") or {}


def median_row(rows: list[Row]) -> Row | None:
    """The median of the last three rows comparable with the latest one, by the end-to-end rate; None if fewer."""
    sequential = [row for row in rows if execution_of(row).get("overlap_decode") != "on"]
    same = [row for row in sequential if is_comparable(row, sequential[-1])][-3:]
    return sorted(same, key=lambda row: row["summary"]["end_to_end_fps"])[1] if len(same) == 3 else None


def is_comparable(row: Row, other: Row) -> bool:
    """Whether a median may cover both: the same weights, size and machine."""
    keys = ("weights", "size")
    return machine(row) == machine(other) and all(row["config"].get(key) == other["config"].get(key) for key in keys)


def pocket_lines(row: Row, latency_row: Row, narrow: Row) -> list[str]:
    """Speed and latency of the bundled model; `narrow`: its row in bfloat16."""
    result, latency, config, lower = row["summary"], latency_row["summary"], row["config"], narrow["summary"]
    first = f"{latency['first_frame_cold_p50_s']:.1f} s, {latency['first_frame_warm_p50_s']:.2f} s"
    height, width = config.get("size", (64, 96))
    stages = ", ".join(f"{name} {result[f'{name}_s']:.2f} s" for name in ("text", "denoise", "decode", "write"))
    return [
        f"| `pocket`, {config['frames']} frames at {width}x{height}, {config['steps']} steps | |",
        "|---|---|",
        f"| denoising alone, steady state | {result['steady_fps']:.1f} fps |",
        f"| end to end, to a file | {result['end_to_end_fps']:.1f} fps, {result['real_time_factor']:.1f}x real time |",
        f"| the same with `--precision bf16` | {lower['steady_fps']:.1f} and {lower['end_to_end_fps']:.1f} fps |",
        f"| stages, measured one after another | {stages} |",
        f"| time to first frame, cold and warm | {first} |",
        f"| time to a playable file, cold | {latency['playable_file_p50_s']:.1f} s |",
        f"| step | median {result['step_p50_ms']:.0f} ms, 99th percentile {result['step_p99_ms']:.0f} ms; "
        f"{result['matrix_share']:.0%} of the matmul throughput of the same run |",
    ]


def mid_lines(recompute: Row, ladder: Row, small: Row) -> list[str]:
    """A network large enough to be bound by matmuls, one optimization after another."""
    result, rounds = recompute["summary"], len(next(iter(ladder["samples"].values())))
    rungs = [
        f"| {rung['rung']} | {rung['step_p50_ms'] / 1e3:.2f} s | {rung['ratio']:.2f}x | {rung['deviation']:.0e} |"
        for rung in ladder["ladder"]
    ]
    return [
        f"A transformer of width 384 on Open-Sora's window (`--arch mid`, {result['step_tflop']:.2f} TFLOP per step,",
        f"random weights) reaches {result['matrix_share']:.0%} of the matmul throughput when the context is recomputed",
        "at every step. The table starts from the released code's sequence of operations, rebuilt on the same weights,",
        "and adds one optimization per line (`--ablate`). A few percent are noise; the context cache is",
        f"exact only for a network trained with a causal context. All lines run in each of {rounds} rounds: a step is",
        "the median over rounds, and so is the speedup, computed per round and not from the steps shown.",
        "",
        "| | step | speedup | max. difference from baseline |",
        "|---|---|---|---|",
        *rungs,
        *compiled_lines(ladder, small),
    ]


def compiled_lines(ladder: Row, small: Row) -> list[str]:
    """The speedup of --compile, if both ladders have that rung, which needs a C++ compiler."""
    if not all("+ compile" in row["samples"] for row in (ladder, small)):
        return []
    speedup, small_speedup = compile_speedup(ladder), compile_speedup(small)
    return [
        "",
        f"With `--compile` a step is {speedup:.2f}x as fast as on the line before (median over rounds), and",
        f"{small_speedup:.2f}x as fast for `pocket`; compilation is off by default.",
    ]


def compile_speedup(ladder: Row) -> float:
    """The speedup of the last rung over the one before it: the median over rounds."""
    samples = ladder["samples"]
    before_compiling = samples[list(samples)[list(samples).index("+ compile") - 1]]
    pairs = zip(before_compiling, samples["+ compile"], strict=True)
    return median(before / after for before, after in pairs)


def released_lines(row: Row) -> list[str]:
    """The speed compared with the released network itself."""
    summary = row["summary"]
    exact, reuse = ("-".join(f"{ratio:.2f}" for ratio in summary[name]) for name in ("step_exact", "step_reuse"))
    base, sampler = "-".join(f"{ratio:.2f}" for ratio in summary["rebuilt_baseline"]), summary["sampler"]
    return [
        "Against the released network itself (same weights, runs interleaved on a quiet CPU), one step is",
        f"{exact}x as fast, and {reuse}x with `--context-cache reuse`. The whole sampler is {sampler[0]:.2f}x and",
        f"{sampler[1]:.2f}x as fast. The baseline that `--ablate` rebuilds takes {base} of the released network's time",
        "([`released.jsonl`](../benchmarks/results/released.jsonl); its raw samples were not kept).",
    ]


def speed_of_pocket() -> list[str]:
    """The table of the bundled model, if it has rows of a quiet machine."""
    fast, narrow = (
        median_row(quiet_rows("throughput.jsonl", "throughput", "pocket", random_weights=False, precision=precision))
        for precision in ("fp32", "bf16")
    )
    latency_rows = quiet_rows("latency.jsonl", "latency", "pocket")
    return (
        pocket_lines(fast, latency_rows[-1], narrow)
        if fast and narrow and latency_rows
        else ["The speed of `pocket` has fewer than three rows of these weights from a quiet machine."]
    )


def ladder_of_mid() -> list[str]:
    """The ladder of optimizations, if it has rows of a quiet machine."""
    large = quiet_rows("throughput.jsonl", "throughput", "mid", context_cache="recompute")
    ladder, small = (quiet_rows("throughput.jsonl", "ablate", model) for model in ("mid", "pocket"))
    if not (large and ladder and small):
        return [f"The ablation of optimizations {MISSING}"]
    return mid_lines(large[-1], ladder[-1], small[-1])


def section() -> str:
    """Everything between the two markers of the document."""
    against = released_lines(rows_of("released.jsonl")[-1])
    return "\n".join([BEGIN, "", *speed_of_pocket(), "", *against, "", *ladder_of_mid(), "", END])


def measure() -> list[tuple[str, Row]]:
    """New rows; a measurement is repeated while the machine is busy, and left out with a message if it stays busy."""
    measured_rows: list[tuple[str, Row]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, words) in enumerate(MEASUREMENTS):
            rows = [bench(Path(folder) / f"{number}.jsonl", words)]
            while not is_quiet(rows[-1], all_rows_with(measured_rows, rows)) and len(rows) < TRIES:
                rows.append(bench(Path(folder) / f"{number}-{len(rows)}.jsonl", words))
            measured_rows.append((name, rows[-1]))
    all_rows = all_rows_with(measured_rows, [])
    for name, row in measured_rows:
        if not is_quiet(row, all_rows):
            print(f"left out, the machine was busy: {name}, {row['kind']} of {row['config']['model']}", file=sys.stderr)
    return [(name, row) for name, row in measured_rows if is_quiet(row, all_rows)]


def all_rows_with(measured_rows: list[tuple[str, Row]], other_rows: list[Row]) -> list[Row]:
    """The stored rows, and those that were just measured."""
    return [row for file in FILES for row in rows_of(file)] + [row for _, row in measured_rows] + other_rows


def bench(out: Path, words: tuple[str, ...]) -> Row:
    """The row of one run of `pavdm bench`, with the cores that other processes kept busy meanwhile."""
    command = [sys.executable, "-m", "pavdm_cli", "bench", *words, "--output", str(out)]
    print("pavdm bench", *words, file=sys.stderr)
    start, other_seconds = perf_counter(), other_cpu_seconds()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    row = dict(json.loads(out.read_text(encoding="utf-8")))
    row["env"]["other_cores"] = round((other_cpu_seconds() - other_seconds) / (perf_counter() - start), 3)
    return row


def other_cpu_seconds() -> float:
    """CPU time of all processes but this one and its children since the machine started (Linux: /proc/stat)."""
    user, nice, system = (int(ticks) for ticks in Path("/proc/stat").read_text(encoding="ascii").split()[1:4])
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - own


def main() -> None:
    """Print the section; with --measure take new rows first, store them and rewrite it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="take new rows, store them and rewrite the section")
    if not parser.parse_args().measure:
        print(section())
        return
    if (commit := environment()["commit"]) is None or "+" in commit:
        sys.exit("commit first: rows name the commit that they measure, and others are not used")
    for name, row in measure():
        with (RESULTS / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
    DOCUMENT.write_text(before + section() + after, encoding="utf-8")


if __name__ == "__main__":
    main()
