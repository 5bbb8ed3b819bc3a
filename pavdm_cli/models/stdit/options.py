"""Options of every model with an STDiT."""

from __future__ import annotations

from pavdm_cli.models.spec import ModelOption

FP32_TIMESTEPS = ModelOption(
    "fp32-timesteps", bool, False, "Do not round timesteps to bfloat16, as training with bfloat16 weights does."
)
