"""The hot element-wise operations of a video diffusion transformer, each with a plain-torch reference."""

from pavdm_kernels.dot_product import dot_product
from pavdm_kernels.euler_step import euler_step
from pavdm_kernels.gate_residual_modulate import gate_residual_modulate
from pavdm_kernels.jit import fused, on_gpu, references
from pavdm_kernels.linear import linear, narrowed
from pavdm_kernels.modulate import modulate
from pavdm_kernels.qk_norm_rope import qk_norm_rope
from pavdm_kernels.rows import Rows, Vector, pick
from pavdm_kernels.temporal_attention import temporal_attention
from pavdm_kernels.timestep_embedding import timestep_embedding

__all__ = [
    "Rows",
    "Vector",
    "dot_product",
    "euler_step",
    "fused",
    "gate_residual_modulate",
    "linear",
    "modulate",
    "narrowed",
    "on_gpu",
    "pick",
    "qk_norm_rope",
    "references",
    "temporal_attention",
    "timestep_embedding",
]
