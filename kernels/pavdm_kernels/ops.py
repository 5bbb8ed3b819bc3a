"""The records of all operations."""

from __future__ import annotations

from pavdm_kernels.euler_step import OP as EULER_STEP
from pavdm_kernels.gate_residual import OP as GATE_RESIDUAL
from pavdm_kernels.gate_residual_modulate import OP as GATE_RESIDUAL_MODULATE
from pavdm_kernels.gate_residual_norm import OP as GATE_RESIDUAL_NORM
from pavdm_kernels.modulate import OP as MODULATE
from pavdm_kernels.qk_norm_rope import OP as QK_NORM_ROPE
from pavdm_kernels.rms_norm_rope import OP as RMS_NORM_ROPE
from pavdm_kernels.temporal_attention import OP as TEMPORAL_ATTENTION
from pavdm_kernels.timestep_embedding import OP as TIMESTEP_EMBEDDING

OPS = (
    MODULATE,
    GATE_RESIDUAL_MODULATE,
    GATE_RESIDUAL_NORM,
    GATE_RESIDUAL,
    QK_NORM_ROPE,
    RMS_NORM_ROPE,
    TEMPORAL_ATTENTION,
    EULER_STEP,
    TIMESTEP_EMBEDDING,
)
