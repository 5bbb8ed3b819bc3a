"""Results are compared by their raw samples, and only if their configurations agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pavdm_cli.app import app
from pavdm_cli.bench.compare import compare
from pavdm_cli.errors import InputError, UsageError

STEADY = [1.0, 1.01, 0.99, 1.0, 1.0]


def row(samples: list[float], kind: str = "throughput", **config: Any) -> dict[str, Any]:
    engine = {"fused_kernels": config.pop("fused_kernels", True)}
    return {"kind": kind, "config": {"steps": 6, "engine": engine} | config, "samples": {"steady_steps_s": samples}}


def write(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def verdict(folder: Path, samples: list[float], others: list[float]) -> bool:
    comparisons = compare(write(folder, "a.jsonl", row(samples)), write(folder, "b.json", row(others)))
    return any(comparison.slower for comparison in comparisons)


def test_a_step_five_per_cent_slower_is_a_regression_and_two_is_none(tmp_path: Path) -> None:
    assert verdict(tmp_path, STEADY, [1.05 * sample for sample in STEADY])
    assert not verdict(tmp_path, STEADY, [1.02 * sample for sample in STEADY])
    assert not verdict(tmp_path, STEADY, [0.5 * sample for sample in STEADY])


def test_what_scatters_in_either_run_may_differ_by_three_times_that(tmp_path: Path) -> None:
    noisy = [0.9, 1.1, 1.0, 0.9, 1.1]
    for old, new in ((noisy, [1.25] * 5), ([1.0] * 5, [1.25 * sample for sample in noisy])):
        assert not verdict(tmp_path, old, new)
    assert verdict(tmp_path, noisy, [1.4] * 5)


def test_one_slow_sample_of_many_is_no_regression(tmp_path: Path) -> None:
    assert not verdict(tmp_path, STEADY, [*STEADY, 9.0])


def test_what_has_fewer_than_three_samples_is_shown_and_never_judged(tmp_path: Path) -> None:
    for old, new in (([7.0], [7.4]), (STEADY, [9.0, 9.0]), ([1.0, 1.0], [9.0] * 5)):
        paths = write(tmp_path, "a.json", row(old)), write(tmp_path, "b.json", row(new))
        (comparison,) = compare(*paths)
        assert (comparison.allowed, comparison.slower) == (None, False)
        result = CliRunner().invoke(app, ["bench", "compare", *map(str, paths)])
        assert (result.exit_code, "too few" in result.stdout) == (0, True)
        assert f"{comparison.ratio:.3f}" in result.stdout
    assert verdict(tmp_path, [7.0] * 3, [7.4] * 3)


def test_rows_of_another_configuration_are_rejected_by_the_setting_that_differs(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", row(STEADY))
    for other, message in (
        (row(STEADY, steps=7), "config.steps: 6 and 7"),
        (row(STEADY, fused_kernels=False), "config.engine.fused_kernels: True and False"),
        (row(STEADY, kind="latency"), "kind: throughput and latency"),
        (row(STEADY, window=3), "config.window: None and 3"),
    ):
        with pytest.raises(UsageError, match=message):
            compare(path, write(tmp_path, "b.jsonl", other))


def test_the_last_row_of_a_configuration_counts_and_others_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", row([5.0]), row(STEADY), row([1.0], steps=9))
    (comparison,) = compare(path, write(tmp_path, "b.jsonl", row(STEADY), row([1.0], steps=10)))
    assert (comparison.name, comparison.ratio, comparison.slower) == ("steady_steps", 1.0, False)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"a": 1}', "\xff"])
def test_a_file_without_rows_is_an_input_error(tmp_path: Path, text: str) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(text, encoding="latin-1")
    with pytest.raises(InputError):
        compare(write(tmp_path, "a.jsonl", row(STEADY)), broken)


def hostile(samples: str) -> str:
    return f'{{"kind": "throughput", "config": {{}}, "samples": {samples}}}'


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        hostile('{"a_s": ["1"]}'),
        hostile('{"a_s": [NaN]}'),
        hostile('{"a_s": [1e999]}'),
        hostile('{"a_s": [-1]}'),
        hostile('{"a_s": {"b": 1}}'),
        hostile("[1]"),
        hostile('{"a_s": [1' + "0" * 400 + "]}"),
        hostile("{}").replace('"throughput"', "[]"),
        hostile('{"\\ud800": [1]}'),
    ],
)
def test_rows_of_wrong_types_are_an_input_error_in_one_line(tmp_path: Path, text: str) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text(text)
    with pytest.raises(InputError) as excinfo:
        compare(write(tmp_path, "a.jsonl", row(STEADY)), broken)
    assert "\n" not in excinfo.value.message


def test_samples_that_are_all_zero_are_not_compared(tmp_path: Path) -> None:
    assert compare(write(tmp_path, "a.jsonl", row([0.0] * 3)), write(tmp_path, "b.jsonl", row(STEADY))) == []


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (2.0, 1)])
def test_the_exit_code_says_whether_it_got_slower(tmp_path: Path, factor: float, code: int) -> None:
    paths = [write(tmp_path, name, row([f * s for s in STEADY])) for name, f in (("a.json", 1.0), ("b.json", factor))]
    words = ["bench", "compare", *map(str, paths)]
    table, result = CliRunner().invoke(app, words), CliRunner().invoke(app, [*words, "--json"])
    assert table.exit_code == result.exit_code == code
    assert f"{factor:.3f}" in table.stdout
    (comparison,) = json.loads(result.stdout)
    assert (comparison["ratio"], comparison["slower"]) == (factor, factor > 1)
