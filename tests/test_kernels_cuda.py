"""Every kernel against its reference in float64, compiled and run on a GPU."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this platform", exc_type=ModuleNotFoundError)

from support.gpu import needs_gpu
from test_kernels import CASES, relative_error

from pavdm_kernels.dispatch import DTYPES
from pavdm_kernels.op import Op, RandomInputs

pytestmark = needs_gpu


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("op", "case"), CASES)
def test_the_kernel_equals_its_reference(op: Op, case, dtype: torch.dtype) -> None:
    assert relative_error(op, op.make_inputs(case, RandomInputs(dtype, "cuda"))) <= op.tolerances[dtype]
