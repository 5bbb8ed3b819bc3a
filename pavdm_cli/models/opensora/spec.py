"""Open-Sora v1.2 as data."""

from __future__ import annotations

from pathlib import Path

from pavdm_cli.models.spec import OPEN_DOMAIN_PROMPTS, ModelSpec, WeightPart

STDIT_V3 = "9a8583918505ee93bd9fae8dd5ce32e1f9334c71"  # the last commit of its main branch
VAE_V1_2 = "33d153e9b5a9f771a8a84f98bd3f46458a8ed0bf"  # the last commit of its main branch
# The hub's automatic conversion to safetensors, an open pull request; the main branch is pickled.
SAFE_T5 = "23ed28cddf2348992461bcda9922f53e8c8d4d59"
SPEC = ModelSpec(
    name="opensora-v1.2",
    description="Open-Sora v1.2: any prompt, on a GPU; its published weights were not trained for progressive levels",
    license="transformer and VAE Apache-2.0; the repository of T5 states no license",
    folder=Path("opensora-v1.2"),
    example_prompts=OPEN_DOMAIN_PROMPTS,
    size=(240, 424),
    fps=24,
    window=30,
    chunk=5,
    steps=30,
    trained_steps=30,
    compile=True,
    guidance=7.0,
    method="pa",
    size_multiple=8,
    max_side=1280,
    fps_range=(8, 60),
    causal=False,
    tuned=False,
    reencodes=True,
    parts=(
        WeightPart("transformer", "hpcai-tech/OpenSora-STDiT-v3", STDIT_V3),
        WeightPart("vae", "hpcai-tech/OpenSora-VAE-v1.2", VAE_V1_2),
        WeightPart("text_encoder", "DeepFloyd/t5-v1_1-xxl", SAFE_T5, text=True),
    ),
    # What the configuration of each part may declare, in lower case.
    architectures={
        "transformer": ("stdit3",),
        "vae": ("videoautoencoderpipeline", "opensoravae_v1_2"),
        "text_encoder": ("t5", "t5encodermodel", "t5model", "t5forconditionalgeneration"),
    },
    precisions={"": ("fp32",), "cuda": ("bf16",)},
)
