"""A float32 copy of a loaded model, to compute again what lower precision made of a chunk."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pavdm_cli.models.load import Loaded, with_attention
from pavdm_cli.models.offload import VisitingCodec, offloaded
from pavdm_cli.models.opensora.vae import OpenSoraVAE
from pavdm_cli.models.stdit.transformer import STDiT


def precision(module: nn.Module) -> str:
    """The lowest precision of a module's weights, as people name it."""
    dtypes = {weight.dtype for weight in module.parameters()}
    narrow = [str(dtype).removeprefix("torch.") for dtype in dtypes if dtype.itemsize < torch.float32.itemsize]
    return narrow[0] if narrow else "float32"


def float32_transformer(model: Loaded) -> Loaded:
    """The same model with its transformer in float32; streamed block by block where its weights wait on the host."""
    if precision(model.denoiser) == "float32":
        return model
    rest = model.device if model.arrive is None else torch.device("cpu")
    with torch.device("meta"):
        copy = STDiT(model.denoiser.config)
    weights = {name: _float32(value, rest) for name, value in model.denoiser.state_dict().items()}
    copy.load_state_dict(weights, assign=True)
    copy.eval().requires_grad_(False)
    arrive = model.arrive
    if arrive is not None:
        _, arrive = offloaded(copy, _NoCodec(), model.device, "sequential")
    return with_attention(replace(model, denoiser=copy, arrive=arrive), "auto")


def float32_codec(model: Loaded) -> Any:
    """The codec in float32, on the model's device, working on one picture at a time where it can."""
    module = codec_module(model)
    if precision(module) == "float32":
        return model.codec
    copy = deepcopy(module).to(model.device, torch.float32)
    if isinstance(copy, OpenSoraVAE):
        copy.micro = 1
    return copy


class _NoCodec(nn.Module):
    """A codec without weights."""

    def encode(self, frames: Tensor, /) -> Tensor:
        """Never called."""
        raise NotImplementedError

    decode = encode


def codec_module(model: Loaded) -> nn.Module:
    """The codec's network, wherever its weights are."""
    codec: Any = model.codec.codec if isinstance(model.codec, VisitingCodec) else model.codec
    assert isinstance(codec, nn.Module)
    return codec


def _float32(value: Tensor, device: torch.device) -> Tensor:
    return value.detach().to(device, torch.float32 if value.is_floating_point() else value.dtype, copy=True)
