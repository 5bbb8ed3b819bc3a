"""Training windows with more than one chunk of clean context, and an attention sink."""

from __future__ import annotations

import pytest
import torch
from test_train_batches import CLIPS, DIAGONAL, POOL, STEPS

from pavdm_cli.errors import UsageError
from pavdm_cli.training.batches import BatchConfig, sample_batch
from pavdm_cli.training.levels import POCKET_STAGES
from pavdm_cli.training.pocket.runs import Objective

CONFIG = BatchConfig("pa", DIAGONAL, 4, noise_augmentation=0.0, stages=POCKET_STAGES, max_context=4)


def test_windows_have_up_to_the_largest_context_and_half_of_the_longer_ones_a_sink():
    lengths, sinks = set(), []
    for step in range(STEPS):
        batch, _, _, crop = sample_batch(CONFIG, CLIPS, POOL, step)
        lengths.add(batch.context)
        if batch.context > 2:
            sinks.append(crop.sink)
        numbers = batch.latents[:, :, 0, 0, 0].long() - 100 * torch.tensor(crop.clips)[:, None]
        assert torch.equal(numbers[:, : crop.sink], torch.arange(crop.sink).expand(4, -1))
        window = numbers[:, crop.sink :]
        assert torch.equal(window, window[:, :1] + torch.arange(window.shape[1]))
        assert not batch.loss_mask[:, : batch.context].any()
        assert not batch.timesteps[:, : batch.context].any()
    assert lengths == {0, 2, 4, 6, 8}
    assert set(sinks) == {0, 2}
    assert sinks.count(2) / len(sinks) == pytest.approx(0.5, abs=0.1)


def test_a_run_with_one_chunk_of_context_resumes_with_the_batches_it_was_started_with():
    batch, prompts, _, crop = sample_batch(BatchConfig("pa", DIAGONAL, 4, stages=POCKET_STAGES), CLIPS, POOL, 8)
    assert (crop.clips, crop.starts, crop.context) == ([1, 9, 8, 10], [1, 3, 0, 3], 2)
    assert batch.noise[0, 0].sum().item() == pytest.approx(-0.680944)
    assert prompts[0] == "above the city at dusk, a violet ball, panning left"


def test_a_context_that_does_not_fit_a_clip_is_refused():
    Objective("pa", max_context=4).check(clip_latents=20)
    with pytest.raises(UsageError, match="--context must be at most 4, got 5"):
        Objective("pa", max_context=5).check(clip_latents=20)
    with pytest.raises(UsageError, match="--context needs --method pa"):
        Objective("base", max_context=2).check(clip_latents=20)
