"""Planted bugs: an exact denoiser recovers the video in spite of them, so what it is shown has to give them away."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.exact import NOISE, SCHEDULES, Exact, every_method, run_exact, sigmas_of
from torch import Tensor

from pavdm_cli.sampling import loop
from pavdm_cli.sampling.loop import State, sample
from pavdm_cli.sampling.schedule import Schedule

pytestmark = pytest.mark.usefixtures("either_way")

real: dict[str, Callable[..., Any]] = {
    name: getattr(loop, name) for name in ("move_on", "recall", "advance", "draw", "shift")
}


def stale_overlap(state: State, *rest: Any) -> Any:
    return replace(real["move_on"](state, *rest), overlap=state.overlap)


def stale_memory() -> Callable[..., Any]:
    kept: list[Any] = []

    def recall(*args: Any) -> Any:
        memory = real["recall"](*args)
        if memory is not None:
            kept.append(memory)
        return kept[0] if kept else None

    return recall


def late_memory() -> Callable[..., Any]:
    kept: list[Any] = [None]

    def recall(*args: Any) -> Any:
        kept.append(real["recall"](*args))
        return kept[-2]

    return recall


def wrong_step_size(*args: Any, denoiser: Any, step_sizes: Tensor) -> Any:
    return real["advance"](*args, denoiser=denoiser, step_sizes=step_sizes.roll(-1))


def step_for_the_oldest_only(window: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    moved = real["advance"](window, *args, **kwargs)
    return torch.cat([moved[:, :1], window[:, 1:]], dim=1)


def one_noise_for_all_steps(noise: Any, latents: range, like: Tensor, step: int | None = None) -> Any:
    return real["draw"](noise, latents, like, None if step is None else 0)


def noise_in_front(window: Tensor, noise: Tensor, leaving: int) -> Tensor:
    return torch.cat([noise, window[:, leaving:]], dim=1)


BUGS: dict[str, Callable[[], tuple[str, Any]]] = {
    "stale overlap": lambda: ("move_on", stale_overlap),
    "stale memory": lambda: ("recall", stale_memory()),
    "memory one shift late": lambda: ("recall", late_memory()),
    "wrong step size": lambda: ("advance", wrong_step_size),
    "step for the oldest only": lambda: ("advance", step_for_the_oldest_only),
    "noise in front": lambda: ("shift", noise_in_front),
}
PATCHED = [(bug, name) for bug in BUGS for name in ("pa", "pa-chunk-1", "rn", "rw", "fifo")]
PATCHED = [case for case in PATCHED if case not in {("noise in front", "rn"), ("noise in front", "rw")}]


@pytest.mark.parametrize(("bug", "name"), PATCHED)
def test_a_bug_in_the_loop_is_caught(bug: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, *BUGS[bug]())
    with pytest.raises(AssertionError):
        run_exact(SCHEDULES[name])


@every_method
@pytest.mark.parametrize("off", [-1, 1])
def test_a_level_off_by_one_is_caught(schedule: Schedule, off: int, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = Schedule.levels
    monkeypatch.setattr(Schedule, "levels", lambda *args: tuple(level + off for level in levels(*args)))
    with pytest.raises(AssertionError):
        run_exact(schedule)


@every_method
def test_swapped_noise_is_caught(schedule: Schedule) -> None:
    with pytest.raises(AssertionError):
        run_exact(schedule, noise=lambda index, step=None: NOISE(index ^ 1, step))


def test_an_overlap_re_noised_with_old_noise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw", one_noise_for_all_steps)
    with pytest.raises(AssertionError):
        run_exact(SCHEDULES["rw"])


def test_an_overlap_at_the_wrong_level_is_caught() -> None:
    schedule = SCHEDULES["rw"]
    checker = Exact(schedule, NOISE, sigmas_of(schedule), chunks=3)
    with pytest.raises(AssertionError):
        list(sample(replace(schedule, renoised=False), checker, NOISE, sigmas_of(schedule), chunks=3))
