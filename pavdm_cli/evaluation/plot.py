"""Metrics over time as small multiples, one curve per video: a PNG, an SVG, or a page of HTML with the numbers."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pavdm_cli.errors import OutputError
from pavdm_cli.evaluation.measure import CLIP_SECONDS, Measurement

PLOT_SUFFIXES = (".png", ".svg", ".html")
PANELS = {  # series of a measurement, and their titles
    "brightness": "Brightness",
    "contrast": "Contrast",
    "saturation": "Saturation",
    "sharpness": "Sharpness (mean gradient)",
    "noise": "Noise (standard deviation)",
    "change": "Change from frame to frame",
    "color_similarity": "Color similarity to the previous frame",
    "motion": "Motion (frame heights per second)",
    "one_object": "Frames with exactly one object",
    "color_error": "Color error of the object",
    "identity_drift": "Change of the object since its first two seconds",
}
COLUMNS, PANEL_INCHES, MAX_LABELS = 2, (5.2, 2.1), 8
COLORS = ("#2a6f97", "#e07a5f", "#3d8b5f", "#9b5de5", "#b5838d", "#f2a541", "#c1121f", "#6d6875")
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": "#e6e6e6",
    "font.size": 9,
    "svg.hashsalt": "pavdm",
}


def write_plot(path: Path, measurements: Sequence[Measurement], rows: Sequence[Sequence[str]]) -> None:
    """Write the plot in the format of its suffix; `rows`: the table of an HTML page. Raises: OutputError."""
    figure, suffix = make_figure(measurements), path.suffix.lower()
    temporary = path.with_name(path.name + ".tmp")  # an earlier plot is replaced as a whole
    try:
        if suffix == ".html":
            temporary.write_text(html_page(figure, rows), encoding="utf-8")
        else:
            metadata = {"Date": None} if suffix == ".svg" else None
            figure.savefig(temporary, format=suffix[1:], dpi=144, metadata=metadata)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}", "choose another file with --plot") from None


def make_figure(measurements: Sequence[Measurement]) -> Any:
    """A matplotlib figure with one panel per series that any of the videos has."""
    import matplotlib
    from matplotlib.figure import Figure

    names = [name for name in PANELS if any(name in measurement.clips for measurement in measurements)]
    lines = -(-len(names) // COLUMNS)
    width, height = PANEL_INCHES
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMNS * width, lines * height + 0.5), layout="constrained")
        panels = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
        for name, panel in zip(names, panels, strict=False):
            _draw_panel(panel, name, measurements)
        for panel in panels[len(names) :]:
            panel.set_visible(False)
        for panel in panels[max(0, len(names) - COLUMNS) : len(names)]:
            panel.set_xlabel("seconds")
        if len(measurements) <= MAX_LABELS:
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    return figure


def _draw_panel(panel: Any, name: str, measurements: Sequence[Measurement]) -> None:
    panel.set_title(PANELS[name])
    for number, measurement in enumerate(measurements):
        values = measurement.clips.get(name, [])
        times = [CLIP_SECONDS * (index + 0.5) for index in range(len(values))]
        marker = "o" if len(values) < 3 else None
        color = COLORS[number % len(COLORS)]
        panel.plot(times, values, color=color, linewidth=1.6, marker=marker, label=os.path.basename(measurement.path))
    panel.margins(x=0.02, y=0.15)


def html_page(figure: Any, rows: Sequence[Sequence[str]]) -> str:
    """A self-contained HTML page: the table, then the figure as SVG. Everything from a file is escaped."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    head, *body = rows
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in body)
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
        "table{border-collapse:collapse;margin-bottom:2rem}td,th{padding:.25rem .8rem;text-align:right}"
        "td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f6f6f6}svg{width:100%;height:auto}"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Video metrics</title>'
        f"<style>{style}</style></head>\n<body><h1>Video metrics</h1>\n"
        f"<table><tr>{cells}</tr>\n{lines}</table>\n{svg[svg.index('<svg') :]}</body></html>\n"
    )
