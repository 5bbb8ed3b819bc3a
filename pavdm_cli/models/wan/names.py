"""Parameter names of the two checkpoint layouts, as data: those of diffusers in terms of the original ones."""

from __future__ import annotations

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
    """The original name of a transformer's parameter of either layout."""
    for diffusers, original in TRANSFORMER:
        name = name.replace(diffusers, original)
    return name
