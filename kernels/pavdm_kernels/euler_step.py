"""One Euler step of a rectified flow whose velocity is clean - noise, with a noise level per frame.

z' = z + (sigma[level] - sigma[level - 1]) * v,   unchanged at level 0
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from pavdm_kernels.dispatch import use_kernel
from pavdm_kernels.launch import KernelLaunch
from pavdm_kernels.op import TOLERANCES, Op, RandomInputs, Sizes

BLOCK_N = 1024  # eight elements per thread


def euler_step_reference(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> Tensor:
    """One `addcmul` with the step size of every frame."""
    return torch.addcmul(z, step_sizes[levels][..., None, None, None], velocity)


def euler_step(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> Tensor:
    """Take every frame one level down.

    z, velocity (B, T, C, H, W); levels int32 (T,) or (B, T); step_sizes (steps + 1,): sigma[l] - sigma[l - 1], first 0.
    """
    if not use_kernel(z):
        return euler_step_reference(z, velocity, levels, step_sizes)
    out: Tensor = launch(z, velocity, levels, step_sizes)
    return out


def prepare_launch(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> tuple[KernelLaunch, Tensor]:
    """The launch of the kernel, and the output that it fills."""
    from pavdm_kernels.triton_kernels.euler_step import euler_step_kernel

    out = outputs(z, velocity, levels, step_sizes)
    size = z[0, 0].numel()
    arguments = {
        "z_ptr": z.contiguous(),
        "velocity_ptr": velocity.contiguous(),
        "level_ptr": levels.contiguous(),
        "step_size_ptr": step_sizes.contiguous(),
        "out_ptr": out,
        "num_levels": levels.numel(),
        "N": size,
        "BLOCK_N": BLOCK_N,
    }
    grid = (z.shape[0] * z.shape[1] * -(-size // BLOCK_N),)
    return KernelLaunch(euler_step_kernel, grid, arguments, num_warps=4), out


@torch.library.custom_op("pavdm::euler_step", mutates_args=())
def launch(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> Tensor:
    """Always the kernel; arguments as `euler_step`."""
    kernel, out = prepare_launch(z, velocity, levels, step_sizes)
    kernel.run()
    return out


@launch.register_fake
def outputs(z: Tensor, velocity: Tensor, levels: Tensor, step_sizes: Tensor) -> Tensor:
    """Like z, in the widest dtype of the inputs."""
    dtype = reduce(torch.promote_types, (velocity.dtype, step_sizes.dtype), z.dtype)
    return torch.empty(z.shape, dtype=dtype, device=z.device)


def make_inputs(sizes: Sizes, random: RandomInputs) -> tuple[Tensor, ...]:
    """Velocities are slices, as of a model that predicts more channels than it uses; step sizes stay float32."""
    batch, frames, channels, height, width = (sizes[name] for name in "BTCHW")
    velocity = random.normal(batch, frames, 2 * channels, height, width)[:, :, :channels]
    step_sizes = torch.rand(31, **random.source).to(random.device)
    return random.normal(batch, frames, channels, height, width), velocity, random.levels(sizes, 31), step_sizes


OP = Op(
    name="euler_step",
    function=euler_step,
    reference=euler_step_reference,
    launch=launch,
    outputs=outputs,
    prepare_launch=prepare_launch,
    make_inputs=make_inputs,
    test_sizes=(
        {"B": 2, "T": 3, "C": 4, "H": 7, "W": 9},
        {"B": 1, "T": 2, "C": 4, "H": 30, "W": 53, "per_sample": 1},
    ),
    model_sizes=({"B": 1, "T": 30, "C": 4, "H": 30, "W": 53}, {"B": 1, "T": 20, "C": 16, "H": 8, "W": 12}),
    tolerances=TOLERANCES,
    scalar_loads=2,  # a level and its step size
)
