"""A denoiser that knows the whole video, and fails unless it is shown exactly what the method says it must be shown."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from pavdm_cli.sampling.loop import sample, state_from_clip, state_from_renoised_clip
from pavdm_cli.sampling.noise import Noise, noise_levels, seeded_noise, shifted_sigmas
from pavdm_cli.sampling.schedule import Schedule, fifo, pa, rn, rw
from pavdm_cli.sampling.solver import Euler, euler

SHAPE = (2, 3, 2, 2)  # (B, C, H, W)
NOISE = lru_cache(4096)(seeded_noise(5, SHAPE))  # most tests draw the same
SCHEDULES = {
    "pa": pa(6, 6, 2),
    "pa-long-stride": pa(12, 6, 2),
    "pa-widened": pa(2, 8, 2),
    "pa-chunk-1": pa(4, 4, 1),
    "pa-no-overlap": pa(6, 6, 2, context=False),
    "pa-chunk-1-no-overlap": pa(4, 4, 1, context=False),
    "rn": rn(4, 5, 2),
    "rn-no-overlap": rn(4, 4, 2, context=False),
    "rw": rw(4, 5, 2),
    "rw-wide-overlap": rw(3, 2, 3),
    "fifo": fifo(6, 4, 2),
    "fifo-no-overlap": fifo(6, 4, 2, context=False),
    "odd-stride": Schedule(steps=7, stride=3, chunk=2, context=3),
    "pa-first-chunk": replace(pa(6, 9, 3), first_chunk=1),
    "rw-first-chunk": replace(rw(3, 4, 2), first_chunk=3),
    "pa-full-window": replace(pa(6, 6, 2), full_window=True),
    "pa-full-window-no-overlap": replace(pa(6, 6, 2, context=False), full_window=True),
    "odd-full-window": Schedule(steps=7, stride=3, chunk=2, context=3, full_window=True),
    "pa-clean-latents-fill-the-window": replace(pa(6, 6, 2, context=False), fill_to=6),
    "windows": Schedule(steps=4, stride=2, chunk=2, context=3, restart=3, full_window=True),
    "windows-long-stride": Schedule(steps=3, stride=3, chunk=1, context=1, restart=3, full_window=True),
    "windows-of-one": Schedule(steps=4, stride=4, chunk=3, context=1, restart=1, full_window=True),
}


def one_clip(steps: int, window: int) -> Schedule:
    """Ordinary diffusion of a single clip. Paper section 2.1."""
    return rn(steps, window, chunk=1, context=0)


every_method = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


@lru_cache(1024)
def clean_latent(index: int) -> Tensor:  # (B, C, H, W)
    """What latent `index` of the one true video is."""
    generator = torch.Generator().manual_seed(10_000 + index)
    return 3 * torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def clean_latents(indices: range) -> Tensor:  # (B, T, C, H, W)
    """A stretch of the one true video."""
    return torch.stack([torch.zeros(SHAPE, dtype=torch.float64), *map(clean_latent, indices)], dim=1)[:, 1:]


@dataclass
class Exact:
    """Counts its own calls to know the step; `given` clean latents precede latent 0, chunks start at `first`.

    The cache that it gives back says which latents it was shown, from and to, and during which step.
    """

    schedule: Schedule
    noise: Noise
    sigmas: Tensor
    chunks: int
    given: int = 0
    first: int = 0
    now: int = 0
    checks: bool = True  # of the contexts

    def prefill(self, context: Tensor, level: int, /) -> Tensor:
        if self.checks:
            self.check_context(context, level)
        return torch.tensor([self.context().start, self.context().stop, self.now])

    def check_context(self, context: Tensor, level: int) -> None:
        """Right before the window, clean or at the level of its oldest chunk."""
        latents, expected_level = self.context(), 0
        expected = clean_latents(latents)
        if self.schedule.noisy_context:
            expected_level = self.active_chunks()[0][1]
            fresh = torch.stack([self.noise(index, self.now) for index in latents], dim=1).double()
            expected = self.mix(expected, fresh, expected_level)
        assert level == expected_level
        assert_same(context, expected)

    def __call__(self, window: Tensor, levels: Tensor, cache: Tensor | None, /) -> Tensor:
        velocities, expected_levels = list[Tensor](), list[int]()
        for index, level in self.active_chunks():
            latents = range(self.start_of(index), self.start_of(index + 1))
            clean = clean_latents(latents)
            noise = torch.stack([self.noise(latent, None) for latent in latents], dim=1).double()
            at = len(expected_levels)
            assert_same(window[:, at : at + len(latents)], self.mix(clean, noise, level))
            velocities.append(clean - noise)
            expected_levels += [level] * len(latents)
        assert levels.dtype == torch.int32
        assert levels.tolist() == expected_levels
        self.check_cache(cache)
        self.now += 1
        return torch.cat(velocities, dim=1)

    def active_chunks(self) -> list[tuple[int, int]]:
        """Chunk and level of all that have entered and not yet left, from the definition alone.

        In a window that is always full those that come next are shown too, as noise.
        """
        steps = self.schedule.steps
        left = [(index, self.now - self.entry(index)) for index in range(self.first, self.chunks)]
        left = [(index, age) for index, age in left if age < steps]
        if self.schedule.restart:  # chunks of one window are never shown with those of another
            first = left[0][0] // self.schedule.restart
            left = [(index, age) for index, age in left if index // self.schedule.restart == first]
        if self.schedule.full_window:
            return [(index, min(steps + 1, steps - age)) for index, age in left[: self.capacity()]]
        return [(index, steps - age) for index, age in left if age >= 0]

    def entry(self, chunk: int) -> int:
        """The step at which a chunk is pure noise: with windows that restart, after all steps of those before."""
        stride, restart = self.schedule.stride, self.schedule.restart
        if not restart:
            return chunk * stride
        before = chunk // restart * (self.schedule.steps + (restart - 1) * stride)
        return before + chunk % restart * stride

    def capacity(self) -> int:
        """Chunks in a full window."""
        return self.schedule.restart or math.ceil(self.schedule.steps / self.schedule.stride)

    def start_of(self, chunk: int) -> int:
        """Index of a chunk's first latent, by adding up the chunks before it."""
        sizes = [self.schedule.first_chunk or self.schedule.chunk, *[self.schedule.chunk] * max(0, chunk)]
        return sum(sizes[:chunk]) if chunk >= 0 else chunk * self.schedule.chunk

    def context(self) -> range:
        """The clean latents right before the window."""
        end = self.start_of(self.active_chunks()[0][0])
        indices = [index for index, _ in self.active_chunks()]
        noisy = self.start_of(indices[-1] + 1) - self.start_of(indices[0])
        full = self.capacity() * self.schedule.chunk + self.schedule.context if self.schedule.full_window else 0
        length = max(self.schedule.context, max(full, self.schedule.fill_to) - noisy)
        return range(max(-self.given, end - length), end)

    def check_cache(self, cache: Tensor | None) -> None:
        """The cache is that of the latents now before the window; at a changing level, of this very step."""
        if not self.context():
            assert cache is None
            return
        assert cache is not None
        start, stop, now = cache.tolist()
        assert range(start, stop) == self.context()
        assert now == self.now or not self.schedule.noisy_context

    def mix(self, clean: Tensor, noise: Tensor, level: int) -> Tensor:
        """Latents as far between clean and noise as their level says."""
        sigma = self.sigmas[min(level, self.schedule.steps)]
        return (1 - sigma) * clean + sigma * noise


@dataclass
class Mixing:
    """A denoiser in which every latent depends on all others, their levels and the context."""

    calls: int = 0

    def prefill(self, context: Tensor, level: int, /) -> Tensor:
        return context.mean(dim=1, keepdim=True) + 0.1 * level

    def __call__(self, window: Tensor, levels: Tensor, cache: Tensor | None, /) -> Tensor:
        self.calls += 1
        around = torch.tanh(window * (1 + levels[:, None, None, None])).mean(dim=1, keepdim=True)
        return torch.tanh(2 * around + (0 if cache is None else cache)) - window


def assert_same(result: Tensor, expected: Tensor) -> None:
    """Equal to 1e-10, in float64."""
    assert result.shape == expected.shape
    if result.dtype != expected.dtype or not torch.allclose(result, expected, atol=1e-10, rtol=0):
        torch.testing.assert_close(result, expected, atol=1e-10, rtol=0)  # slower, and says where they differ


def sigmas_of(schedule: Schedule) -> Tensor:
    """Uneven, so that a step size of the wrong level shows."""
    return shifted_sigmas(schedule.steps, 3.0).double()


def build_solver(sigmas: Tensor) -> Euler:
    """Euler steps between these noise fractions."""
    return euler(noise_levels(sigmas))


def joined(chunks: list[Tensor]) -> Tensor:
    return torch.cat(chunks, dim=1)


def run_exact(
    schedule: Schedule, noise: Any = NOISE, chunks: int = 5, num_given: int = 0, noised: bool = False
) -> Tensor:
    """Samples with the checking denoiser, after `given` latents, of which the last may be noised."""
    sigmas, start, first = sigmas_of(schedule), None, 0
    if num_given:
        start = state_from_clip(schedule, clean_latents(range(-num_given, 0)), sigmas)
    if noised:
        start = state_from_renoised_clip(schedule, clean_latents(range(-num_given, 0)), NOISE, sigmas)
        first = -len(start.chunks)
    checker = Exact(schedule, NOISE, sigmas, chunks, num_given, first)
    out = list(sample(schedule, checker, noise, build_solver(sigmas), chunks=chunks, start=start))
    assert checker.now == schedule.total_steps(chunks)
    assert [chunk.shape[1] for chunk in out] == [len(schedule.latents(range(n, n + 1))) for n in range(chunks)]
    return joined(out)
