"""Values that no model gives, NaN for one: found after every chunk, computed again once in float32, else the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from pavdm_cli.errors import FaultyValues
from pavdm_cli.generation.reencode import encoded_anew
from pavdm_cli.models.families import Codec
from pavdm_cli.models.load import Loaded
from pavdm_cli.models.upcast import codec_module, float32_codec, precision
from pavdm_cli.sampling.denoiser import Denoiser
from pavdm_cli.sampling.loop import Repair, SamplerState
from pavdm_cli.sampling.masked_clips import RepairClip

T = TypeVar("T")
HINT = "the weights may be damaged (`pavdm models verify`), or the device fails: try --device cpu"


def fault(values: Tensor, limit: float) -> str:
    """What is wrong with values, empty where all are finite and at most `limit`; waits for the device once."""
    if not values.numel():
        return ""
    low, high = torch.stack(torch.aminmax(values)).tolist()
    if math.isnan(low):
        return "values that are no numbers (NaN)"
    largest = max(-low, high)
    return f"values up to {largest:.3g}, where none is over {limit:g}" if not largest <= limit else ""


@dataclass(slots=True)
class Recovery:
    """What is done about a chunk whose values cannot be; `notes` says what was computed again."""

    model: Loaded
    notes: list[str] = field(default_factory=list)
    chunk: int = 0  # the last that the transformer made, as the decoder counts them
    warmup: int = 0  # chunks before the video, which are not decoded

    @property
    def limit(self) -> float:
        """The largest |latent| that is no fault."""
        return self.model.spec.latent_limit

    def transformed(self, chunk: int, made: T, values: Callable[[T], Tensor], again: Callable[[], T]) -> T:
        """What the transformer made, or what `again` makes in float32. Raises: FaultyValues."""
        self.chunk = chunk = chunk - self.warmup
        if not (found := fault(values(made), self.limit)):
            return made
        made = again()
        self._judge("transformer", chunk, (found, fault(values(made), self.limit)), precision(self.model.denoiser))
        return made

    def decoded(self, chunk: int, latents: Tensor) -> Tensor:
        """Frames of latents, in float32 where they are no pictures otherwise. Raises: FaultyValues."""
        return self._coded("decoder", chunk, lambda codec: codec.decode(latents), 1.0)

    def encoded_anew(self, latents: Tensor) -> Tensor:
        """As `chaining.encoded_anew`, likewise. Raises: FaultyValues."""
        return self._coded("decoder", self.chunk, lambda codec: encoded_anew(codec)(latents), self.limit)

    def _coded(self, part: str, chunk: int, call: Callable[[Codec], Tensor], limit: float) -> Tensor:
        made = call(self.model.codec)
        if not (found := fault(made, limit)):
            return made
        made = call(float32_codec(self.model))
        self._judge(part, chunk, (found, fault(made, limit)), precision(codec_module(self.model)))
        return made

    def _judge(self, part: str, chunk: int, found: tuple[str, str], dtype: str) -> None:
        """Note that computing it again helped, or stop. Raises: FaultyValues."""
        where = self._place(chunk)
        if not found[1]:
            self.notes.append(f"the {part} gave {found[0]} {where}: computed again in float32")
            return
        tried = "twice in float32" if dtype == "float32" else f"in {dtype} and again in float32"
        raise FaultyValues(f"the {part} gave {found[1]} {where}, {tried}", HINT)

    def _place(self, chunk: int) -> str:
        if chunk >= 0:
            return f"in chunk {chunk + 1}"
        return f"in warm-up chunk {chunk + self.warmup + 1}" if self.warmup else "in the end of the input, made again"

    def state_repair(self, steps: Callable[[SamplerState | None], Iterator[SamplerState]]) -> Repair:
        """For `sampler.sample`; steps: a walk in float32 from a state."""

        def repair(sound: SamplerState | None, state: SamplerState) -> SamplerState:
            def again() -> SamplerState:
                return next(made for made in steps(sound) if made.now == state.now)

            return self.transformed(state.chunks[0], state, lambda made: made.window, again)

        return repair

    def clip_repair(self, bind: Callable[[], Denoiser]) -> RepairClip:
        """For `masks.clips`; bind: a denoiser in float32."""

        def repair(chunk: int, made: Tensor, again: Callable[[Denoiser], Tensor]) -> Tensor:
            return self.transformed(chunk, made, lambda clip: clip, lambda: again(bind()))

        return repair


def check_encoded(latents: Tensor, limit: float) -> Tensor:
    """The same latents of given frames. Raises: FaultyValues."""
    if found := fault(latents, limit):
        raise FaultyValues(f"the encoder gave {found} for the frames that the video begins with", HINT)
    return latents
