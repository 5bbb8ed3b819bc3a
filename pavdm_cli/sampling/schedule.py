"""Which chunk is at which noise level at which step: one integer formula for every method.

Chunk i enters the window as pure noise at step i * stride, loses one level per step, and leaves clean `steps` later.
With restarting windows, the chunks of a window enter this way once the previous window is clean.
If clean latents follow the last chunk (right context), a window that sees them holds all chunks in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pavdm_cli.errors import UsageError
from pavdm_cli.runtime.printable import pluralize
from pavdm_cli.sampling.suggestions import MAX_VALUE, is_valid, suggest

RAMP_UPS = ("grow", "full")
SOLVERS = ("euler", "unipc")  # names; the constructors are in `sampling/solvers.py`


@dataclass(frozen=True, slots=True)
class Schedule:
    """The parameters in which methods differ. Ramp-up, steady state and ramp-down follow from which chunks exist."""

    steps: int  # model calls that take a chunk from noise to clean
    stride: int  # steps from one chunk's entry to the next, 1 to `steps`
    chunk: int  # latents that share a level
    context: int  # maximum number of clean latents before the window
    noisy_context: bool = False  # the context is noised to the window's level (paper eq. 6) instead of clean (eq. 5)
    note: str = ""  # one line for the user if a value was adjusted
    first_chunk: int = 0  # latents of the first chunk if it differs from the others; 0: it does not
    full_window: bool = False  # the window always has its full length; unstarted chunks are noise
    fill_to: int = 0  # pad a shorter window with clean latents up to this length; 0: off
    restart: int = 0  # chunks per window if windows follow one another; 0: rolling window
    sink: range = range(0)  # attention sink: first chunks that stay in front of the context
    # Chunks at which another sink replaces it: the first chunk whose window no longer sees the old one, and the first
    # chunk of the new one, which has the same length.
    sink_changes: tuple[tuple[int, int], ...] = ()
    # Number of RoPE positions before the window, repeated if the context is longer; None: no limit.
    positions: int | None = None
    right_context: int = 0  # clean latents right after the last chunk
    right_context_from: int | None = None  # oldest chunk whose window sees the right context; None: there is none
    right_context_guidance: float = 1.0  # scale of the guidance towards the right context; 1: none
    # Chunks reused as right context so that the video loops; empty: the right context is an input.
    loop: range = range(0)

    def __post_init__(self) -> None:
        assert 1 <= self.stride <= self.steps
        assert self.chunk >= 1
        assert 0 <= self.first_chunk <= self.chunk
        assert self.context >= 0
        assert self.positions != 0 or not self.context
        assert not (self.sink and (self.full_window or self.fill_to))  # both already extend the context
        assert bool(self.right_context) == (self.right_context_from is not None)
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
    def sink_and_context(self) -> int:
        """Clean latents before a full window: those of the sink, and those of a full context."""
        return len(self.latents(self.sink)) + self.context

    @property
    def position_offset(self) -> int:
        """Position of the window's first latent, whether there is a context or not."""
        return self.sink_and_context if self.positions is None else self.positions

    def sink_at(self, newest: int) -> range:
        """The chunks that are the sink of a window with this newest chunk."""
        start = max((start for change, start in self.sink_changes if change <= newest), default=self.sink.start)
        return range(start, start + len(self.sink))

    def sink_latents(self, end: int, newest: int = 0) -> range:
        """Indices before `end` of the latents of the sink at chunk `newest`."""
        sink = self.latents(self.sink_at(newest))
        return range(sink.start, max(sink.start, min(sink.stop, end)))

    def total_steps(self, chunks: int) -> int:
        """Number of denoising steps for `chunks` new chunks."""
        return self.entry_step(chunks - 1) + self.steps if chunks else 0

    def num_renoised(self, latents: int) -> int:
        """Number of chunks of a conditioning clip to re-noise: a full window minus one, if the clip is long enough.

        The clean context takes precedence.
        """
        return 0 if self.restart else min(self.capacity - 1, max(0, latents - self.context) // self.chunk)

    @property
    def period(self) -> int:
        """Steps from one window to the next, if windows restart."""
        return self.steps + (self.restart - 1) * self.stride

    def entry_step(self, chunk: int) -> int:
        """The step at which a chunk enters as pure noise."""
        if not self.restart:
            return chunk * self.stride
        window_index, position = divmod(chunk, self.restart)
        return window_index * self.period + position * self.stride

    def sees_right_context(self, active_chunks: range) -> bool:
        """Whether a window of these chunks sees the right context."""
        return self.right_context_from is not None and active_chunks.start >= self.right_context_from

    @property
    def without_right_context(self) -> Schedule:
        """The same for a video after whose last chunk nothing follows."""
        return replace(self, right_context=0, right_context_from=None, right_context_guidance=1.0, loop=range(0))

    def is_guided(self, active_chunks: range) -> bool:
        """Whether a window of these chunks is guided towards the right context."""
        return self.right_context_guidance != 1 and self.sees_right_context(active_chunks)

    def level(self, chunk: int, now: int) -> int:
        """Level of a chunk before step `now`: `steps` when it enters, 0 when clean; `steps` + 1 before it enters."""
        return min(self.steps + 1, self.steps - (now - self.entry_step(chunk)))

    def active_chunks(self, now: int, first: int = 0, chunks: int | None = None) -> range:
        """Chunks in the window at step `now`, oldest first, of those from `first` to `chunks` - 1 (None: no end)."""
        window_index, step = divmod(now, self.period) if self.restart else (0, now)
        begin = window_index * self.restart
        oldest = max(first, begin + (step - self.steps) // self.stride + 1)
        if self.restart:
            oldest = max(oldest, begin)
        if (
            self.right_context_from is not None and oldest >= self.right_context_from
        ):  # include all chunks up to the right context
            assert chunks is not None
            return range(oldest, chunks)
        newest = begin + step // self.stride
        end = max(newest + 1, oldest + self.capacity) if self.full_window else newest + 1
        end = min(end, begin + self.restart) if self.restart else end
        return range(oldest, end if chunks is None else min(end, chunks))

    def newest(self, active_chunks: range, now: int) -> int:
        """The newest chunk of a window that has started at step `now`; later ones are still noise."""
        return next(chunk for chunk in reversed(active_chunks) if self.level(chunk, now) <= self.steps)

    def context_latents(self, active_chunks: range) -> int:
        """Number of clean latents to keep before a window of these chunks, if that many exist."""
        full = self.window + self.context if self.full_window else self.fill_to
        return max(self.context, full - self._window_latents(active_chunks))

    def _window_latents(self, active_chunks: range) -> int:
        """Latents of a window that holds these chunks, the right context included."""
        return len(self.latents(active_chunks)) + self.right_context * self.sees_right_context(active_chunks)

    def latents(self, chunks: range) -> range:
        """Indices of the latents in these chunks; those of a conditioning clip are negative."""
        return range(self._start(chunks.start), self._start(chunks.stop))

    def _start(self, chunk: int) -> int:
        """Index of a chunk's first latent."""
        shortfall = self.chunk - self.first_chunk if self.first_chunk and chunk > 0 else 0
        return chunk * self.chunk - shortfall

    def chunks(self, latents: int) -> int:
        """The smallest number of chunks that hold this many latents."""
        shortfall = self.chunk - self.first_chunk if self.first_chunk and latents > 0 else 0
        return -(-(latents + shortfall) // self.chunk)

    def sizes(self, now: int, first: int, num_context: int, chunks: int | None) -> set[tuple[int, int]]:
        """The (noisy, clean) latent counts of all steps from `now` on; `num_context` clean ones precede chunk `first`.

        Only a few steps are examined, however long the video: once window and context are full, nothing changes until
        the ramp-down.
        """
        if self.sink_changes:  # every new sink grows chunk by chunk
            sinks = (range(self.sink.start, self.sink.start + count) for count in range(len(self.sink) + 1))
            schedules = [replace(self, sink=sink, sink_changes=()) for sink in sinks]
            return set().union(*(schedule.sizes(now, first, num_context, chunks) for schedule in schedules))
        if self.right_context_from is not None:
            assert chunks is not None
            sizes = self.without_right_context.sizes(now, first, num_context, chunks)
            steps = range(max(now, self.total_steps(self.right_context_from)), self.total_steps(chunks))
            return sizes | {self.size(self.active_chunks(step, first, chunks), first, num_context) for step in steps}
        last = max(0, first, self.sink.stop) + 2 * max(self.capacity, self.restart) + -(-self.context // self.chunk) + 2
        end = last if chunks is None else min(chunks, last)
        end_step = self.entry_step(last) if chunks is None else self.entry_step(end - 1) + self.steps
        windows = (self.active_chunks(step, first, end) for step in range(now, end_step))
        return {self.size(active_chunks, first, num_context) for active_chunks in windows if active_chunks}

    def size(self, active_chunks: range, first: int, num_context: int) -> tuple[int, int]:
        """Noisy and clean latents of a step whose window holds these chunks; other arguments as for `sizes`."""
        latents = self.latents(active_chunks)
        num_passed = latents.start - self.latents(range(first, first)).start
        num_recent = min(self.context_latents(active_chunks), num_context + num_passed)
        return self._window_latents(active_chunks), num_recent + len(self.sink_latents(latents.start - num_recent))

    def levels(self, chunks: range, now: int) -> tuple[int, ...]:
        """Levels of all latents in these chunks before step `now`, and of the right context behind them: 0."""
        noisy = tuple(self.level(chunk, now) for chunk in chunks for _ in self.latents(range(chunk, chunk + 1)))
        return noisy + (0,) * (self.right_context * self.sees_right_context(chunks))


def pa(steps: int, window: int, chunk: int, context: int = 1) -> Schedule:
    """Progressive noise levels. If there are more chunks than steps, chunks are merged.

    context: clean chunks before the window; always `chunk` latents each, as in training. Paper sections 3.1-3.4.

    Raises: UsageError if `window` is not a multiple of `chunk`, or if neither of `steps` and `window / chunk` divides
    the other.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    capacity = _chunks_in_window(steps, window, chunk)
    if steps >= capacity:
        return Schedule(steps, steps // capacity, chunk, chunk * context)
    width = window // steps
    allow = "allows" if steps == 1 else "allow"
    few = f"{pluralize(steps, 'step')} {allow} a window of {window} only {pluralize(steps, 'level')}"
    note = f"chunk enlarged from {chunk} to {width} latents: {few}"
    return Schedule(steps, 1, width, chunk * context, note=note)


def rn(steps: int, window: int, chunk: int, context: int = 1) -> Schedule:
    """Clip by clip at one level, conditioned on the clean last chunks of the previous clip. Paper eq. 5.

    Raises: UsageError if a value is below 1.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    return Schedule(steps, steps, window, chunk * context)


def rw(steps: int, window: int, chunk: int, context: int = 1) -> Schedule:
    """Like `rn`, but the context is re-noised at every step to the level of the clip. Paper eq. 6.

    Raises: UsageError if a value is below 1.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    return Schedule(steps, steps, window, chunk * context, noisy_context=True)


def fifo(steps: int, window: int, chunk: int, context: int = 1) -> Schedule:
    """One latent enters per step, so `steps` latents are noisy; `partition_window` passes the model `window` at a time.

    Raises: UsageError if a value is below 1. Source: FIFO-Diffusion, whose lookahead also needs clean latents in front.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    return Schedule(steps, 1, 1, chunk * context)


def windows(steps: int, window: int, chunk: int, context: int = 1, stride: int = 0) -> Schedule:
    """One window after another, conditioned on the last latents of the previous one, which are part of it.

    All latents of a window have one level; with a stride, its chunks start that many steps apart. Source: SkyReels-V2.

    Raises: UsageError if a value is below 1, if `window` is not larger than the context, or with a stride if `window`
    is not a multiple of `chunk` or `stride` is larger than `steps`.
    """
    _check_positive(steps=steps, window=window, chunk=chunk)
    num_context = chunk * context
    hint = f"try --window {max(context + 1, -(-window // chunk)) * chunk}"
    if window <= num_context:
        length = pluralize(num_context, "latent")
        raise UsageError(f"--window must be larger than the context of {length}, got {window}", hint)
    if stride and window % chunk:
        raise UsageError(f"--window must be a multiple of --chunk {chunk} with --stride, got {window}", hint)
    if stride > steps:
        raise UsageError(f"--stride must be at most the {steps} steps, got {stride}", f"try --stride {steps}")
    if not stride:
        return Schedule(steps, steps, window - num_context, num_context, restart=1, full_window=True)
    return Schedule(steps, stride, chunk, num_context, restart=(window - num_context) // chunk, full_window=True)


METHODS: dict[str, Callable[..., Schedule]] = {
    "pa": pa,
    "rn": rn,
    "rw": rw,
    "fifo": fifo,
    "windows": windows,
}


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if not 1 <= value <= MAX_VALUE:
            raise UsageError(f"{name} must be {'at least 1' if value < 1 else f'at most {MAX_VALUE}'}, got {value}")


def _chunks_in_window(steps: int, window: int, chunk: int) -> int:
    """Number of chunks in a window. Raises: UsageError with the nearest valid values."""
    count, remainder = divmod(window, chunk)
    hint = suggest(steps, window, chunk)
    if remainder:
        raise UsageError(f"window must be a multiple of chunk {chunk}, got {window}", hint)
    if not is_valid(steps, window, chunk):
        raise UsageError(
            f"steps must be a multiple of the number of chunks in the window ({count}) or divide it, got {steps}", hint
        )
    return count
