"""Detection of NaN or out-of-range values after every chunk, with one retry in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from pavdm_cli.errors import InvalidOutputError
from pavdm_cli.generation.reencode import reencode
from pavdm_cli.models.adapter import Stream
from pavdm_cli.models.runner import ModelRunner, precision_of
from pavdm_cli.sampling.denoiser import AnyDenoiser
from pavdm_cli.sampling.loop import Repair, SamplerState, tail
from pavdm_cli.sampling.masked_clips import RepairClip

T = TypeVar("T")
HINT = "the weights may be damaged (`pavdm models verify`), or the device fails: try --device cpu"


def fault(values: Tensor, limit: float) -> str:
    """A description of what is wrong; empty if all values are finite and within `limit`. Synchronizes once."""
    if not values.numel():
        return ""
    low, high = torch.stack(torch.aminmax(values)).tolist()
    if math.isnan(low):
        return "NaN values"
    largest = max(-low, high)
    return f"values up to {largest:.3g}, above the limit of {limit:g}" if not largest <= limit else ""


@dataclass(slots=True)
class Recovery:
    """Retries chunks with invalid values in float32; `notes` lists the retries."""

    model: ModelRunner
    notes: list[str] = field(default_factory=list)
    chunk: int = 0  # index of the last sampled chunk, without the warm-up
    warmup: int = 0  # chunks before the video, which are not decoded

    @property
    def limit(self) -> float:
        """The largest valid |latent|."""
        return self.model.spec.latent_limit

    def transformed(self, chunk: int, made: T, values: Callable[[T], Tensor], again: Callable[[], T]) -> T:
        """Return `made` if valid, else recompute it in float32. Raises: InvalidOutputError."""
        self.chunk = chunk = chunk - self.warmup
        if not (found := fault(values(made), self.limit)):
            return made
        made = again()
        self.judge("transformer", chunk, (found, fault(values(made), self.limit)), precision_of(self.model.transformer))
        return made

    def reencoded(self, latents: Tensor) -> Tensor:
        """`reencode` with a float32 retry. Raises: InvalidOutputError."""
        made = reencode(self.model, latents)
        if found := fault(made, self.limit):
            made = reencode(self.model.upcast("vae"), latents)
            self.judge("decoder", self.chunk, (found, fault(made, self.limit)), precision_of(self.model.vae))
        return made

    def judge(self, part: str, chunk: int, found: tuple[str, str], dtype: str) -> None:
        """Note a successful retry, or raise. Raises: InvalidOutputError."""
        where = self._place(chunk)
        if not found[1]:
            self.notes.append(f"the {part} produced {found[0]} {where}; recomputed in float32")
            return
        tried = "twice in float32" if dtype == "float32" else f"in {dtype} and again in float32"
        raise InvalidOutputError(f"the {part} produced {found[1]} {where}, {tried}", HINT)

    def _place(self, chunk: int) -> str:
        if chunk >= 0:
            return f"in chunk {chunk + 1}"
        return f"in warm-up chunk {chunk + self.warmup + 1}" if self.warmup else "in the re-noised end of the input"

    def state_repair(self, steps: Callable[[SamplerState | None], Iterator[SamplerState]]) -> Repair:
        """A `Repair` for `with_repair`; steps: samples in float32 from a state."""

        def repair(sound: SamplerState | None, state: SamplerState) -> SamplerState:
            def again() -> SamplerState:
                return next(made for made in steps(sound) if made.now == state.now)

            return self.transformed(state.chunks[0], state, lambda made: made.window, again)

        return repair

    def clip_repair(self, bind: Callable[[], AnyDenoiser]) -> RepairClip:
        """A `RepairClip`; bind: builds the float32 denoiser."""

        def repair(chunk: int, made: Tensor, again: Callable[[AnyDenoiser], Tensor]) -> Tensor:
            return self.transformed(chunk, made, lambda clip: clip, lambda: again(bind()))

        return repair


@dataclass(slots=True)
class CheckedDecoder:
    """Streaming decoder that retries invalid frames in float32 from the same state."""

    recovery: Recovery
    stream: Stream
    chunk_size: int  # latents
    waiting: Tensor | None = None  # latents from which the stream's state can be rebuilt
    done: int = 0  # latents

    @torch.no_grad()
    def push(self, latents: Tensor) -> Tensor:  # (1, T, C, h, w) -> (1, n, 3, H, W)
        """Raises: InvalidOutputError."""
        chunk, self.done = self.done // self.chunk_size, self.done + latents.shape[1]
        every = latents if self.waiting is None else torch.cat([self.waiting, latents], dim=1)
        frames = self.stream.push(latents)
        if found := fault(frames, 1.0):
            model = self.recovery.model
            frames = model.upcast("vae").decode_stream(self.waiting).push(latents)
            self.recovery.judge("decoder", chunk, (found, fault(frames, 1.0)), precision_of(model.vae))
            self.stream = model.decode_stream(every)
        self.waiting = tail(every, self.stream.replay).clone() if self.stream.replay else None
        return frames

    @torch.no_grad()
    def flush(self) -> Tensor:
        """The frames of an incomplete unit."""
        return self.stream.flush()


def checked_decoder(recovery: Recovery, chunk_size: int, context: Tensor | None) -> CheckedDecoder:
    """A decoder primed with the latents of a context."""
    stream = recovery.model.decode_stream(context)
    waiting = tail(context, stream.replay) if context is not None and stream.replay else None
    return CheckedDecoder(recovery, stream, chunk_size, waiting)


def check_encoded(latents: Tensor, limit: float) -> Tensor:
    """Validate encoded latents and return them. Raises: InvalidOutputError."""
    if found := fault(latents, limit):
        raise InvalidOutputError(f"the encoder produced {found} for the conditioning frames", HINT)
    return latents
