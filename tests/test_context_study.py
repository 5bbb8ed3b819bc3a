"""The study of long contexts: interrupted runs, rows of clean commits only, and paired differences in the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield import_module("context")
        for name in [name for name in sys.modules if name.partition(".")[0] in ("paper", "context")]:
            del sys.modules[name]


@pytest.mark.integration
def test_videos_are_made_once_and_reported(context: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, document = tmp_path / "rows.jsonl", tmp_path / "results.md"
    words = [str(tmp_path / "videos"), "--seeds", "1", "--seconds", "1", "--output", str(rows)]
    context.main([*words, "--arms", "1", "2 + sink, in order"])
    stored = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(row["arm"], row["settings"]) for row in stored] == [
        ("1", {"context": 1, "sink": 0, "repeat_positions": True}),
        ("2 + sink, in order", {"context": 2, "sink": 1, "repeat_positions": False}),
    ]
    assert all(row["chunk_ms"] > 0 and row["measurement"]["chunk_frames"] == 4 for row in stored)
    assert all(row["measurement"]["features"] == [] for row in stored)  # which no part of the report needs
    capsys.readouterr()
    context.main([*words, "--arms", "1", "2 + sink, in order", "--report", str(document)])
    assert capsys.readouterr().err == ""  # nothing was generated again
    assert len(rows.read_text().splitlines()) == 2
    assert "| 2 + sink, in order |" in document.read_text()


def test_rows_are_stored_only_from_a_clean_commit(
    context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for commit in ("abc+", None):
        monkeypatch.setattr(context, "commit", lambda commit=commit: commit)
        with pytest.raises(SystemExit, match="from a clean commit"):
            context.main([str(tmp_path)])


def test_the_document_is_made_from_the_stored_rows(context: Any) -> None:
    rows = [json.loads(line) for line in context.RESULTS.read_text().splitlines()]
    text = context.DOCUMENT.read_text(encoding="utf-8")
    begin, end = text.index(context.BEGIN) + len(context.BEGIN), text.index(context.END)
    assert text[begin:end].strip().splitlines() == context.section_lines(rows)
    assert {row["arm"] for row in rows} == context.ARMS.keys()
    assert not any("+" in row["commit"] for row in rows)


def row(arm: str, seed: int, drift: float) -> dict[str, Any]:
    metrics = {"identity_drift": drift, "one_object": 1.0}
    fields = {"arm": arm, "seed": seed, "seconds": 600.0, "weights": "w", "commit": "abc", "chunk_ms": 100.0}
    return fields | {"measurement": {"metrics": metrics}}


def test_only_significant_differences_to_one_chunk_are_shown(context: Any) -> None:
    scenes = (0.1, 0.3, 0.2, 0.4)
    rows = [row("1", seed, drift) for seed, drift in enumerate(scenes)]
    rows += [row("2", seed, drift - 0.05 - 0.001 * seed) for seed, drift in enumerate(scenes)]
    rows += [row("4", seed, drift + (0.02 if seed % 2 else -0.02)) for seed, drift in enumerate(scenes)]
    rows += [row("2", seed, 0.7) | {"seconds": 60.0} for seed in range(3)]  # another part
    text = context.section_lines(rows)
    second = next(number for number, line in enumerate(text) if line.startswith("3 prompts of 60 s"))
    assert text[2].startswith("4 prompts of 600 s")
    lines = {line.split("|")[1].strip(): line.split("|")[2] for line in text[:second] if "|" in line}
    assert lines["1"].strip() == lines["4"].strip() == "0.25"
    assert lines["2"].strip().startswith("0.199 (-0.0515 (-0.05")


def test_times_are_compared_only_within_one_run(context: Any) -> None:
    def arm(commit: str, time: float) -> dict[int, dict[str, Any]]:
        metrics = {"chunk_ms": time}
        return {seed: {"commit": commit, "measurement": {"metrics": metrics}} for seed in range(4)}

    assert context.arm_line("2", arm("abc", 50.0), arm("abc", 90.0)).split("|")[-2].strip().startswith("50 (-40")
    assert context.arm_line("2", arm("def", 50.0), arm("abc", 90.0)).split("|")[-2].strip() == "50"
