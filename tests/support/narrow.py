"""Builds kernels with one mistake each that narrows a load or a store; prints what the gate says of them, as JSON.

A program of its own: tests run where kernels are interpreted, and there none can be built.
"""

from __future__ import annotations

import json
import math

import torch

from pavdm_cli.bench.compile import build
from pavdm_cli.bench.kernels import broken
from pavdm_kernels.op import Draw
from pavdm_kernels.ops import OPS


def unaligned(x):
    """The same tensor, one number behind where memory begins."""
    return torch.empty(math.prod(x.shape) + 1, dtype=x.dtype, device=x.device)[1:].view(x.shape)


def changed(name, change, warps=None):
    def plant(call):
        arguments = {**call.arguments, name: change(call.arguments[name])}
        return call._replace(arguments=arguments, warps=warps or call.warps)

    return plant


BUGS = {
    "euler_step-nothing": lambda call: call,
    "euler_step-numbers begin anywhere": changed("Z", unaligned),
    "euler_step-results begin anywhere": changed("OUT", unaligned),
    "modulate-256 columns for 256 threads": changed("HEAD", lambda columns: 256, warps=8),
    "qk_norm_rope-tokens lie anywhere": changed("token_stride", lambda stride: stride + 1),
}


def found(bug: str) -> list[str]:
    """What the gate says of a kernel at the last of its real sizes, the smallest."""
    op = next(op for op in OPS if op.name == bug.partition("-")[0])
    call, _ = op.call(*op.flat(*op.make(op.real[-1], Draw(torch.bfloat16, "meta"))))
    return list(broken(op, build(BUGS[bug](call), "sm_90"), "bf16", "sm_90"))


if __name__ == "__main__":
    print(json.dumps({bug: found(bug) for bug in BUGS}))
