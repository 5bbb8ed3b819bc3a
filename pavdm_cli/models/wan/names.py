"""Parameter names of the two checkpoint layouts, as data: from those of diffusers to the original ones."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Replaced in order; an original name holds none of the left-hand sides.
TRANSFORMER = (
    ("condition_embedder.text_embedder.linear_1.", "text_embedding.0."),
    ("condition_embedder.text_embedder.linear_2.", "text_embedding.2."),
    ("condition_embedder.time_embedder.linear_1.", "time_embedding.0."),
    ("condition_embedder.time_embedder.linear_2.", "time_embedding.2."),
    ("condition_embedder.time_proj.", "time_projection.1."),
    ("fps_projection.net.0.proj.", "fps_projection.0."),
    ("fps_projection.net.2.", "fps_projection.2."),
    (".attn1.", ".self_attn."),
    (".attn2.", ".cross_attn."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".to_out.0.", ".o."),
    (".norm2.", ".norm3."),
    (".ffn.net.0.proj.", ".ffn.0."),
    (".ffn.net.2.", ".ffn.2."),
    (".scale_shift_table", ".modulation"),
    ("scale_shift_table", "head.modulation"),
    ("proj_out.", "head.head."),
)


def original_name(name: str) -> str:
    """The original name of a parameter of the transformer, from either layout."""
    for diffusers, original in TRANSFORMER:
        name = name.replace(diffusers, original)
    return name


_BLOCK = r"(resnets\.\d+|down_blocks\.\d+)"
# Replaced in order, as regular expressions; of the two forms of a level at most one occurs in a checkpoint.
VAE = (
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (rf"{_BLOCK}\.norm1\.", r"\1.residual.0."),
    (rf"{_BLOCK}\.conv1\.", r"\1.residual.2."),
    (rf"{_BLOCK}\.norm2\.", r"\1.residual.3."),
    (rf"{_BLOCK}\.conv2\.", r"\1.residual.6."),
    (rf"{_BLOCK}\.conv_shortcut\.", r"\1.shortcut."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.down_blocks\.(\d+)\.resnets\.", r".downsamples.\1.downsamples."),
    (r"\.down_blocks\.(\d+)\.downsampler\.", r".downsamples.\1.downsamples.2."),
    (r"\.down_blocks\.", ".downsamples."),
    (r"\.up_blocks\.(\d+)\.upsampler\.", r".upsamples.\1.upsamples.3."),
)
NESTED_UP = ((r"\.up_blocks\.(\d+)\.resnets\.", r".upsamples.\1.upsamples."),)  # of a VAE with shortcuts
FLAT_UP = tuple(
    (rf"\.up_blocks\.{level}\.{inner}\.", f".upsamples.{4 * level + index}.")
    for level in range(4)
    for index, inner in enumerate((r"resnets\.0", r"resnets\.1", r"resnets\.2", r"upsamplers\.0"))
)


def original_vae_names(names: Iterable[str]) -> dict[str, str]:
    """The original name of every parameter of a VAE, from either layout."""
    all_names = list(names)
    rules = (*VAE, *(NESTED_UP if any(".upsampler." in name for name in all_names) else FLAT_UP))
    original_names = {}
    for name in all_names:
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        original_names[name] = new
    return original_names


# Of umT5, from the original names to those of transformers, replaced in order as regular expressions.
TEXT_ENCODER = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.", "encoder.block."),
    (r"\.norm1\.", ".layer.0.layer_norm."),
    (r"\.attn\.", ".layer.0.SelfAttention."),
    (r"\.pos_embedding\.embedding\.", ".layer.0.SelfAttention.relative_attention_bias."),
    (r"\.norm2\.", ".layer.1.layer_norm."),
    (r"\.ffn\.gate\.0\.", ".layer.1.DenseReluDense.wi_0."),
    (r"\.ffn\.fc1\.", ".layer.1.DenseReluDense.wi_1."),
    (r"\.ffn\.fc2\.", ".layer.1.DenseReluDense.wo."),
)


def transformers_name(name: str) -> str:
    """The name in transformers of a parameter of umT5, from either layout."""
    if name.startswith(("encoder.", "shared.")):
        return name
    for pattern, replacement in TEXT_ENCODER:
        name = re.sub(pattern, replacement, name)
    return name
