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
    "modulate-nothing": lambda call: call,
    "modulate-tokens begin anywhere": changed("X", unaligned),
    "modulate-results begin anywhere": changed("Y", unaligned),
    "modulate-128 columns for 128 threads": changed("TAIL", lambda columns: 128, warps=4),
    "qk_norm_rope-tokens lie anywhere": changed("token_stride", lambda stride: stride + 1),
    "qk_norm_rope-8 columns for 2 threads": changed("TAIL", lambda columns: 8),
    "temporal_attention-too few frames for its threads": changed("REMEMBERED", lambda frames: 16),
}


def found(bug: str) -> list[str]:
    """What the gate says of a kernel at a real size, the second one of attention: with a memory."""
    op = next(op for op in OPS if op.name == bug.partition("-")[0])
    sizes = next(sizes for sizes in op.real if sizes.get("C", 1))
    call, _ = op.call(*op.flat(*op.make(sizes, Draw(torch.bfloat16, "meta"))))
    return list(broken(op, build(BUGS[bug](call), "sm_90"), "bf16", "sm_90"))


if __name__ == "__main__":
    print(json.dumps({bug: found(bug) for bug in BUGS}))
