"""One Euler step of a rectified flow whose velocity is clean - noise, with a level a frame.

z' = z + (sigma[level] - sigma[level - 1]) * v,   unchanged at level 0
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pavdm_kernels.jit import Call, jit, runs_kernel
from pavdm_kernels.op import TOLERANCES, Draw, Op, Sizes

if TYPE_CHECKING:
    import triton.language as tl


def euler_step_reference(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> Tensor:
    """One `addcmul` with the step size of every frame."""
    return torch.addcmul(z, step_sizes[levels][..., None, None, None], velocity)


def euler_step(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> Tensor:
    """Takes every frame one level down; shape kept.

    z, velocity (B, T, C, H, W); levels int32 (T,) or (B, T); step_sizes (steps + 1,): sigma[l] - sigma[l - 1], first 0.
    """
    if not runs_kernel(z):
        return euler_step_reference(z, velocity, levels, step_sizes)
    out: Tensor = launch(z, velocity, levels, step_sizes)
    return out


@jit
def euler_step_kernel(Z, VELOCITY, LEVEL, STEP, OUT, levels, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK numbers of one frame of SIZE numbers a program."""
    blocks = tl.cdiv(SIZE, BLOCK)
    frame = tl.program_id(0) // blocks
    place = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    wanted, start = place < SIZE, frame.to(tl.int64) * SIZE
    step = tl.load(STEP + tl.load(LEVEL + frame % levels)).to(tl.float32)
    z = tl.load(Z + start + place, mask=wanted).to(tl.float32)
    velocity = tl.load(VELOCITY + start + place, mask=wanted).to(tl.float32)
    tl.store(OUT + start + place, (z + step * velocity).to(OUT.dtype.element_ty), mask=wanted)


BLOCK = 1024  # eight numbers a thread


def call(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> tuple[Call, Tensor]:
    """The launch of `euler_step_kernel`, and the output it fills."""
    out = output(z, velocity, levels, step_sizes)
    size = z[0, 0].numel()
    arguments = {
        "Z": z.contiguous(),
        "VELOCITY": velocity.contiguous(),
        "LEVEL": levels.contiguous(),
        "STEP": step_sizes.contiguous(),
        "OUT": out,
        "levels": levels.numel(),
        "SIZE": size,
        "BLOCK": BLOCK,
    }
    return Call(euler_step_kernel, (z.shape[0] * z.shape[1] * -(-size // BLOCK),), arguments, 4), out


@torch.library.custom_op("pavdm::euler_step", mutates_args=())
def launch(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> Tensor:
    """Always the kernel; arguments as `euler_step`."""
    launched, out = call(z, velocity, levels, step_sizes)
    launched.run()
    return out


@launch.register_fake
def output(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> Tensor:
    """Like z, in the widest dtype of all."""
    dtype = reduce(torch.promote_types, (velocity.dtype, step_sizes.dtype), z.dtype)
    return torch.empty(z.shape, dtype=dtype, device=z.device)


def make(sizes: Sizes, draw: Draw) -> tuple[Tensor, ...]:
    """Velocities are slices, as of a model that predicts more channels than it uses; step sizes stay in float32."""
    batch, frames, channels, height, width = (sizes[name] for name in "BTCHW")
    velocity = draw.normal(batch, frames, 2 * channels, height, width)[:, :, :channels]
    step_sizes = torch.rand(31, **draw.source).to(draw.device)
    return draw.normal(batch, frames, channels, height, width), velocity, draw.levels(sizes, 31), step_sizes


OP = Op(
    name="euler_step",
    function=euler_step,
    reference=euler_step_reference,
    launch=launch,
    call=call,
    make=make,
    cases=(
        {"B": 2, "T": 3, "C": 4, "H": 7, "W": 9},
        {"B": 1, "T": 2, "C": 4, "H": 30, "W": 53, "per_sample": 1},
    ),
    real=({"B": 1, "T": 30, "C": 4, "H": 30, "W": 53}, {"B": 1, "T": 20, "C": 16, "H": 8, "W": 12}),
    tolerances=TOLERANCES,
    scalars=2,  # a level and its step size
)
