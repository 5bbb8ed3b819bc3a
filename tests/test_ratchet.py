"""Quality never decreases: no stored row is worse than the best before it, and the bundled weights were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.models import POCKET

from pavdm_cli.evaluation import ratchet
from pavdm_cli.evaluation.bars import Bar
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import DENOISER_FILE, VAE_FILE

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "pocket.jsonl"
VIDEOS = {"world": "w", "seeds": [0, 96], "length": 10.0, "method": "pa", "steps": 12, "guidance": 1.5}
SHARE, MIN_VAE_PSNR, MAX_BOUNDARY_JUMP, CHANGE, MAX_DRIFT = (
    Bar("object accuracy", 0.5, low=0.8),
    Bar("PSNR at 96x64, dB", 38.0, low=36.0),
    Bar("boundary ratio, of real", 1.2, high=1.5),
    Bar("change inside chunks, of real", 1.2, low=0.5, high=1.5),
    Bar("drift of sharpness, z", 1.0, high=2.0),
)


def row(name: str, value: float, part: str = "videos", **settings: object) -> dict[str, Any]:
    return {"part": part, "settings": VIDEOS | settings, "bars": {name: {"value": value}}}


def tighten(bar: Bar, *values: float) -> Bar:
    return ratchet.tighten([bar], "videos", VIDEOS, [row(bar.name, value) for value in values])[0]


def test_without_earlier_rows_a_bar_is_unchanged():
    assert tighten(SHARE) == SHARE


def test_the_best_row_counts_rather_than_the_last():
    assert tighten(MIN_VAE_PSNR, 38.4, 37.0).low == pytest.approx(38.3)
    assert not tighten(MIN_VAE_PSNR, 38.4, 37.0).passed
    assert tighten(MIN_VAE_PSNR, 38.05).passed


def test_a_bar_is_never_loosened():
    assert tighten(SHARE, 0.3).low == 0.8
    assert tighten(MAX_BOUNDARY_JUMP, 3.0).high == 1.5


def test_fractions_may_vary_by_two_standard_errors():
    assert tighten(SHARE, 0.9).low == pytest.approx(0.9 - 2 * (0.9 * 0.1 / 96) ** 0.5 - 1 / 96 - ratchet.ROUNDING)
    assert tighten(SHARE, 1.0).low == pytest.approx(1 - 1 / 96 - ratchet.ROUNDING)
    assert tighten(SHARE, 1.0).low <= round(95 / 96, 4)  # as it is stored


def test_bars_never_exceed_real_videos():
    assert tighten(MAX_BOUNDARY_JUMP, 0.7).high == tighten(MAX_BOUNDARY_JUMP, 1.0).high == pytest.approx(1.016)
    assert tighten(MAX_DRIFT, 0.1).high == pytest.approx(1.3)


def test_two_sided_bars_are_tightened_around_the_middle():
    tightened = tighten(CHANGE, 1.05, 1.4)
    assert (tightened.low, tightened.high) == (pytest.approx(0.864), pytest.approx(1.136))
    assert not tightened.passed


@pytest.mark.parametrize("other", [{"world": "another"}, {"seeds": [0, 32]}, {"steps": 6}, {"length": 60.0}])
def test_rows_with_other_settings_are_ignored(other):
    rows = [row(SHARE.name, 1.0, **other), row(SHARE.name, 1.0, part="minute")]
    without_world = row(SHARE.name, 1.0)
    del without_world["settings"]["world"]
    assert ratchet.tighten([SHARE], "videos", VIDEOS, [*rows, without_world]) == [SHARE]


def bars_of(stored: ratchet.Row) -> list[Bar]:
    """The bars of a stored row, with their bounds at the time."""
    bounds = ({name: bar[name] for name in ("low", "high") if name in bar} for bar in stored["bars"].values())
    return [Bar(n, bar["value"], **b) for (n, bar), b in zip(stored["bars"].items(), bounds, strict=True)]


def test_no_stored_row_is_worse_than_those_before_it():
    rows = ratchet.load_rows(RESULTS)
    for index, stored in enumerate(rows):
        before = bars_of(stored)
        after = ratchet.tighten(before, stored["part"], stored["settings"], rows[:index])
        assert [new.name for old, new in zip(before, after, strict=True) if old.passed and not new.passed] == []


def test_the_bundled_weights_were_measured_last():
    digest = checkpoint.digest(POCKET.folder / VAE_FILE, POCKET.folder / DENOISER_FILE)
    latest = {row["part"]: row for row in ratchet.load_rows(RESULTS)}
    assert [latest[part]["settings"]["weights"] for part in ("videos", "minute")] == [digest, digest]
