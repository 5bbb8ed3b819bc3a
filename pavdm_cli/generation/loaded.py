"""A model that is loaded once for several videos."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pavdm_cli.generation import memory_advice, memory_plan, pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.hub.weights_dir import require_weights
from pavdm_cli.models.devices import set_threads
from pavdm_cli.models.runner import ModelRunner

RELOAD_FIELDS = ("device", "precision", "offload", "vae_tiling", "attention", "vae_batch_size")


@dataclass(frozen=True, slots=True)
class LoadedRunner:
    """A loaded model and the configuration it was loaded for."""

    config: GenerationConfig
    runner: ModelRunner

    def reload_reason(self, config: GenerationConfig) -> str:
        """The setting of another video that requires reloading the model; empty if it can be reused."""
        execution, loaded_execution = self._with_switches(config).execution, self.config.execution
        if self.config.spec.name != config.spec.name:
            return "model"
        for name in RELOAD_FIELDS:
            same_backend = name == "attention" and execution.attention == self.runner.attention.name
            if getattr(loaded_execution, name) != getattr(execution, name) and not same_backend:
                return name
        has_same_parts = (self.config.lora, self.config.text_device) == (config.lora, config.text_device)
        return "" if has_same_parts else "LoRA or text device"

    def adapt(self, config: GenerationConfig) -> tuple[GenerationConfig, ModelRunner]:
        """Another configuration, with the switches that the memory plan of the first video chose, and its runner."""
        config = self._with_switches(config)
        set_threads(config.execution.threads)
        return config, replace(self.runner, spec=config.spec, options=config.options)

    def _with_switches(self, config: GenerationConfig) -> GenerationConfig:
        return config.with_execution(**{name: getattr(self.config.execution, name) for name in config.auto_switches})


def load(config: GenerationConfig) -> LoadedRunner:
    """Load the model, with settings that fit in memory. Raises: UsageError, ModelError, DeviceError."""
    require_weights(config.spec, bool(config.prompt), config.video_model.published_spec)
    planned_config = _fit_to_memory(config)
    return LoadedRunner(planned_config, pipeline.open_model(planned_config))


def _fit_to_memory(config: GenerationConfig) -> GenerationConfig:
    """The configuration as memory allows. Raises: DeviceError."""
    if not memory_plan.needs_memory_plan(config):
        return config
    plan = memory_plan.choose_plan(config)
    if not plan.fits:
        raise memory_advice.build_memory_error(plan)
    return plan.config
