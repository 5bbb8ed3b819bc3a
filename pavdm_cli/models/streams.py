"""Streams for VAEs that process a few frames at a time, whose only state is an incomplete unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pavdm_cli.models.adapter import Stream


@dataclass(slots=True)
class UnitStream:
    """Passes values (B, T, ...) to `call` in whole units; the rest waits for more."""

    call: Callable[[Tensor], Tensor]
    unit: int
    waiting: Tensor | None = None

    @property
    def replay(self) -> int:
        """See `Stream.replay`."""
        return 0 if self.waiting is None else self.waiting.shape[1]

    def push(self, values: Tensor, /) -> Tensor:
        """See `Stream.push`."""
        values = values if self.waiting is None else torch.cat([self.waiting, values], dim=1)
        num_complete = values.shape[1] // self.unit * self.unit
        self.waiting = values[:, num_complete:] if num_complete < values.shape[1] else None
        return self.call(values[:, :num_complete]) if num_complete else values.new_empty(len(values), 0, 1, 1, 1)

    def flush(self) -> Tensor:
        """See `Stream.flush`."""
        values, self.waiting = self.waiting, None
        return torch.empty(1, 0, 1, 1, 1) if values is None else self.call(values)


@dataclass(slots=True)
class ClipEncodeStream:
    """Encodes `first` frames, then `rest` at a time; frames that do not fill a latent are dropped, as in training."""

    call: Callable[[Tensor], Tensor]  # frames (B, n, 3, H, W) to one latent (B, 1, C, h, w)
    first: int
    rest: int
    waiting: Tensor | None = None
    is_started: bool = False

    @property
    def replay(self) -> int:
        """See `Stream.replay`: an encoder is never rebuilt."""
        return 0

    def push(self, frames: Tensor, /) -> Tensor:
        """See `Stream.push`."""
        frames = frames if self.waiting is None else torch.cat([self.waiting, frames], dim=1)
        latents = list[Tensor]()
        while frames.shape[1] >= (size := self.rest if self.is_started else self.first):
            piece, frames = frames[:, :size], frames[:, size:]
            latents.append(self.call(piece))
            self.is_started = True
        self.waiting = frames
        return torch.cat(latents, dim=1) if latents else frames.new_empty(len(frames), 0, 1, 1, 1)

    def flush(self) -> Tensor:
        """See `Stream.flush`: nothing is left."""
        return torch.empty(1, 0, 1, 1, 1)


def unit_stream(call: Callable[[Tensor], Tensor], unit: int, context: Tensor | None = None) -> UnitStream:
    """A stream that continues after `context`, whose incomplete last unit is its state."""
    num_complete = 0 if context is None else context.shape[1] // unit * unit
    waiting = context is not None and num_complete < context.shape[1]
    return UnitStream(call, unit, context[:, num_complete:] if context is not None and waiting else None)


def run_stream(stream: Stream, values: Tensor) -> Tensor:
    """The whole output of a stream for these values, (B, T, ...)."""
    parts = [stream.push(values), stream.flush()]
    # An empty part may differ in its other sizes.
    nonempty_parts = [part for part in parts if part.shape[1]] or parts[:1]
    return torch.cat(nonempty_parts, dim=1) if len(nonempty_parts) > 1 else nonempty_parts[0]
