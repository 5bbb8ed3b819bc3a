"""Compile kernels with one bug each that narrows a load or a store; print why the check refuses them, as JSON.

A separate program: the tests run Triton's interpreter, which compiles nothing.
"""

from __future__ import annotations

import json
import math

import torch

from pavdm_cli.bench.compile import build
from pavdm_cli.bench.kernels import limit_violations
from pavdm_kernels.op import RandomInputs
from pavdm_kernels.ops import OPS


def unaligned(x):
    """A tensor of this shape that starts one element after its storage."""
    return torch.empty(math.prod(x.shape) + 1, dtype=x.dtype, device=x.device)[1:].view(x.shape)


def changed(name, change, num_warps=None):
    def plant(launch):
        arguments = {**launch.arguments, name: change(launch.arguments[name])}
        return launch._replace(arguments=arguments, num_warps=num_warps or launch.num_warps)

    return plant


BUGS = {
    "euler_step-nothing": lambda launch: launch,
    "euler_step-unaligned input": changed("z_ptr", unaligned),
    "euler_step-unaligned output": changed("out_ptr", unaligned),
    "modulate-256 columns for 256 threads": changed("BLOCK_D0", lambda columns: 256, num_warps=8),
    "qk_norm_rope-unaligned tokens": changed("stride_s", lambda stride: stride + 1),
}


def reasons(bug: str) -> list[str]:
    """Why the check refuses the kernel, at the smallest of its model sizes."""
    op = next(op for op in OPS if op.name == bug.partition("-")[0])
    inputs = op.make_inputs(op.model_sizes[-1], RandomInputs(torch.bfloat16, "meta"))
    launch, _ = op.prepare_launch(*op.launch_arguments(*inputs))
    return list(limit_violations(op, build(BUGS[bug](launch), "sm_90"), "bf16", "sm_90"))


if __name__ == "__main__":
    print(json.dumps({bug: reasons(bug) for bug in BUGS}))
