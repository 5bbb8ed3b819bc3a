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
HINT = "the weights may be damaged (`pavdm models verify`), or the device may be faulty: try --device cpu"


def describe_fault(values: Tensor, limit: float) -> str:
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

    def check_latents(self, chunk: int, value: T, get_latents: Callable[[T], Tensor], recompute: Callable[[], T]) -> T:
        """Return `value` if valid, else recompute it in float32. Raises: InvalidOutputError."""
        self.chunk = chunk = chunk - self.warmup
        if not (problem := describe_fault(get_latents(value), self.limit)):
            return value
        value = recompute()
        self.note_or_raise(
            "transformer",
            chunk,
            (problem, describe_fault(get_latents(value), self.limit)),
            precision_of(self.model.transformer),
        )
        return value

    def reencode_checked(self, latents: Tensor) -> Tensor:
        """`reencode` with a float32 retry. Raises: InvalidOutputError."""
        value = reencode(self.model, latents)
        if problem := describe_fault(value, self.limit):
            value = reencode(self.model.upcast("vae"), latents)
            self.note_or_raise(
                "VAE", self.chunk, (problem, describe_fault(value, self.limit)), precision_of(self.model.vae)
            )
        return value

    def note_or_raise(self, part: str, chunk: int, problem: tuple[str, str], dtype: str) -> None:
        """Note a successful retry, or raise. Raises: InvalidOutputError."""
        location = self._describe_location(chunk)
        if not problem[1]:
            self.notes.append(f"the {part} produced {problem[0]} {location}; recomputed in float32")
            return
        attempts = "twice in float32" if dtype == "float32" else f"in {dtype} and again in float32"
        raise InvalidOutputError(f"the {part} produced {problem[1]} {location}, {attempts}", HINT)

    def _describe_location(self, chunk: int) -> str:
        if chunk >= 0:
            return f"in chunk {chunk + 1}"
        return f"in warm-up chunk {chunk + self.warmup + 1}" if self.warmup else "in the re-noised end of the input"

    def make_state_repair(self, steps: Callable[[SamplerState | None], Iterator[SamplerState]]) -> Repair:
        """A `Repair` for `with_repair`; steps: samples in float32 from a state."""

        def repair(last_good: SamplerState | None, state: SamplerState) -> SamplerState:
            def recompute() -> SamplerState:
                return next(value for value in steps(last_good) if value.now == state.now)

            return self.check_latents(state.chunks[0], state, lambda value: value.window, recompute)

        return repair

    def clip_repair(self, bind: Callable[[], AnyDenoiser]) -> RepairClip:
        """A `RepairClip`; bind: builds the float32 denoiser."""

        def repair(chunk: int, value: Tensor, recompute: Callable[[AnyDenoiser], Tensor]) -> Tensor:
            return self.check_latents(chunk, value, lambda clip: clip, lambda: recompute(bind()))

        return repair


@dataclass(slots=True)
class CheckedDecoder:
    """Streaming decoder that retries invalid frames in float32 from the same state."""

    recovery: Recovery
    stream: Stream
    chunk_size: int  # latents
    replay_latents: Tensor | None = None  # latents from which the stream's state can be rebuilt
    num_decoded: int = 0  # latents

    @torch.no_grad()
    def push(self, latents: Tensor) -> Tensor:  # (1, T, C, h, w) -> (1, n, 3, H, W)
        """Raises: InvalidOutputError."""
        chunk, self.num_decoded = self.num_decoded // self.chunk_size, self.num_decoded + latents.shape[1]
        replay_and_latents = (
            latents if self.replay_latents is None else torch.cat([self.replay_latents, latents], dim=1)
        )
        frames = self.stream.push(latents)
        if problem := describe_fault(frames, 1.0):
            model = self.recovery.model
            frames = model.upcast("vae").decode_stream(self.replay_latents).push(latents)
            self.recovery.note_or_raise(
                "decoder", chunk, (problem, describe_fault(frames, 1.0)), precision_of(model.vae)
            )
            self.stream = model.decode_stream(replay_and_latents)
        self.replay_latents = tail(replay_and_latents, self.stream.replay).clone() if self.stream.replay else None
        return frames

    @torch.no_grad()
    def flush(self) -> Tensor:
        """The frames of an incomplete unit."""
        return self.stream.flush()


def open_decoder(recovery: Recovery, chunk_size: int, context: Tensor | None) -> CheckedDecoder:
    """A decoder primed with the latents of a context."""
    stream = recovery.model.decode_stream(context)
    replay_latents = tail(context, stream.replay) if context is not None and stream.replay else None
    return CheckedDecoder(recovery, stream, chunk_size, replay_latents)


def check_encoded(latents: Tensor, limit: float) -> Tensor:
    """Validate encoded latents and return them. Raises: InvalidOutputError."""
    if problem := describe_fault(latents, limit):
        raise InvalidOutputError(f"the encoder produced {problem} for the conditioning frames", HINT)
    return latents
