"""A model whose weights are loaded once for several videos."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pavdm_cli.generation import memory_plan, pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.hub.weights_dir import require_weights
from pavdm_cli.models.devices import set_threads
from pavdm_cli.models.runner import ModelRunner

LOADED_WITH = ("device", "precision", "offload", "vae_tiling", "attention", "decode_batch")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, and the configuration of the first video that it was loaded for."""

    config: GenerationConfig
    runner: ModelRunner

    def difference(self, config: GenerationConfig) -> str:
        """What of another video needs the model to be loaded again; empty where it can be used as it is."""
        now, own = self._with_switches(config).execution, self.config.execution
        if self.config.spec.name != config.spec.name:
            return "model"
        for name in LOADED_WITH:
            attention = name == "attention" and now.attention == self.runner.attention.name
            if getattr(own, name) != getattr(now, name) and not attention:
                return name
        same = (self.config.lora, self.config.text_device) == (config.lora, config.text_device)
        return "" if same else "LoRA or text device"

    def adapt(self, config: GenerationConfig) -> tuple[GenerationConfig, ModelRunner]:
        """Another video's configuration, with what memory decided for the first one, and the model for it."""
        config = self._with_switches(config)
        set_threads(config.execution.threads)
        return config, replace(self.runner, spec=config.spec, options=config.options)

    def _with_switches(self, config: GenerationConfig) -> GenerationConfig:
        return config.with_execution(**{name: getattr(self.config.execution, name) for name in config.open_switches})


def load(config: GenerationConfig) -> Loaded:
    """The model for a video and others like it, as memory allows. Raises: UsageError, ModelError, DeviceError."""
    require_weights(config.spec, bool(config.prompt), config.video_model.published)
    fitting = _fit_to_memory(config)
    return Loaded(fitting, pipeline.open_model(fitting))


def _fit_to_memory(config: GenerationConfig) -> GenerationConfig:
    """The configuration as memory allows. Raises: DeviceError."""
    if not memory_plan.worth_telling(config):
        return config
    budget = memory_plan.choose(config)
    if not budget.fits:
        raise memory_plan.refusal(budget)
    return budget.config
