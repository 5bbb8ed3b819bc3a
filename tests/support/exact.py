"""A denoiser that knows the whole video, and fails unless it is shown exactly what the method says it must be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pavdm_cli.sampling.loop import from_clip, from_noised, sample
from pavdm_cli.sampling.noise import Noise, seeded_noise, warped_sigmas
from pavdm_cli.sampling.schedule import Schedule, fifo, pa, rn, rw

SHAPE = (2, 3, 2, 2)  # (B, C, H, W)
NOISE = seeded_noise(5, SHAPE)
SCHEDULES = {
    "pa": pa(6, 6, 2),
    "pa-long-stride": pa(12, 6, 2),
    "pa-widened": pa(2, 8, 2),
    "pa-chunk-1": pa(4, 4, 1),
    "pa-no-overlap": pa(6, 6, 2, overlap=False),
    "pa-chunk-1-no-overlap": pa(4, 4, 1, overlap=False),
    "rn": rn(4, 5, 2),
    "rn-no-overlap": rn(4, 4, 2, overlap=False),
    "rw": rw(4, 5, 2),
    "rw-wide-overlap": rw(3, 2, 3),
    "fifo": fifo(6, 4, 2),
    "fifo-no-overlap": fifo(6, 4, 2, overlap=False),
    "odd-stride": Schedule(steps=7, stride=3, chunk=2, overlap=3),
}
every_method = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


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

    The memory that it gives back says which latents it was shown, from and to, and during which step.
    """

    schedule: Schedule
    noise: Noise
    sigmas: Tensor
    chunks: int
    given: int = 0
    first: int = 0
    now: int = 0
    checks: bool = True  # of the overlaps

    def remember(self, overlap: Tensor, level: int, /) -> Tensor:
        if self.checks:
            self.check_overlap(overlap, level)
        return torch.tensor([self.overlap().start, self.overlap().stop, self.now])

    def check_overlap(self, overlap: Tensor, level: int) -> None:
        """Right before the window, clean or at the level of its oldest chunk."""
        latents, expected_level = self.overlap(), 0
        expected = clean_latents(latents)
        if self.schedule.renoised:
            expected_level = self.present()[0][1]
            fresh = torch.stack([self.noise(index, self.now) for index in latents], dim=1).double()
            expected = self.mix(expected, fresh, expected_level)
        assert level == expected_level
        assert_same(overlap, expected)

    def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
        chunk, velocities, expected_levels = self.schedule.chunk, list[Tensor](), list[int]()
        for index, level in self.present():
            clean = clean_latents(range(index * chunk, (index + 1) * chunk))
            noise = torch.stack([self.noise(index * chunk + place, None) for place in range(chunk)], dim=1).double()
            at = len(expected_levels)
            assert_same(window[:, at : at + chunk], self.mix(clean, noise, level))
            velocities.append(clean - noise)
            expected_levels += [level] * chunk
        assert levels.dtype == torch.int32
        assert levels.tolist() == expected_levels
        self.check_memory(memory)
        self.now += 1
        return torch.cat(velocities, dim=1)

    def present(self) -> list[tuple[int, int]]:
        """Chunk and level of all that have entered and not yet left, from the definition alone."""
        stride, steps = self.schedule.stride, self.schedule.steps
        ages = [(index, self.now - index * stride) for index in range(self.first, self.chunks)]
        return [(index, steps - age) for index, age in ages if 0 <= age < steps]

    def overlap(self) -> range:
        """The clean latents right before the window."""
        end = self.present()[0][0] * self.schedule.chunk
        return range(max(-self.given, end - self.schedule.overlap), end)

    def check_memory(self, memory: Tensor | None) -> None:
        """The memory is that of the latents now before the window; at a changing level, of this very step."""
        if not self.overlap():
            assert memory is None
            return
        assert memory is not None
        start, stop, now = memory.tolist()
        assert range(start, stop) == self.overlap()
        assert now == self.now or not self.schedule.renoised

    def mix(self, clean: Tensor, noise: Tensor, level: int) -> Tensor:
        """Latents as far between clean and noise as their level says."""
        sigma = self.sigmas[level]
        return (1 - sigma) * clean + sigma * noise


@dataclass
class Mixing:
    """A denoiser in which every latent depends on all others, their levels and the overlap."""

    calls: int = 0

    def remember(self, overlap: Tensor, level: int, /) -> Tensor:
        return overlap.mean(dim=1, keepdim=True) + 0.1 * level

    def __call__(self, window: Tensor, levels: Tensor, memory: Tensor | None, /) -> Tensor:
        self.calls += 1
        around = torch.tanh(window * (1 + levels[:, None, None, None])).mean(dim=1, keepdim=True)
        return torch.tanh(2 * around + (0 if memory is None else memory)) - window


def assert_same(shown: Tensor, expected: Tensor) -> None:
    """Equal to 1e-10, in float64."""
    assert shown.shape == expected.shape
    torch.testing.assert_close(shown, expected, atol=1e-10, rtol=0)


def sigmas_of(schedule: Schedule) -> Tensor:
    """Uneven, so that a step size of the wrong level shows."""
    return warped_sigmas(schedule.steps, 3.0).double()


def joined(chunks: list[Tensor]) -> Tensor:
    return torch.cat(chunks, dim=1)


def run_exact(schedule: Schedule, noise: Any = NOISE, chunks: int = 5, given: int = 0, noised: bool = False) -> Tensor:
    """Samples with the checking denoiser, after `given` latents, of which the last may be noised."""
    sigmas, start, first = sigmas_of(schedule), None, 0
    if given:
        start = from_clip(schedule, clean_latents(range(-given, 0)), sigmas)
    if noised:
        start = from_noised(schedule, clean_latents(range(-given, 0)), NOISE, sigmas)
        first = -len(start.chunks)
    checker = Exact(schedule, NOISE, sigmas, chunks, given, first)
    out = list(sample(schedule, checker, noise, sigmas, chunks=chunks, start=start))
    assert checker.now == schedule.total(chunks)
    assert all(chunk.shape[1] == schedule.chunk for chunk in out)
    return joined(out)
