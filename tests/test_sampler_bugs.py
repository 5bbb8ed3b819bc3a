"""Deliberate bugs in the sampler: the checking denoiser has to detect each of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.exact import NOISE, SCHEDULES, Exact, build_solver, every_method, run_exact, sigmas_of
from torch import Tensor

from pavdm_cli.sampling import loop
from pavdm_cli.sampling.loop import SamplerState, sample
from pavdm_cli.sampling.schedule import Schedule
from pavdm_cli.sampling.solver import Euler

pytestmark = pytest.mark.usefixtures("either_way")

real: dict[str, Callable[..., Any]] = {
    name: getattr(loop, name)
    for name in ("shift_window", "prefill_context", "denoise_step", "sample_noise", "shift_latents")
}


def stale_context(state: SamplerState, *rest: Any) -> Any:
    return replace(real["shift_window"](state, *rest), context=state.context)


def stale_cache() -> Callable[..., Any]:
    caches: list[Any] = []

    def prefill_context(*args: Any) -> Any:
        memory = real["prefill_context"](*args)
        if memory is not None:
            caches.append(memory)
        return caches[0] if caches else None

    return prefill_context


def late_cache() -> Callable[..., Any]:
    caches: list[Any] = [None]

    def prefill_context(*args: Any) -> Any:
        caches.append(real["prefill_context"](*args))
        return caches[-2]

    return prefill_context


def wrong_step_size(*args: Any, denoiser: Any, solver: Euler) -> Any:
    return real["denoise_step"](*args, denoiser=denoiser, solver=replace(solver, step_sizes=solver.step_sizes.roll(-1)))


def step_for_the_oldest_only(window: Tensor, *args: Any, **kwargs: Any) -> Any:
    result, history = real["denoise_step"](window, *args, **kwargs)
    return torch.cat([result[:, :1], window[:, 1:]], dim=1), history


def one_noise_for_all_steps(noise: Any, latents: range, like: Tensor, step: int | None = None) -> Any:
    return real["sample_noise"](noise, latents, like, None if step is None else 0)


def noise_in_front(window: Tensor, noise: Tensor, leaving: int) -> Tensor:
    return torch.cat([noise, window[:, leaving:]], dim=1)


BUGS: dict[str, Callable[[], tuple[str, Any]]] = {
    "stale context": lambda: ("shift_window", stale_context),
    "stale cache": lambda: ("prefill_context", stale_cache()),
    "cache one shift late": lambda: ("prefill_context", late_cache()),
    "wrong step size": lambda: ("denoise_step", wrong_step_size),
    "step for the oldest only": lambda: ("denoise_step", step_for_the_oldest_only),
    "noise in front": lambda: ("shift_latents", noise_in_front),
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


def test_a_context_re_noised_with_old_noise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "sample_noise", one_noise_for_all_steps)
    with pytest.raises(AssertionError):
        run_exact(SCHEDULES["rw"])


def test_a_context_at_the_wrong_level_is_caught() -> None:
    schedule = SCHEDULES["rw"]
    checker = Exact(schedule, NOISE, sigmas_of(schedule), chunks=3)
    with pytest.raises(AssertionError):
        list(
            sample(replace(schedule, noisy_context=False), checker, NOISE, build_solver(sigmas_of(schedule)), chunks=3)
        )
