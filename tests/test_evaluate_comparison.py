"""Paired comparisons: sign test, bootstrap interval and correction against known values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pavdm_cli.evaluation.comparison import bootstrap_interval, compare, holm, sign_test, z_scores


def test_the_sign_test_is_exact_and_leaves_ties_out() -> None:
    assert sign_test(np.ones(12)) == pytest.approx(2 / 2**12)
    assert sign_test(np.array([1.0] * 9 + [-1.0])) == pytest.approx(22 / 1024)
    assert sign_test(np.array([1.0, 0, 0, 0])) == sign_test(np.array([1.0])) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_correction_never_makes_a_p_value_smaller_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
    assert [q for _, q in sorted(zip(p_values, corrected, strict=True))] == sorted(corrected)


def test_holm_on_known_values() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_the_interval_contains_the_mean_and_is_deterministic() -> None:
    differences = np.random.default_rng(0).normal(1, 0.5, 30)
    low, high = bootstrap_interval(differences)
    assert low < differences.mean() < high
    assert (low, high) == bootstrap_interval(differences)
    assert high - low == pytest.approx(2 * 1.96 * differences.std() / 30**0.5, rel=0.15)


def rows(jumps: list[float], drift: float = 0.0) -> list[dict[str, float | None]]:
    return [
        {"largest_jump": jump, "drift_noise": drift, "dynamics": jump / 10, "boundary_ratio": None} for jump in jumps
    ]


def test_a_significant_difference_names_the_better_side_or_for_dynamics_the_lower() -> None:
    rng = np.random.default_rng(1)
    a, b = rows(list(rng.uniform(1, 1.3, 14)), -0.01), rows(list(rng.uniform(2, 2.5, 14)), 0.01)
    results = {metric.metric: metric for metric in compare(a, b)}
    assert (results["largest_jump"].result, results["dynamics"].result) == ("A better", "A lower")
    assert results["drift_noise"].result == "tie"  # equal in absolute value
    assert "boundary_ratio" not in results  # no video has it
    assert results["largest_jump"].low > 0.5


def test_equal_sets_tie() -> None:
    same = rows([1.0, 1.2, 1.4])
    assert {metric.result for metric in compare(same, same)} == {"tie"}


def test_z_scores_need_three_references_that_differ() -> None:
    real = [{"shake": value, "frozen": 0.0} for value in (1.0, 2.0, 3.0)]
    assert z_scores({"shake": 4.0, "frozen": 0.1, "scenes": 1.0}, real) == {
        "shake": 2.0,
        "frozen": None,
        "scenes": None,
    }
    assert z_scores({"shake": 4.0}, real[:2]) == {"shake": None}
