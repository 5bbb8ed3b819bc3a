"""Every operation's kernel against its reference in float64, compiled and run by a GPU."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this platform", exc_type=ModuleNotFoundError)

from support.gpu import needs_gpu
from test_kernels import CASES, error

from pavdm_kernels.jit import DTYPES
from pavdm_kernels.op import Draw, Op

pytestmark = needs_gpu


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("op", "case"), CASES)
def test_the_kernel_computes_what_the_reference_does(op: Op, case, dtype: torch.dtype) -> None:
    assert error(op, op.make(case, Draw(dtype, "cuda"))) <= op.tolerances[dtype]
