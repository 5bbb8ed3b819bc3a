"""Streams for VAEs that encode units of a few frames by themselves: all state is what waits for a whole unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.models.adapter import Stream


@dataclass(slots=True)
class UnitStream:
    """Values (B, T, ...) through `call` in whole units; what remains waits for more."""

    call: Callable[[Tensor], Tensor]
    unit: int
    waiting: Tensor | None = None

    @property
    def replay(self) -> int:
        """As `Stream.replay`."""
        return 0 if self.waiting is None else self.waiting.shape[1]

    def push(self, values: Tensor, /) -> Tensor:
        """As `Stream.push`."""
        values = values if self.waiting is None else torch.cat([self.waiting, values], dim=1)
        whole = values.shape[1] // self.unit * self.unit
        self.waiting = values[:, whole:] if whole < values.shape[1] else None
        return self.call(values[:, :whole]) if whole else _nothing(values)

    def flush(self) -> Tensor:
        """As `Stream.flush`."""
        values, self.waiting = self.waiting, None
        return torch.empty(1, 0, 1, 1, 1) if values is None else self.call(values)


def unit_stream(call: Callable[[Tensor], Tensor], unit: int, context: Tensor | None = None) -> UnitStream:
    """A stream that continues after `context`, of which only an incomplete unit matters."""
    whole = 0 if context is None else context.shape[1] // unit * unit
    waiting = context is not None and whole < context.shape[1]
    return UnitStream(call, unit, context[:, whole:] if context is not None and waiting else None)


def run(stream: Stream, values: Tensor) -> Tensor:
    """All that a stream makes of these values, (B, T, ...)."""
    return joined([stream.push(values), stream.flush()])


def joined(parts: Iterable[Tensor]) -> Tensor:
    """The parts along T, those without any values left out."""
    every = list(parts)
    filled = [part for part in every if part.shape[1]] or every[:1]
    return torch.cat(filled, dim=1) if len(filled) > 1 else filled[0]


def _nothing(like: Tensor) -> Tensor:
    return like.new_empty(like.shape[0], 0, 1, 1, 1)
