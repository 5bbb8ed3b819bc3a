"""What the options of a video say about how to sample it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pavdm_cli.commands import options
from pavdm_cli.commands.run import pick_seed
from pavdm_cli.generation.request import Sampling
from pavdm_cli.models.execution import Reading

SAME = (
    *("model", "method", "steps", "window", "chunk", "guidance", "device", "threads"),
    *("fp32_timesteps", "reencode", "edit_ratio", "precision"),
)  # values of options that a Sampling has under the same name


def sampling_of(given: Mapping[str, Any]) -> Sampling:
    """The values of a command's options by name, as a Sampling. Raises: UsageError."""
    off = (given["no_table"], given["no_text_memory"], given["no_fused"], given["plain"])
    switches = (given["attention"], given["overlap_kv"], given["cuda_graphs"], given["decode_beside"])
    return Sampling(
        **{name: given[name] for name in SAME},
        warmup=given.get("warmup"),
        overlap=not given["no_overlap"],
        seed=pick_seed(given["seed"]),
        engine=options.engine(*switches, given["compiled"], off, (given["offload"], given["passes"])),
        reading=Reading(
            aesthetic=given["aesthetic_score"] or None,
            motion=given["motion_score"],
            camera=given["camera_motion"],
            device=given["text_device"],
        ),
    )
