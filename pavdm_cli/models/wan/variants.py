"""The models of the family, as data. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pavdm_cli.models.spec import OPEN_DOMAIN_PROMPTS, ModelSpec, WeightPart
from pavdm_cli.models.wan.config import WAN21, WAN22, VAEConfig, WanConfig

# `pavdm models pull` resolves it to the latest commit, and shows that.
REVISION = "main"
SMALL = WanConfig(dim=1536, heads=12, layers=30, ffn_dim=8960)
LARGE = WanConfig(dim=5120, heads=40, layers=40, ffn_dim=13824)
MIDDLE = WanConfig(dim=3072, heads=24, layers=30, ffn_dim=14336, in_channels=48, out_channels=48)
SKYWORK = "the Skywork Community License, https://github.com/SkyworkAI/SkyReels-V2/blob/main/LICENSE.txt"
SKYREELS_CLASS, WAN_CLASS = "skyreelsv2transformer3dmodel", "wantransformer3dmodel"

PIPELINES = {SKYREELS_CLASS: "skyreelsv2diffusionforcingpipeline", WAN_CLASS: "wanpipeline"}


@dataclass(frozen=True, slots=True)
class Variant:
    """A model of the family."""

    spec: ModelSpec
    transformer: WanConfig
    vae: VAEConfig
    shift: float  # default shift of the noise levels


def _spec(name: str, repo: str, sizes: WanConfig, transformer_class: str, **values: object) -> ModelSpec:
    """The fields that the models share, with `values` replaced."""
    common = ModelSpec(
        name=name,
        description="",
        license="Apache-2.0",
        folder=Path(name),
        size=(544, 960),
        fps=24,
        window=25,
        chunk=5,
        context=0,
        steps=30,
        trained_steps=30,
        guidance=6.0,
        solver="unipc",
        method="pa",
        size_multiple=16,
        max_side=1280,
        causal=False,
        example_prompts=OPEN_DOMAIN_PROMPTS,
        parts=(
            WeightPart("transformer", repo, REVISION, paths=("transformer",)),
            WeightPart("vae", repo, REVISION, paths=("vae",)),
            WeightPart("text_encoder", repo, REVISION, text=True, paths=("text_encoder", "tokenizer")),
        ),
        architectures={
            "transformer": (transformer_class,),
            "vae": ("autoencoderklwan",),
            "text_encoder": ("umt5", "umt5encodermodel"),
            "": ("wanmodel",),  # all parts in one folder
            "model_index.json": (PIPELINES[transformer_class],),
        },
        distinguishing_config=_distinguishing_config(sizes, transformer_class),
        lora=True,
        compile=True,
        empty_prompt=True,
        precisions={"": ("fp32", "bf16"), "cuda": ("bf16", "fp32")},
    )
    return replace(common, **values)  # type: ignore[arg-type]


def _distinguishing_config(sizes: WanConfig, transformer_class: str) -> dict[str, dict[str, object]]:
    skyreels = {"inject_sample_info": sizes.fps_embedding} if transformer_class == SKYREELS_CLASS else {}
    layers = {"num_layers": sizes.layers, "ffn_dim": sizes.ffn_dim}
    return {
        "transformer": {**layers, "in_channels": sizes.in_channels, **skyreels},
        "": {**layers, "in_dim": sizes.in_channels, **skyreels},
    }


SKYREELS = {
    "license": "Skywork Community License; VAE and text encoder Apache-2.0",
    "terms": SKYWORK,
}
SKYREELS_1_3B = Variant(
    _spec(
        "skyreels-v2-df-1.3b",
        "Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers",
        replace(SMALL, fps_embedding=True),
        SKYREELS_CLASS,
        description="SkyReels-V2 diffusion forcing, 1.3B: any prompt, 960x544, trained with a noise level per latent",
        frame_rates=(16, 24),
        fps_range=(16, 24),
        **SKYREELS,
    ),
    replace(SMALL, fps_embedding=True),
    WAN21,
    shift=8.0,
)
SKYREELS_14B_540P = Variant(
    _spec(
        "skyreels-v2-df-14b-540p",
        "Skywork/SkyReels-V2-DF-14B-540P-Diffusers",
        LARGE,
        SKYREELS_CLASS,
        description="SkyReels-V2 diffusion forcing, 14B: any prompt, 960x544, trained with a noise level per latent",
        **SKYREELS,
    ),
    LARGE,
    WAN21,
    shift=8.0,
)
SKYREELS_14B_720P = Variant(
    _spec(
        "skyreels-v2-df-14b-720p",
        "Skywork/SkyReels-V2-DF-14B-720P-Diffusers",
        LARGE,
        SKYREELS_CLASS,
        description="SkyReels-V2 diffusion forcing, 14B: any prompt, 1280x720, trained with a noise level per latent",
        size=(720, 1280),
        window=30,
        **SKYREELS,
    ),
    LARGE,
    WAN21,
    shift=8.0,
)
WAN21_1_3B = Variant(
    _spec(
        "wan2.1-t2v-1.3b",
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        SMALL,
        WAN_CLASS,
        description="Wan2.1, 1.3B: any prompt, 832x480; its weights were not trained for progressive levels",
        size=(480, 832),
        fps=16,
        window=21,
        chunk=3,
        steps=49,
        trained_steps=49,
        tuned=False,
    ),
    SMALL,
    WAN21,
    shift=8.0,
)
WAN21_14B = Variant(
    _spec(
        "wan2.1-t2v-14b",
        "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        LARGE,
        WAN_CLASS,
        description="Wan2.1, 14B: any prompt, 832x480 or 1280x720; its weights were not trained for progressive levels",
        size=(480, 832),
        fps=16,
        window=21,
        chunk=3,
        steps=49,
        trained_steps=49,
        guidance=5.0,
        tuned=False,
    ),
    LARGE,
    WAN21,
    shift=5.0,
)
WAN22_5B = Variant(
    _spec(
        "wan2.2-ti2v-5b",
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        MIDDLE,
        WAN_CLASS,
        description="Wan2.2, 5B: any prompt, 1280x704 with a 16x smaller latent; not trained for progressive levels",
        size=(704, 1280),
        window=30,
        steps=48,
        trained_steps=48,
        guidance=5.0,
        size_multiple=32,
        tuned=False,
    ),
    MIDDLE,
    WAN22,
    shift=5.0,
)
VARIANTS = {
    variant.spec.name: variant
    for variant in (SKYREELS_1_3B, SKYREELS_14B_540P, SKYREELS_14B_720P, WAN21_1_3B, WAN21_14B, WAN22_5B)
}
