"""Which chunk is at which noise level at which step: one integer formula for every method.

Chunk i enters the window as pure noise at step i * stride, loses one level per step, and leaves clean `steps` later.
With windows that restart, the chunks of a window enter like that once all of the window before it are clean.
Where clean latents follow the last chunk, a window that they are shown behind holds all chunks in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pavdm_cli.errors import UsageError
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.sampling.suggestions import MAX_VALUE, fits, suggest

RAMP_UPS = ("grow", "full")
SOLVERS = ("euler", "unipc")  # names of those in `sampling/solvers.py`


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that distinguishes the methods: ramp-up, steady state and ramp-down follow from which chunks exist."""

    steps: int  # model calls that take a chunk from noise to clean
    stride: int  # steps from one chunk's entry to the next, 1 to `steps`
    chunk: int  # latents that share a level
    context: int  # clean latents right before the window, at most; 0: none
    noisy_context: bool = False  # the context is noised to the window's level (paper eq. 6) instead of clean (eq. 5)
    note: str = ""  # one line for the user if a value was adjusted
    first_chunk: int = 0  # latents of the first chunk if it differs from the others; 0: it does not
    full_window: bool = False  # from the first step on: chunks that have not started are shown as noise
    fill_to: int = 0  # latents that a shorter window is filled up to with clean ones in front of it; 0: it is not
    restart: int = 0  # chunks of a window after whose end the next one begins; 0: the window rolls
    sink: range = range(0)  # chunks that stay in the context after they have left it, in front of the others
    positions: int | None = None  # before the window's first latent, repeated in a longer context; None: all in order
    right_context: int = 0  # clean latents right after the last chunk
    join: int | None = None  # the window's oldest chunk when they are first shown behind it; None: there are none
    loop: range = range(0)  # chunks of the video that are its right context too, so that it loops; none: it is given

    def __post_init__(self) -> None:
        assert 1 <= self.stride <= self.steps
        assert self.chunk >= 1
        assert 0 <= self.first_chunk <= self.chunk
        assert self.context >= 0
        assert self.positions != 0 or not self.context
        assert not (self.sink and (self.full_window or self.fill_to))  # those fill the context up themselves
        assert bool(self.right_context) == (self.join is not None)
        assert not (self.right_context and (self.full_window or self.restart or self.noisy_context))

    @property
    def capacity(self) -> int:
        """Chunks in a full window, P."""
        rolling = -(-self.steps // self.stride)
        return min(rolling, self.restart) if self.restart and not self.full_window else self.restart or rolling

    @property
    def window(self) -> int:
        """Noisy latents in a full window."""
        return self.capacity * self.chunk

    @property
    def offset(self) -> int:
        """Position of the window's first latent, whether there is a context or not."""
        return self.context + len(self.latents(self.sink)) if self.positions is None else self.positions

    def sinks(self, end: int) -> range:
        """Latents of the sink among those before latent `end`."""
        sink = self.latents(self.sink)
        return range(sink.start, max(sink.start, min(sink.stop, end)))

    def total(self, chunks: int) -> int:
        """Model calls for a video of `chunks` new chunks, from its first noise to its last clean latent."""
        return self.entry(chunks - 1) + self.steps if chunks else 0

    def num_renoised(self, latents: int) -> int:
        """Chunks of a given clip that are noised again at the start: of a full window all but one, if it has as many.

        The clean context before them comes first.
        """
        return 0 if self.restart else min(self.capacity - 1, max(0, latents - self.context) // self.chunk)

    @property
    def period(self) -> int:
        """Steps of a window that restarts."""
        return self.steps + (self.restart - 1) * self.stride

    def entry(self, chunk: int) -> int:
        """The step at which a chunk is pure noise."""
        if not self.restart:
            return chunk * self.stride
        window, place = divmod(chunk, self.restart)
        return window * self.period + place * self.stride

    def joins(self, window: range) -> bool:
        """Whether the right context is shown behind a window that holds these chunks."""
        return self.join is not None and window.start >= self.join

    def level(self, chunk: int, now: int) -> int:
        """Level of a chunk before step `now`: `steps` when it enters, 0 when it is clean; one more before it enters."""
        return min(self.steps + 1, self.steps - (now - self.entry(chunk)))

    def active_chunks(self, now: int, first: int = 0, chunks: int | None = None) -> range:
        """Chunks in the window at step `now`, oldest first, of those from `first` to `chunks` - 1 (None: no end)."""
        window, inside = divmod(now, self.period) if self.restart else (0, now)
        begin = window * self.restart
        oldest = max(first, begin + (inside - self.steps) // self.stride + 1)
        if self.restart:
            oldest = max(oldest, begin)
        if self.join is not None and oldest >= self.join:  # nothing is left out before what follows the last chunk
            assert chunks is not None
            return range(oldest, chunks)
        newest = begin + inside // self.stride
        end = max(newest + 1, oldest + self.capacity) if self.full_window else newest + 1
        end = min(end, begin + self.restart) if self.restart else end
        return range(oldest, end if chunks is None else min(end, chunks))

    def newest(self, window: range, now: int) -> int:
        """The last chunk of a window that has entered before step `now`; those after it are shown as noise."""
        return next(chunk for chunk in reversed(window) if self.level(chunk, now) <= self.steps)

    def context_latents(self, window: range) -> int:
        """Clean latents in front of a window that holds these chunks, if there are as many before it."""
        full = self.window + self.context if self.full_window else self.fill_to
        return max(self.context, full - self._window_latents(window))

    def _window_latents(self, window: range) -> int:
        """Latents of a window that holds these chunks, the right context included."""
        return len(self.latents(window)) + self.right_context * self.joins(window)

    def latents(self, chunks: range) -> range:
        """Indices of the latents in these chunks; those of a given clip are negative."""
        return range(self._start(chunks.start), self._start(chunks.stop))

    def _start(self, chunk: int) -> int:
        """Index of a chunk's first latent."""
        missing = self.chunk - self.first_chunk if self.first_chunk and chunk > 0 else 0
        return chunk * self.chunk - missing

    def chunks(self, latents: int) -> int:
        """The smallest number of chunks that hold this many latents."""
        missing = self.chunk - self.first_chunk if self.first_chunk and latents > 0 else 0
        return -(-(latents + missing) // self.chunk)

    def sizes(self, now: int, first: int, before: int, chunks: int | None) -> set[tuple[int, int]]:
        """Noisy and clean latents of the steps from `now` on, where `before` clean latents precede chunk `first`.

        Only a few steps are examined, however long the video: once window and context are full, nothing changes until
        the ramp-down.
        """
        if self.join is not None:
            assert chunks is not None
            ordinary = replace(self, right_context=0, join=None).sizes(now, first, before, chunks)
            steps = range(max(now, self.total(self.join)), self.total(chunks))
            return ordinary | {self.size(self.active_chunks(step, first, chunks), first, before) for step in steps}
        last = max(0, first, self.sink.stop) + 2 * max(self.capacity, self.restart) + -(-self.context // self.chunk) + 2
        end = last if chunks is None else min(chunks, last)
        until = self.entry(last) if chunks is None else self.entry(end - 1) + self.steps
        windows = (self.active_chunks(step, first, end) for step in range(now, until))
        return {self.size(window, first, before) for window in windows if window}

    def size(self, window: range, first: int, before: int) -> tuple[int, int]:
        """Noisy and clean latents of a step whose window holds these chunks; `first` and `before` as in `sizes`."""
        latents = self.latents(window)
        passed = latents.start - self.latents(range(first, first)).start
        recent = min(self.context_latents(window), before + passed)
        return self._window_latents(window), recent + len(self.sinks(latents.start - recent))

    def levels(self, chunks: range, now: int) -> tuple[int, ...]:
        """Levels of all latents in these chunks before step `now`, and of the right context behind them: 0."""
        noisy = tuple(self.level(chunk, now) for chunk in chunks for _ in self.latents(range(chunk, chunk + 1)))
        return noisy + (0,) * (self.right_context * self.joins(chunks))


def pa(steps: int, window: int, chunk: int, context: int = 1) -> Schedule:
    """Progressive levels. If the window holds more chunks than there are steps, several are merged into a wider one.

    context: clean chunks before the window, of `chunk` latents even then, as in training. Paper sections 3.1-3.4.

    Raises: UsageError if `window` is no multiple of `chunk`, or `steps` and `window` / `chunk` do not divide.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    capacity = _chunks_in_window(steps, window, chunk)
    if steps >= capacity:
        return Schedule(steps, steps // capacity, chunk, chunk * context)
    width = window // steps
    few = f"{pluralize(steps, 'step')} can give a window of {window} only {pluralize(steps, 'level')}"
    note = f"chunk widened from {chunk} to {width} latents: {few}"
    return Schedule(steps, 1, width, chunk * context, note=note)


def rn(steps: int, window: int, chunk: int, context: int = 1) -> Schedule:
    """Clip after clip at one level, conditioned on the last `chunk` latents of the clip before, clean. Paper eq. 5.

    Raises: UsageError if a value is below 1.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    return Schedule(steps, steps, window, chunk * context)


def rw(steps: int, window: int, chunk: int, context: int = 1) -> Schedule:
    """As `rn`, but the context is re-noised at every step to the level of the clip. Paper eq. 6.

    Raises: UsageError if a value is below 1.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    return Schedule(steps, steps, window, chunk * context, noisy_context=True)


def fifo(steps: int, window: int, chunk: int, context: int = 1) -> Schedule:
    """One latent enters per step, so `steps` latents are noisy; `partitioned` passes the model `window` at a time.

    Raises: UsageError if a value is below 1. Source: FIFO-Diffusion, whose lookahead also needs clean latents in front.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    return Schedule(steps, 1, 1, chunk * context)


def one_clip(steps: int, window: int, chunk: int = 1, context: int = 0) -> Schedule:
    """Ordinary diffusion of one window at one level; a second chunk would be independent. Paper section 2.1.

    `chunk` and `context` have no effect: all methods have the same signature.

    Raises: UsageError if a value is below 1.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    return Schedule(steps, steps, window, 0)


def windows(steps: int, window: int, chunk: int, context: int = 1, stride: int = 0) -> Schedule:
    """Windows one after the other, each on the last `chunk` latents of the one before, which count as part of it.

    All its latents have one level, or with a stride its chunks start so many steps apart. Source: SkyReels-V2.

    Raises: UsageError if a value is below 1, or `window` is no multiple of `chunk` and larger.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    before = chunk * context
    if window <= before or (stride and window % chunk):
        hint = f"try --window {max(2, -(-window // chunk)) * chunk}"
        raise UsageError(f"window must be a multiple of chunk {chunk}, and larger, got {window}", hint)
    if stride > steps:
        raise UsageError(f"--stride must be at most the {steps} steps, got {stride}", f"try --stride {steps}")
    if not stride:
        return Schedule(steps, steps, window - before, before, restart=1, full_window=True)
    return Schedule(steps, stride, chunk, before, restart=(window - before) // chunk, full_window=True)


METHODS: dict[str, Callable[..., Schedule]] = {
    "pa": pa,
    "rn": rn,
    "rw": rw,
    "fifo": fifo,
    "windows": windows,
    "one": one_clip,
}


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if not 1 <= value <= MAX_VALUE:
            raise UsageError(f"{name} must be {'at least 1' if value < 1 else f'at most {MAX_VALUE}'}, got {value}")


def _chunks_in_window(steps: int, window: int, chunk: int) -> int:
    """Chunks in a window. Raises: UsageError that suggests the nearest values if these do not divide."""
    count, rest = divmod(window, chunk)
    hint = suggest(steps, window, chunk)
    if rest:
        raise UsageError(f"window must be a multiple of chunk {chunk}, got {window}", hint)
    if not fits(steps, window, chunk):
        raise UsageError(
            f"steps must be a multiple of the {count} chunks in the window, or divide them, got {steps}", hint
        )
    return count
