"""Oversampling: clips of the kinds of object that are hard to learn are drawn more often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from pavdm_cli.errors import UsageError
from pavdm_cli.pocket_world.vocabulary import OBJECTS
from pavdm_cli.training.pocket.latent_pool import Clips

MAX_FACTOR = 100.0


def parse_factors(values: Sequence[str]) -> dict[str, float]:
    """How many times as often clips of each kind are drawn, from KIND=FACTOR. Raises: UsageError."""
    factors: dict[str, float] = {}
    for value in values:
        kind, _, factor = value.partition("=")
        if kind not in OBJECTS:
            raise UsageError(f"--oversample: there is no object {kind!r}", f"known objects: {', '.join(OBJECTS)}")
        if kind in factors:
            raise UsageError(f"--oversample: {kind} is given twice", "give one factor for each object")
        factors[kind] = _parse_factor(kind, factor)
    return factors


def cumulative_weights(clips: Clips, factors: Mapping[str, float]) -> tuple[float, ...]:
    """Cumulative weights of the clips, for `BatchConfig`; without factors none."""
    if not factors:
        return ()
    return tuple(accumulate(factors.get(clips.scene(index).object, 1.0) for index in range(clips.count)))


def _parse_factor(kind: str, text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1 / MAX_FACTOR <= factor <= MAX_FACTOR:  # also NaN
        bounds = f"{1 / MAX_FACTOR:g} to {MAX_FACTOR:g}"
        raise UsageError(
            f"--oversample: the factor of {kind} must be a number from {bounds}, got {text!r}",
            f"for example --oversample {kind}=2",
        )
    return factor
