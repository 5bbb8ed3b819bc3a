"""Masked clips: conditioning latents stay clean until the clip reaches the level of their mask."""

from __future__ import annotations

import pytest
import torch
from support.exact import NOISE, Mixing, build_solver, clean_latents, joined, sigmas_of
from torch import Tensor

from pavdm_cli.generation.reencode import with_reencoding
from pavdm_cli.sampling.loop import sample, state_from_clip
from pavdm_cli.sampling.masked_clips import ClipCondition, sample_masked_clips
from pavdm_cli.sampling.noise import add_noise
from pavdm_cli.sampling.schedule import rn


def anew(latents: Tensor) -> Tensor:
    """Stands for decoding and encoding: not the same latents, and applied twice not the same either."""
    return torch.tanh(latents) + 0.5


class Together(Mixing):
    """As `Mixing`, with a memory that is the overlap itself, put before the window: so that both ways must agree."""

    def prefill(self, overlap: Tensor, level: int, /) -> Tensor:
        return overlap

    def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
        before = window[:, :0] if memory is None else memory
        rows = torch.cat([levels.new_zeros(before.shape[1]), levels])
        return super().__call__(torch.cat([before, window], dim=1), rows, None)[:, before.shape[1] :]


@pytest.mark.parametrize("num_given", [0, 2])
def test_an_edit_ratio_of_none_is_clip_after_clip_as_before(num_given):
    schedule = rn(4, 5, 2)
    sigmas = sigmas_of(schedule)
    start = state_from_clip(schedule, clean_latents(range(-num_given, 0)), sigmas) if num_given else None
    plain = sample(
        schedule, with_reencoding(Together(), anew, start), NOISE, build_solver(sigmas), chunks=3, start=start
    )
    masked = sample_masked_clips(
        schedule, Together(), NOISE, build_solver(sigmas), chunks=3, start=start, condition=ClipCondition(0.0, anew)
    )
    torch.testing.assert_close(joined([clip.latents for clip in masked]), joined(list(plain)), rtol=0, atol=1e-12)


def test_an_edit_ratio_noises_what_is_shown_once_from_that_level_on():
    schedule, edit = rn(6, 4, 2), 0.7
    sigmas, calls = sigmas_of(schedule), list[tuple[Tensor, list[int]]]()

    class Seeing(Mixing):
        def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
            assert memory is None
            calls.append((window, levels.tolist()))
            return super().__call__(window, levels, None)

    condition = ClipCondition(edit, anew)
    clips = sample_masked_clips(schedule, Seeing(), NOISE, build_solver(sigmas), chunks=2, condition=condition)
    latents = [clip.latents for clip in clips]
    conditioning, second = anew(latents[0][:, -2:]), calls[schedule.steps :]
    first = next(now for now in range(6) if float(sigmas[6 - now]) <= edit)
    for now, (window, levels) in enumerate(second):
        active = now >= first
        assert levels == [6 - now if active else 0] * 2 + [6 - now] * 4
        assert torch.equal(window[:, :2], conditioning) != active
    fresh = torch.stack([NOISE(index, 6 + first) for index in (2, 3)], dim=1).double()
    torch.testing.assert_close(second[first][0][:, :2], add_noise(conditioning, fresh, sigmas[6 - first]))
    assert [chunk.shape[1] for chunk in latents] == [4, 4]
