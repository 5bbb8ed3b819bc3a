"""Wrappers of a denoiser: batched guidance, and windows longer than the model's."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from support.exact import NOISE, SHAPE, Mixing, build_solver, sigmas_of
from torch import Tensor

from pavdm_cli.sampling.denoiser import Cache, FunctionDenoiser, batched_cfg, partition_window
from pavdm_cli.sampling.loop import sample
from pavdm_cli.sampling.schedule import Schedule, fifo, pa, rw


class TwoPrompts(Mixing):
    """Its first half of the batch wants another velocity than its second."""

    def __call__(self, window: Tensor, levels: Tensor, cache: Tensor | None, /) -> Tensor:
        conditional, unconditional = super().__call__(window, levels, cache).chunk(2)
        return torch.cat([conditional + 1, unconditional])


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("schedule", [pa(6, 6, 2), rw(4, 4, 2)])
def test_guidance_extrapolates_from_the_unconditional_velocity(schedule: Schedule) -> None:
    """Both halves see the same latents and overlap, so the guided velocity is the plain one plus the scale."""

    class Shifted(Mixing):
        def __call__(self, window: Tensor, levels: Tensor, cache: Tensor | None, /) -> Tensor:
            return super().__call__(window, levels, cache) + 7

    sigmas, inner = sigmas_of(schedule), TwoPrompts()
    out = list(sample(schedule, batched_cfg(inner, 7.0), NOISE, build_solver(sigmas), chunks=4))
    expected = list(sample(schedule, Shifted(), NOISE, build_solver(sigmas), chunks=4, graph_capturer=None))
    assert inner.calls == schedule.total_steps(4)
    assert out[0].shape[0] == SHAPE[0]
    torch.testing.assert_close(torch.cat(out, 1), torch.cat(expected, 1), atol=1e-10, rtol=0)


def record(calls: list[tuple[list[Any], Cache]]) -> FunctionDenoiser:
    """Gives the window back as velocity, and notes the levels and the cache of each call."""

    def velocity(window: Tensor, levels: Tensor, cache: Cache | None) -> Tensor:
        calls.append((levels.tolist(), cache))
        return window

    return FunctionDenoiser(lambda overlap, level: "cache", velocity)


@pytest.mark.parametrize("span", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("length", range(1, 14))
def test_a_long_window_is_covered_once_with_cleaner_latents_in_front(length: int, span: int) -> None:
    calls: list[tuple[list[Any], Cache]] = []
    window, levels = torch.randn(1, length, 1, 1, 1), torch.arange(1, length + 1, dtype=torch.int32)
    assert torch.equal(partition_window(record(calls), span)(window, levels, "cache"), window)
    assert [cache for _, cache in calls] == ["cache"] + [None] * (len(calls) - 1)
    assert all(len(window) == min(span, length) for window, _ in calls)
    ends = [window[-1] for window, _ in calls]
    assert all(after - before <= span // 2 for before, after in pairwise(ends))
    assert ends[-1] == length


def test_a_long_window_is_split_alike_where_rows_have_their_own_levels() -> None:
    calls: list[tuple[list[Any], Cache]] = []
    window, levels = torch.randn(2, 6, 1, 1, 1), torch.arange(12, dtype=torch.int32).view(2, 6)
    assert torch.equal(partition_window(record(calls), 4)(window, levels, "cache"), window)
    assert [rows for rows, _ in calls] == [[[0, 1, 2, 3], [6, 7, 8, 9]], [[2, 3, 4, 5], [8, 9, 10, 11]]]


@pytest.mark.usefixtures("either_way")
def test_partitioning_changes_nothing_for_a_model_that_looks_at_single_latents() -> None:
    schedule = fifo(8, 4, 2)
    denoiser = FunctionDenoiser(lambda overlap, level: None, lambda window, levels, cache: torch.tanh(window))
    sigmas = sigmas_of(schedule)
    whole = sample(schedule, denoiser, NOISE, build_solver(sigmas), chunks=5, graph_capturer=None)
    parts = sample(schedule, partition_window(denoiser, 4), NOISE, build_solver(sigmas), chunks=5)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
