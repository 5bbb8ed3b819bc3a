"""Means, paired differences and verdicts over the rows of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pavdm_cli.evaluation.comparison import LEVEL, bootstrap_interval, holm, sign_test
from pavdm_cli.evaluation.distances import jackknife_interval
from pavdm_cli.evaluation.set_distances import DISTANCES, features_of, sum_all

Rows = Mapping[int, Mapping[str, Any]]  # by seed: one arm


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: one of our metrics, and the column of the paper's table 1 that it replaces."""

    title: str
    metric: str
    description: str
    lower_is_better: bool = True
    paper: str = ""


COLUMNS = (
    Column(
        "object change",
        "identity_drift",
        "change of the object from its first two seconds to the end",
        paper="subject consistency",
    ),
    Column(
        "least color similarity",
        "min_color_similarity",
        "of neighboring frames",
        False,
        paper="background consistency",
    ),
    Column(
        "unpredicted change",
        "unpredicted",
        "share of the change that optical flow does not predict",
        paper="motion smoothness",
    ),
    Column(
        "dynamic degree",
        "dynamic_degree",
        "largest 5 % of optical flow, frame heights per second",
        False,
        paper="dynamic degree",
    ),
    Column(
        "adherence",
        "adherence",
        "share of clips that show the prompt's words, by the probe",
        False,
        paper="aesthetic quality",
    ),
    Column(
        "sharpness drift",
        "drift_sharpness",
        "size of the change from the first 15 % to the last",
        paper="imaging quality",
    ),
    Column("scenes", "scenes", "by PySceneDetect, as in the paper", paper="number of scenes"),
    Column(
        "Fréchet distance",
        "frechet_probe",
        "of the probe's features to real renders of the same scenes",
        paper="FVD, which is of another network",
    ),
)
GROUND_TRUTH_COLUMNS = (
    Column("kernel distance", "kernel_probe", "of the same features"),
    Column(
        "boundary deviation",
        "boundary_deviation",
        "absolute logarithm of the boundary ratio: 0 if boundaries do not show",
    ),
    Column("largest jump", "largest_jump", "largest change of two frames over the median"),
    Column("one object", "one_object", "share of frames with exactly one object", False),
    Column("survival", "object_survival", "share of the video before the object is lost", False),
    Column("color error", "color_error", "of the object, RGB from 0 to 1"),
    Column("speed error", "speed_error", "of the object, frame heights per second"),
)
BY_METRIC = {column.metric: column for column in (*COLUMNS, *GROUND_TRUTH_COLUMNS)}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True, slots=True)
class Claim:
    """An ordering that the paper claims: `better` has the better value of a metric than `worse`."""

    better: str
    worse: str
    metric: str
    source: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for a claim; the difference is positive if the claim holds."""

    claim: Claim
    pairs: int
    difference: Estimate | None
    p_value: float  # after Holm's correction over all claims
    result: str  # "holds", "does not hold", "tie" or "no data"


def value_of(row: Mapping[str, Any], metric: str) -> float | None:
    """A metric of one video; drifts by their absolute value."""
    metrics: Mapping[str, float | None] = row["measurement"]["metrics"]
    if metric == "adherence":
        words = [value for name, value in metrics.items() if name.startswith("adherence_") and value is not None]
        return float(np.mean(words)) if words else None
    if metric == "boundary_deviation":
        ratio = metrics.get("boundary_ratio")
        return abs(float(np.log(ratio))) if ratio else None
    value = metrics.get(metric)
    return abs(value) if value is not None and metric.startswith("drift_") else value


def estimate(rows: Rows, real: Rows, metric: str) -> Estimate | None:
    """Mean of a metric over an arm's videos, or the distance of their clips from those of the real ones."""
    if metric in DISTANCES:
        return _estimate(_jackknife_of(rows, real, metric))
    values = np.array([value for row in rows.values() if (value := value_of(row, metric)) is not None])
    return Estimate(float(values.mean()), *bootstrap_interval(values)) if len(values) else None


def verdicts(claims: Sequence[Claim], arms: Mapping[str, Rows], real: Rows) -> list[Verdict]:
    """The verdict of every claim, with p-values corrected for their number."""
    results = [_differences(claim, arms, real) for claim in claims]
    with_data = [index for index, (_, difference, _) in enumerate(results) if difference is not None]
    p_values = dict(zip(with_data, holm([results[index][2] for index in with_data]), strict=True))
    return [
        Verdict(claim, pairs, difference, p_values.get(index, 1.0), _result(difference, p_values.get(index, 1.0)))
        for index, (claim, (pairs, difference, _)) in enumerate(zip(claims, results, strict=True))
    ]


def _result(difference: Estimate | None, p_value: float) -> str:
    if difference is None:
        return "no data"
    if p_value >= LEVEL or difference.low <= 0 <= difference.high:
        return "tie"
    return "holds" if difference.value > 0 else "does not hold"


def _differences(claim: Claim, arms: Mapping[str, Rows], real: Rows) -> tuple[int, Estimate | None, float]:
    """Pairs, paired difference in the claimed direction, and its uncorrected p-value."""
    better, worse = arms.get(claim.better, {}), arms.get(claim.worse, {})
    seeds = sorted(better.keys() & worse.keys())
    sign = 1 if BY_METRIC[claim.metric].lower_is_better else -1
    if claim.metric in DISTANCES:
        return _distance_difference(
            claim.metric, [{seed: arm[seed] for seed in seeds} for arm in (better, worse)], real
        )
    pairs = [(value_of(better[seed], claim.metric), value_of(worse[seed], claim.metric)) for seed in seeds]
    values = np.array([sign * (b - a) for a, b in pairs if a is not None and b is not None])
    if len(values) < 2:
        return len(values), None, 1.0
    return len(values), Estimate(float(values.mean()), *bootstrap_interval(values)), sign_test(values)


def _distance_difference(metric: str, arms: Sequence[Rows], real: Rows) -> tuple[int, Estimate | None, float]:
    """Like `_differences`, for distances of sets, by leaving one prompt at a time out of both arms and the real videos.

    Source: the jackknife's pseudo-values.
    """
    better, worse = (_jackknife_of(rows, real, metric) for rows in arms)
    seeds = len(arms[0].keys() & real.keys())
    if better is None or worse is None:
        return seeds, None, 1.0
    value, *leave_one_out = (b - a for a, b in zip(better, worse, strict=True))
    pseudo_values = seeds * value - (seeds - 1) * np.array(leave_one_out)  # about independent, with mean `value`
    return seeds, Estimate(value, *bootstrap_interval(pseudo_values)), sign_test(pseudo_values)


def _jackknife_of(rows: Rows, real: Rows, metric: str) -> list[float] | None:
    """A distance with all prompts, then without each."""
    seeds = sorted(rows.keys() & real.keys())
    generated_sums, real_sums = (
        [features_of(arm[seed]["measurement"]["features"]) for seed in seeds] for arm in (rows, real)
    )
    if len(seeds) < 2:
        return None
    all_generated, all_real = sum_all(generated_sums), sum_all(real_sums)
    values = [DISTANCES[metric](all_generated, all_real)]
    values += [
        DISTANCES[metric](all_generated - a, all_real - b) for a, b in zip(generated_sums, real_sums, strict=True)
    ]
    return None if None in values else [value for value in values if value is not None]


def _estimate(values: Sequence[float] | None) -> Estimate | None:
    interval = None if values is None else jackknife_interval(values[0], values[1:])
    return None if interval is None else Estimate(*map(float, interval))
