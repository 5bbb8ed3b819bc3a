"""Options of every model with an STDiT."""

from __future__ import annotations

from pavdm_cli.models.spec import ModelOption

FP32_TIMESTEPS = ModelOption(
    "fp32-timesteps", bool, False, "Keep timesteps in float32 instead of rounding them to bfloat16 as in training."
)
