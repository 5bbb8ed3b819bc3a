"""`pavdm train denoiser --oversample`: clips with some kinds of object are drawn more often."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from support.command import pavdm
from support.tiny_training import denoiser_task

from pavdm_cli.errors import UsageError
from pavdm_cli.pocket_world.vocabulary import OBJECTS
from pavdm_cli.training.batches import BatchConfig, sample_batch
from pavdm_cli.training.levels import POCKET_STAGES, Diagonal
from pavdm_cli.training.pocket.latent_pool import Clips
from pavdm_cli.training.pocket.oversampling import cumulative_weights, parse_factors
from pavdm_cli.training.pocket.runs import Objective
from pavdm_cli.training.pocket.tasks import DenoiserTask

DIAGONAL = Diagonal(24, 6, 2)
CLIPS = Clips(count=60, latents=20)
KINDS = [CLIPS.scene(clip).object for clip in range(CLIPS.count)]
POOL = torch.zeros(CLIPS.count, CLIPS.latents, 2, 1, 1).half()


def drawn_kinds(**config: object) -> list[str]:
    batches = BatchConfig("pa", DIAGONAL, 16, stages=POCKET_STAGES, **config)
    return [KINDS[clip] for step in range(200) for clip in sample_batch(batches, CLIPS, POOL, step).crop.clips]


@pytest.mark.parametrize("fill_batches", [False, True])
def test_clips_are_drawn_as_often_as_asked(fill_batches):
    factors = {KINDS[0]: 3.0, KINDS[1]: 0.5}
    drawn = Counter(drawn_kinds(fill_batches=fill_batches, cumulative_weights=cumulative_weights(CLIPS, factors)))
    weights = Counter({kind: KINDS.count(kind) * factors.get(kind, 1.0) for kind in KINDS})
    for kind, weight in weights.items():
        assert drawn[kind] / drawn.total() == pytest.approx(weight / weights.total(), abs=0.025)


def test_without_factors_runs_are_as_before():
    assert cumulative_weights(CLIPS, parse_factors([])) == ()
    assert cumulative_weights(CLIPS, dict.fromkeys(OBJECTS, 2.0)) == tuple(2.0 * n for n in range(1, 61))


def test_validation_draws_all_clips_equally():
    plain, oversampled = (denoiser_task(cumulative_weights=weights) for weights in ((), (1, 1, 1, 9)))
    assert DenoiserTask.validate(plain) == DenoiserTask.validate(oversampled)
    assert plain.loss(1) != oversampled.loss(1)


def test_weights_record_the_factors():
    assert Objective("pa", oversample=["airplane=3", "bird=2.5"]).metadata["oversample"] == ["airplane=3", "bird=2.5"]
    assert "oversample" not in Objective("pa", oversample=[]).metadata


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["car=2"], "there is no object 'car'"),
        (["airplane"], "the factor of airplane must be a number from 0.01 to 100, got ''"),
        (["airplane=0"], "got '0'"),
        (["airplane=nan"], "got 'nan'"),
        (["airplane=inf"], "got 'inf'"),
        (["bird=2", "bird=3"], "bird is given twice"),
    ],
)
def test_a_wrong_factor_is_one_line(values, message):
    with pytest.raises(UsageError, match=message):
        parse_factors(values)


def test_a_wrong_factor_is_reported_before_any_work(tmp_path):
    code, out, err = pavdm("train", "denoiser", "--output-dir", tmp_path / "run", "--oversample", "car=2")
    assert (code, out) == (2, "")
    assert "hint: known objects: ball, balloon" in err
    assert not (tmp_path / "run").exists()


def test_the_command_draws_them(tmp_path, monkeypatch):
    objectives = []

    def stop(options: object, objective: Objective, *more: object) -> None:
        objectives.append(objective)
        raise UsageError("stop", "here")

    monkeypatch.setattr("pavdm_cli.training.pocket.runs.denoiser_task", stop)
    pavdm("train", "denoiser", "--output-dir", tmp_path / "run", "--oversample", "bird=2", "--oversample", "kite=3")
    assert objectives[0].oversample in (["bird=2", "kite=3"], ("bird=2", "kite=3"))
