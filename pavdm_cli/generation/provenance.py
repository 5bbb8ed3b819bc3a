"""The metadata stored in a video: enough to reproduce its frames on the same machine."""

from __future__ import annotations

import platform
from typing import Any

import av
import torch

from pavdm_cli import __version__
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.timeline import PromptChange
from pavdm_cli.models.adapter import Prompt
from pavdm_cli.models.execution import VAE_BATCH_SIZE
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.runtime.untrusted import stored_values


def collect_metadata(config: GenerationConfig, model: ModelRunner) -> dict[str, Any]:
    """The fields of the configuration that change frames, and the properties of the loaded model."""
    return {
        "pavdm": __version__,
        "prompt": config.prompt,
        **({"caption": config.formatted_prompt.caption} if config.formatted_prompt.caption else {}),
        "fps": config.spec.fps,
        "model": config.spec.name,
        "weights": model.digest,
        **({"lora": list(config.lora)} if config.lora else {}),
        **_options(config),
        **_effective_fields(config),
        "attention": model.attention.name,
        "attention_reason": model.attention.reason,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "av": av.__version__},
    }


def _options(config: GenerationConfig) -> dict[str, Any]:
    """The model's own options."""
    model_options = [option for option in config.video_model.options if option.changes_frames]
    values = {option.key: config.options.get(option.key, option.default) for option in model_options}
    return {key: None if value == "" else value for key, value in values.items()}


def _effective_fields(config: GenerationConfig) -> dict[str, Any]:
    """The frame-changing fields, without those that have no effect here."""
    height, width = config.spec.size
    stored = {"size": f"{width}x{height}"} | stored_values(config) | stored_values(config.execution)
    stored["timeline"] = [_change(*pair) for pair in zip(config.timeline, config.formatted_timeline, strict=True)]
    ineffective: tuple[str, ...] = () if config.spec.size_multiple else ("cfg_batching", "vae_tiling", "vae_batch_size")
    ineffective += () if config.spec.is_resizable else ("size",)
    ineffective += ("vae_batch_size",) if config.execution.vae_batch_size == VAE_BATCH_SIZE else ()
    ineffective += ("reencode", "edit_ratio") if config.method != "rn" else ()
    ineffective += ("forever",) if not config.forever else ()
    ineffective += ("frames",) if config.endless else ()  # not known until it is stopped
    ineffective += ("timeline", "blend") if not config.timeline else ()
    ineffective += ("loop",) if not config.loop else ()
    ineffective += ("stride",) if config.method != "windows" else ()
    return {name: value for name, value in stored.items() if name not in ineffective}


def _change(change: PromptChange, prompt: Prompt) -> dict[str, Any]:
    """A prompt change, with its caption if it differs."""
    caption = {"caption": prompt.caption} if prompt.caption else {}
    return {"at": change.at, "prompt": change.prompt, **caption}
