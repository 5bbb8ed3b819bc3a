"""Sinusoidal embedding of a scalar.

e[n, i] = cos(t[n] * f[i]),  e[n, width/2 + i] = sin(t[n] * f[i]),  f[i] = 10000^(-2i / width)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pavdm_kernels.dispatch import DTYPES, use_kernel
from pavdm_kernels.launch import KernelLaunch
from pavdm_kernels.op import Op, RandomInputs, Sizes


def timestep_embedding_reference(t: Tensor, width: int) -> Tensor:  # (N,) -> (N, width)
    """Cosines first, then sines; float32 or wider, whatever the dtype of t."""
    dtype = torch.promote_types(t.dtype, torch.float32)
    half = torch.arange(width // 2, dtype=dtype, device=t.device)
    angles = t.to(dtype)[:, None] * torch.exp(half * (-2 * math.log(10000.0) / width))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def timestep_embedding(t: Tensor, width: int) -> Tensor:  # (N,) -> (N, width)
    """Embed timesteps or frame rates, unscaled."""
    if not use_kernel(t):
        return timestep_embedding_reference(t, width)
    out: Tensor = launch(t, width)
    return out


def prepare_launch(t: Tensor, width: int) -> tuple[KernelLaunch, Tensor]:
    """The launch of the kernel, and the output that it fills."""
    from pavdm_kernels.triton_kernels.timestep_embedding import timestep_embedding_kernel

    out = outputs(t, width)
    block = 1 << (width // 2 - 1).bit_length()
    arguments = {"t_ptr": t.contiguous(), "out_ptr": out, "WIDTH": width, "BLOCK": block}
    return KernelLaunch(timestep_embedding_kernel, (len(t),), arguments, num_warps=1), out


@torch.library.custom_op("pavdm::timestep_embedding", mutates_args=())
def launch(t: Tensor, width: int) -> Tensor:
    """Always the kernel; arguments as `timestep_embedding`."""
    kernel, out = prepare_launch(t, width)
    kernel.run()
    return out


@launch.register_fake
def outputs(t: Tensor, width: int) -> Tensor:
    """Float32."""
    return torch.empty(len(t), width, dtype=torch.float32, device=t.device)


def make_inputs(sizes: Sizes, random: RandomInputs) -> tuple[Tensor, int]:
    """Timesteps from 0 to 1000, rounded to the dtype."""
    return torch.linspace(0, 1000, sizes["N"]).to(random.dtype).to(random.device), sizes["width"]


OP = Op(
    name="timestep_embedding",
    function=timestep_embedding,
    reference=timestep_embedding_reference,
    launch=launch,
    outputs=outputs,
    prepare_launch=prepare_launch,
    make_inputs=make_inputs,
    test_sizes=({"N": 31, "width": 256}, {"N": 3, "width": 18}, {"N": 1, "width": 2}),
    model_sizes=({"N": 31, "width": 256},),
    # Float32 resolves an angle of 1000 radians to 3e-5; the output is float32 whatever the input.
    tolerances=dict.fromkeys(DTYPES, 1e-4),
    vectorized=False,
    # t itself, and one load for each of a thread's four cosines and four sines: of the digits of 2 / pi that CUDA's
    # range reduction needs for angles above 100000 radians.
    scalar_loads=9,
)
