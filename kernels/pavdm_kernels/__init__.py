"""Fused operations of a video diffusion transformer, each with a reference implementation in plain torch."""

from pavdm_kernels.dispatch import kernels_enabled, on_gpu, use_reference
from pavdm_kernels.dot_product import dot_product
from pavdm_kernels.euler_step import euler_step
from pavdm_kernels.gate_residual import gate_residual
from pavdm_kernels.gate_residual_modulate import gate_residual_modulate
from pavdm_kernels.gate_residual_norm import gate_residual_norm
from pavdm_kernels.linear import cast_to_narrower, linear
from pavdm_kernels.modulate import modulate
from pavdm_kernels.modulation import ModulationVector, PerLevel, gather
from pavdm_kernels.qk_norm_rope import qk_norm_rope
from pavdm_kernels.rms_norm_rope import rms_norm_rope
from pavdm_kernels.temporal_attention import temporal_attention
from pavdm_kernels.timestep_embedding import timestep_embedding

__all__ = [
    "ModulationVector",
    "PerLevel",
    "cast_to_narrower",
    "dot_product",
    "euler_step",
    "gate_residual",
    "gate_residual_modulate",
    "gate_residual_norm",
    "gather",
    "kernels_enabled",
    "linear",
    "modulate",
    "on_gpu",
    "qk_norm_rope",
    "rms_norm_rope",
    "temporal_attention",
    "timestep_embedding",
    "use_reference",
]
