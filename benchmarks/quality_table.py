"""Write the tables of docs/quality.md from the last stored rows of pocket_bars.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pavdm_cli.evaluation.videos import PARTIAL

ROOT = Path(__file__).parents[1]
RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "pocket.jsonl", ROOT / "docs" / "quality.md"
Bars = Mapping[str, Mapping[str, Any]]
Format = Callable[[float], str]


def decibels(value: float) -> str:
    """A PSNR."""
    return f"{value:.1f} dB"


def percent(value: float) -> str:
    """A fraction in percent."""
    return f"{value * 100:.0f} %"


def points(value: float) -> str:
    """A difference of fractions in percentage points."""
    return f"{value * 100:.0f} points"


def plain(value: float) -> str:
    """A number with up to two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


FIGURES: dict[str, dict[str, tuple[str, Format]]] = {  # by part: name of the bar -> label and format
    "full-size": {
        "PSNR at 192x128, dB": ("192x128, 16 fps, decoded from held-out scenes: all pixels", decibels),
        "object PSNR at 192x128, dB": ("pixels of the object", decibels),
        "PSNR loss of interpolated frames, dB": ("PSNR loss of frames between coded ones", decibels),
        "edge strength by day, of real": ("strength of edges by day, relative to rendered frames", plain),
        "edge strength at night, of real": ("strength of edges at night", plain),
        "speckle in flat sky, of 255": ("noise in flat sky, of 255 levels", plain),
        "shimmer": ("share of change that optical flow does not predict", plain),
    },
    "vae": {
        "PSNR at 96x64, dB": ("96x64, 8 fps: all pixels", decibels),
        "object PSNR at 96x64, dB": ("pixels of the object", decibels),
        "motion unevenness of the VAE": ("unevenness of motion from frame to frame", plain),
    },
    "videos": {
        "terrain accuracy": ("place as prompted", percent),
        "time accuracy": ("time of day as prompted", percent),
        "weather accuracy": ("weather as prompted", percent),
        "object accuracy": ("object as prompted", percent),
        "color accuracy": ("color as prompted", percent),
        "motion accuracy": ("motion as prompted", percent),
        "camera accuracy": ("camera motion as prompted, read by the probe", percent),
        "camera accuracy over land, by registration": ("camera motion over land, by registering the ground", percent),
        "frames with exactly one object": ("frames with exactly one object", percent),
        "first 8 frames with exactly one object": ("the same, first 8 frames", percent),
        "videos without an object in frame 0": ("videos whose first frame shows no whole object", plain),
        "boundary ratio, of real": (
            "change at chunk boundaries relative to inside chunks, relative to real video",
            plain,
        ),
        "change inside chunks, of real": ("change inside chunks, relative to real video", plain),
    },
    "minute": {
        "accuracy, last seconds minus first": (
            "a minute, last 10 s minus first 10 s: attributes as prompted",
            points,
        ),
        "one object, last seconds minus first": ("the same: frames with exactly one object", points),
        "drift of brightness, z": ("drift of brightness over a minute, in standard deviations of real video", plain),
        "drift of contrast, z": ("drift of contrast", plain),
        "drift of sharpness, z": ("drift of sharpness", plain),
        "drift of saturation, z": ("drift of saturation", plain),
    },
}


def load_bars(part: str, path: Path = RESULTS) -> Bars:
    """The bars of the last row of a part."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    bars: Bars = [row for row in rows if row["part"] == part][-1]["bars"]
    return bars


def limits(bar: Mapping[str, Any], form: Format) -> str:
    """The limits of a bar in words."""
    if {"low", "high"} <= bar.keys():
        return f"{form(bar['low'])} to {form(bar['high'])}"
    return f"at least {form(bar['low'])}" if "low" in bar else f"at most {form(bar['high'])}"


def quality_table() -> str:
    """All figures of full prompts."""
    return "\n".join(["| figure | bar | `pocket` |", "|---|---|---|", *_figure_rows()])


def partial_table() -> str:
    """Short prompts, by class."""
    bars, lines = load_bars("partial"), ["| short prompts | bar | `pocket` |", "|---|---|---|"]
    for label, name in (
        ("object as prompted", "object accuracy"),
        ("frames with exactly one object", "exactly one object"),
    ):
        measured = [bars[f"{name}, {group}"] for group in PARTIAL]
        shares = ", ".join(f"{bar['value'] * 100:.0f}" for bar in measured)
        missed = "" if all(bar["passed"] for bar in measured) else ": missed"
        lines.append(f"| {label} | at least {percent(measured[0]['low'])} | {shares} %{missed} |")
    return "\n".join(lines)


def _figure_rows() -> Iterator[str]:
    for part, figures in FIGURES.items():
        bars = load_bars(part)
        for name, (label, form) in figures.items():
            missed = "" if bars[name]["passed"] else ": missed"
            yield f"| {label} | {limits(bars[name], form)} | {form(bars[name]['value'])}{missed} |"


def main() -> None:
    """Rewrite both tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, lines in (("quality", quality_table()), ("partial", partial_table())):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}{lines}\n{end}{rest.split(end)[1]}"
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
