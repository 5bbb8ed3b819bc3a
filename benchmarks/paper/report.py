"""The report of the study: tables and claims as Markdown, and its figures."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .arms import BY_NAME, REAL
from .claims import CLAIMS
from .figures import draw_strips, frames_at, plot_over_time
from .statistics import BY_METRIC, COLUMNS, GROUND_TRUTH_COLUMNS, Column, Rows, Verdict, estimate, verdicts

BEGIN, END = "<!-- study -->", "<!-- end of study -->"
FIGURE_3_ARMS = ("pa-base", "rn-base", "fifo", "chained", "pa", "rw", "shipped", REAL)
ABLATIONS = ("pa", "no-context", "chunk-1", "fixed-length", "half-steps", "double-steps", "half-window")
SHEET_COLUMNS, STRIPS = 10, 8
OVER_TIME = "over-time.png"


def write(path: Path, rows: Sequence[Mapping[str, Any]], folder: Path, reasons: Path | None, *, draft: bool) -> None:
    """Write the study's section of a document, and its figures in the folder `images/results` next to it."""
    check_rows(rows, draft)
    arms = arms_of(rows)
    figures = path.parent / "images" / "results"
    figures.mkdir(parents=True, exist_ok=True)
    draw_figures(figures, arms, folder)
    sentences = json.loads(reasons.read_text()) if reasons else {}
    section = "\n".join(section_lines(rows, arms, sentences, sorted(p.name for p in figures.iterdir())))
    replace_section(path, f"{BEGIN}\n{section}\n{END}")


def check_rows(rows: Sequence[Mapping[str, Any]], draft: bool) -> None:
    """Exit unless there are rows, all of one clean commit, or `draft`."""
    if not rows:
        sys.exit("no rows to report on")
    commits = {str(row["commit"]) for row in rows}
    if not draft and (len(commits) > 1 or any("+" in commit or commit == "None" for commit in commits)):
        sys.exit(f"rows must be of one clean commit, these are of {', '.join(sorted(commits))}; --draft reports anyway")


def arms_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Rows]:
    """The rows by arm and seed, arms in order; the later of two rows of one video."""
    arms: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        arms[row["arm"]][row["seed"]] = row
    return {name: arms[name] for name in (*BY_NAME, REAL) if name in arms}


def section_lines(
    rows: Sequence[Mapping[str, Any]], arms: Mapping[str, Rows], reasons: Mapping[str, str], figures: Sequence[str]
) -> list[str]:
    """The section, line by line."""
    results = verdicts(CLAIMS, arms, arms.get(REAL, {}))
    seeds = sorted({row["seed"] for row in rows})
    seconds = max(row["measurement"]["frames"] / row["measurement"]["fps"] for row in rows)
    return [
        f"{len(seeds)} prompts of {seconds:g} s, seeds {seeds[0]} to {seeds[-1]}, the same in every arm; commit "
        f"{', '.join(sorted({str(row['commit']) for row in rows}))}. Means with 95 % intervals.",
        "",
        "## In place of table 1",
        "",
        *table_lines(arms, COLUMNS),
        "",
        *(
            f"- *{column.title}* (`{column.metric}`): {column.description}; replaces {column.paper}."
            for column in COLUMNS
        ),
        "",
        "## Ground truth",
        "",
        *table_lines(arms, GROUND_TRUTH_COLUMNS),
        "",
        *(f"- *{column.title}* (`{column.metric}`): {column.description}." for column in GROUND_TRUTH_COLUMNS),
        "",
        "## The paper's orderings",
        "",
        "Paired by prompt and seed. The difference is positive where the claim holds; p is of the sign test, for "
        "distances of the jackknife's pseudo-values, after Holm's correction over all claims. A verdict needs p < 0.05 "
        "and an interval without 0.",
        "",
        *claim_lines(results, reasons),
        "",
        "## Over time",
        "",
        "Means over prompts of two-second clips, with bands of the standard error, as in figure 3.",
        "",
        f"![Metrics of each arm over a minute](images/results/{OVER_TIME})",
        "",
        "## Arms",
        "",
        *arm_lines(arms),
        "",
        "## Contact sheets",
        "",
        *figure_lines(name for name in figures if name != OVER_TIME),
    ]


def table_lines(arms: Mapping[str, Rows], columns: Sequence[Column]) -> list[str]:
    """A table with a row for each arm; arrows say which direction is better."""
    heads = [f"{column.title} {'↓' if column.lower_is_better else '↑'}" for column in columns]
    lines = [f"| arm | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for name, rows in arms.items():
        real = {} if name == REAL else arms.get(REAL, {})  # no distance of the real videos to themselves
        estimates = [estimate(rows, real, column.metric) for column in columns]
        lines.append(f"| {name} | {' | '.join(str(value) if value else '-' for value in estimates)} |")
    return lines


def claim_lines(results: Sequence[Verdict], reasons: Mapping[str, str]) -> list[str]:
    """A table with a row for each claim."""
    lines = ["| claim | source | pairs | difference | p | verdict | probable reason |", "|---|---|---|---|---|---|---|"]
    for verdict in results:
        claim = verdict.claim
        text = f"{claim.better} over {claim.worse}: {BY_METRIC[claim.metric].title}"
        why = reasons.get(f"{claim.better} > {claim.worse}: {claim.metric}", "")
        p_value = "-" if verdict.difference is None else f"{verdict.p_value:.2g}"
        lines.append(
            f"| {text} | {claim.source} | {verdict.pairs} | {verdict.difference or '-'} | {p_value} | {verdict.result} "
            f"| {why} |"
        )
    return lines


def arm_lines(arms: Mapping[str, Rows]) -> list[str]:
    """The description of each arm, and the settings and weights in its rows."""
    lines = ["| arm | what it is | videos | weights | steps | window | chunk | context | guidance |", "|---" * 9 + "|"]
    for name, rows in arms.items():
        row = next(iter(rows.values()))
        config = row["settings"]
        values = [str(config.get(key, "-")) for key in ("steps", "window", "chunk", "context", "guidance")]
        description = BY_NAME[name].description if name in BY_NAME else "rendered"
        lines.append(f"| {name} | {description} | {len(rows)} | {row['weights']} | {' | '.join(values)} |")
    return lines


def figure_lines(names: Iterable[str]) -> Iterator[str]:
    """Sheets of the arms, a row for each of the first seeds, and of the ablations of one seed."""
    for name in names:
        kind, _, what = Path(name).stem.partition("-")
        title = f"Seed {what}: the ablations of PA" if kind == "ablations" else f"`{what}`: the first {STRIPS} seeds"
        yield from ("", f"{title}.", "", f"![{title}](images/results/{name})")


def draw_figures(folder: Path, arms: Mapping[str, Rows], study: Path) -> None:
    """Figure 3, a contact sheet of each arm, and strips of the ablations."""
    plot_over_time(folder / OVER_TIME, {name: arms[name] for name in FIGURE_3_ARMS if name in arms})
    for name, rows in arms.items():
        seconds = sample_times(rows, SHEET_COLUMNS)
        paths = {seed: study / "videos" / name / f"{seed}.mp4" for seed in sorted(rows)[:STRIPS]}
        draw_strips(
            folder / f"sheet-{name}.jpg", {f"{seed}": frames_at(path, seconds) for seed, path in paths.items()}, seconds
        )
    ablations = {name: arms[name] for name in ABLATIONS if name in arms}
    common_seeds = set.intersection(*(set(rows) for rows in ablations.values())) if ablations else set()
    for seed in sorted(common_seeds)[:2]:
        seconds = sample_times(next(iter(ablations.values())), SHEET_COLUMNS)
        strips = {name: frames_at(study / "videos" / name / f"{seed}.mp4", seconds) for name in ablations}
        draw_strips(folder / f"ablations-{seed}.jpg", strips, seconds)


def sample_times(rows: Rows, count: int) -> list[float]:
    """Evenly spaced times from the first frame of a video to the last."""
    measurement = next(iter(rows.values()))["measurement"]
    last = (measurement["frames"] - 1) / measurement["fps"]
    return np.linspace(0, last, count).round(2).tolist()


def replace_section(path: Path, section: str, markers: tuple[str, str] = (BEGIN, END)) -> None:
    """Replace the section between the document's markers, or append it; a missing document is created."""
    begin, end = markers
    text = path.read_text() if path.exists() else f"# Results\n\n{begin}\n{end}\n"
    if begin not in text:
        text += f"\n{begin}\n{end}\n"
    before, after = text.index(begin), text.index(end) + len(end)
    path.write_text(text[:before] + section + text[after:])
