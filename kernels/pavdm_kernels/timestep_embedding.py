"""Sinusoidal embedding of a number.

e[n, i] = cos(t[n] * f[i]),  e[n, width/2 + i] = sin(t[n] * f[i]),  f[i] = 10000^(-2i / width)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pavdm_kernels.jit import DTYPES, Call, jit, runs_kernel
from pavdm_kernels.op import Draw, Op, Sizes

if TYPE_CHECKING:
    import triton.language as tl


def timestep_embedding_reference(t: Tensor, width: int) -> Tensor:  # (N,) -> (N, width)
    """Cosines first, then sines; at least float32 whatever the dtype of `t`."""
    dtype = torch.promote_types(t.dtype, torch.float32)
    half = torch.arange(width // 2, dtype=dtype, device=t.device)
    angles = t.to(dtype)[:, None] * torch.exp(half * (-2 * math.log(10000.0) / width))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def timestep_embedding(t: Tensor, width: int) -> Tensor:  # (N,) -> (N, width)
    """Embeds timesteps, or frame rates, unscaled."""
    if not runs_kernel(t):
        return timestep_embedding_reference(t, width)
    out: Tensor = launch(t, width)
    return out


@jit
def timestep_embedding_kernel(NUMBER, OUT, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """One number a program; a GPU's own exponential in float32 would put an angle of 1000 off by 2e-4."""
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    half: tl.constexpr = WIDTH // 2
    decay: tl.constexpr = -18.420680743952367 / WIDTH  # -2 ln(10000) / width
    angle = (tl.load(NUMBER + row).to(tl.float64) * tl.exp(column.to(tl.float64) * decay)).to(tl.float32)
    tl.store(OUT + row * WIDTH + column, tl.cos(angle), mask=column < half)
    tl.store(OUT + row * WIDTH + half + column, tl.sin(angle), mask=column < half)


def call(t: Tensor, width: int) -> tuple[Call, Tensor]:
    """The launch of `timestep_embedding_kernel`, and the output it fills."""
    out = output(t, width)
    block = 1 << (width // 2 - 1).bit_length()
    arguments = {"NUMBER": t.contiguous(), "OUT": out, "WIDTH": width, "BLOCK": block}
    return Call(timestep_embedding_kernel, (len(t),), arguments, 1), out


@torch.library.custom_op("pavdm::timestep_embedding", mutates_args=())
def launch(t: Tensor, width: int) -> Tensor:
    """Always the kernel; arguments as `timestep_embedding`."""
    launched, out = call(t, width)
    launched.run()
    return out


@launch.register_fake
def output(t: Tensor, width: int) -> Tensor:
    """Float32."""
    return torch.empty(len(t), width, dtype=torch.float32, device=t.device)


def make(sizes: Sizes, draw: Draw) -> tuple[Tensor, int]:
    """Timesteps from 0 to 1000, as far as the dtype can say."""
    return torch.linspace(0, 1000, sizes["N"]).to(draw.dtype).to(draw.device), sizes["width"]


OP = Op(
    name="timestep_embedding",
    function=timestep_embedding,
    reference=timestep_embedding_reference,
    launch=launch,
    call=call,
    make=make,
    cases=({"N": 31, "width": 256}, {"N": 3, "width": 18}, {"N": 1, "width": 2}),
    real=({"N": 31, "width": 256},),
    # An angle of 1000 radians is 3e-5 coarse in float32; the output is float32 whatever goes in.
    tolerances=dict.fromkeys(DTYPES, 1e-4),
    wide=False,
    # The number, and for each of a thread's four cosines and four sines the digits of 2 / pi that an angle of more than
    # 100000 radians would need: CUDA's code reads one at a time.
    scalars=9,
)
