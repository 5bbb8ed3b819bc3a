"""A transformer bound to one prompt: the two calls a sampler makes, the overlap's keys and values kept or made anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pavdm_cli.attention import Attention
from pavdm_cli.models.stdit.transformer import Attends, Memory, Modulation, RunBlock, STDiT, Text, as_written, keeping
from pavdm_cli.sampling.denoiser import Denoiser, FunctionDenoiser
from pavdm_kernels import on_gpu, use_reference

Size = tuple[float, float] | None  # pixels, height and width, where positions follow them


@torch.no_grad()
def levels_table(stdit: STDiT, sigmas: Tensor, fps: float, exact: bool = False) -> Modulation:
    """The modulation of every level of a schedule, computed once a video; sigmas (steps + 1,).

    Timesteps are rounded as the weights are (in bfloat16, 740 for 738.1), as Open-Sora was trained, unless `exact`.
    """
    weight = stdit.final_layer.linear.weight
    times = sigmas.to(weight.device, torch.promote_types(sigmas.dtype, weight.dtype)) * 1000
    table = stdit.table(times if exact else times.to(weight), weight.new_tensor(fps))
    return table if on_gpu(weight) else stdit.summed(table)


def attending(text: Text, attention: Attention, run: RunBlock = as_written) -> Text:
    """The same text, read through a back end, or through its stand-in where the text has a mask or a single word.

    Positions, which depend on sizes alone, are made once for whatever is bound to it. `run` is how blocks are run.
    """
    over_text = attention.for_keys(text.kv[0].shape[1], text.mask is not None)
    return text._replace(attends=Attends(attention.any_length, over_text), keep=keeping(), run=run)


def of_rows(text: Text, rows: slice) -> Text:
    """Some rows of a batch of prompts."""
    mask = None if text.mask is None else text.mask[rows]
    return text._replace(kv=tuple(kv[rows] for kv in text.kv), mask=mask)


def remembering(stdit: STDiT, text: Text, table: Modulation, overlap: int, size: Size = None) -> Denoiser:
    """For a model whose clean frames attend only to clean frames: their keys and values are computed once a shift."""

    @torch.no_grad()
    def prefill(frames: Tensor, level: int) -> Memory:
        return stdit.prefill(frames.to(_weight(stdit)), _same(level, frames), table, text, size)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, memory: Memory | None) -> Tensor:
        shown, memory = window.to(_weight(stdit)), memory or Memory(None, overlap)
        out: Tensor = stdit(shown, levels, table, text, memory=memory, size=size)
        return out.to(window)

    return FunctionDenoiser(prefill, velocity)


def recomputing(
    stdit: STDiT, text: Text, table: Modulation, overlap: int, size: Size = None, *, causal: bool = False
) -> Denoiser:
    """For any model: the overlap is shown before the window at every step, and every frame attends to every frame.

    With `causal` the overlap's attend only to one another: `remembering`, with nothing remembered.
    """

    def prefill(frames: Tensor, level: int) -> tuple[Tensor, Tensor]:
        return frames, _same(level, frames)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, memory: tuple[Tensor, Tensor] | None) -> Tensor:
        if memory is None:
            shown = window.to(_weight(stdit))
            alone: Tensor = stdit(shown, levels, table, text, memory=Memory(None, overlap), size=size)
            return alone.to(window)
        frames, rows = memory
        shown, clean = torch.cat([frames, window], dim=1).to(_weight(stdit)), frames.shape[1] if causal else 0
        both: Tensor = stdit(shown, torch.cat([rows, levels]), table, text, clean=clean, size=size)
        return both[:, frames.shape[1] :].to(window)

    return FunctionDenoiser(prefill, velocity)


def renewed(make: Callable[[], Denoiser]) -> Denoiser:
    """Made again at every call, with all that it is made of: a video's constants computed at every step."""

    @torch.no_grad()
    def prefill(frames: Tensor, level: int) -> Any:
        return make().prefill(frames, level)

    @torch.no_grad()
    def velocity(window: Tensor, levels: Tensor, memory: Any) -> Tensor:
        return make()(window, levels, memory)

    return FunctionDenoiser(prefill, velocity)


def reference_ops(denoiser: Denoiser) -> Denoiser:
    """Every operation as its reference in plain torch."""

    def prefill(frames: Tensor, level: int) -> Any:
        with use_reference():
            return denoiser.prefill(frames, level)

    def velocity(window: Tensor, levels: Tensor, memory: Any) -> Tensor:
        with use_reference():
            return denoiser(window, levels, memory)

    return FunctionDenoiser(prefill, velocity)


def _weight(stdit: STDiT) -> Tensor:
    """A weight, for the device and precision of what the network is shown."""
    return stdit.x_embedder.proj.weight


def _same(level: int, frames: Tensor) -> Tensor:
    return torch.full(frames.shape[1:2], level, dtype=torch.int32, device=frames.device)
