"""A model of the Wan family before its weights are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pavdm_cli.errors import UsageError
from pavdm_cli.models.adapter import HelpTable, Init, LoadedModel, Options, Placement, Prompt, TextEncoder
from pavdm_cli.models.execution import DEVICES
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.spec import ModelOption, ModelSpec
from pavdm_cli.models.wan.config import TEXT_LENGTH
from pavdm_cli.models.wan.variants import VARIANTS, Variant
from pavdm_cli.runtime.validation import check_name, check_text

if TYPE_CHECKING:
    from pavdm_cli.sampling.noise import NoiseLevels


def _check_shift(shift: float | None) -> None:
    if shift is not None and not 0.1 <= shift <= 100:
        raise UsageError(f"--shift must be 0.1 to 100, got {shift:g}", "5 and 8 are usual")


def _check_context_noise(timestep: float | None) -> None:
    if timestep is not None and (not 0 <= timestep <= 50 or timestep % 1):
        raise UsageError(f"--context-noise must be a whole timestep of 0 to 50, got {timestep:g}", "20 is usual")


OPTIONS = (
    ModelOption(
        "negative-prompt",
        str,
        "",
        "What the video should not show: guidance steers away from it.",
        check=lambda text: check_text("--negative-prompt", text),
    ),
    ModelOption(
        "shift",
        float | None,
        None,
        "Timestep shift: a larger one spends more steps at high noise. Default: the model's.",
        check=_check_shift,
    ),
    ModelOption(
        "context-noise",
        float | None,
        None,
        "Timestep, of 1000, to which the context is noised; default: none.",
        check=_check_context_noise,
    ),
    ModelOption(
        "text-device",
        str,
        "",
        "Device of the text encoder; cpu saves GPU memory. Default: same as --device.",
        choices=DEVICES,
        check=lambda name: check_name("--text-device", name or "auto", DEVICES),
    ),
)


@dataclass(frozen=True, slots=True)
class WanModel:
    """Implements `VideoModel`."""

    variant: Variant
    spec: ModelSpec
    options: tuple[ModelOption, ...] = OPTIONS

    def __hash__(self) -> int:
        return hash((self.variant.spec.name, self.spec.folder))

    @property
    def published_spec(self) -> ModelSpec:
        """See `VideoModel.published_spec`."""
        return self.variant.spec

    def with_weights(self, name: str, folder: Path) -> WanModel:
        """See `VideoModel.with_weights`."""
        return replace(self, spec=replace(self.spec, name=name, folder=folder))

    def layout(self, size: tuple[int, int], fps: float) -> LatentLayout:
        """One frame in the first latent, four in each later one."""
        vae = self.variant.vae
        return LatentLayout((vae.channels, size[0] // vae.scale, size[1] // vae.scale), first=1, rest=4)

    def noise_levels(self, steps: int, size: tuple[int, int], latents: int, options: Options) -> NoiseLevels:
        """With the shift of the options, else the model's; the context may be slightly noised."""
        from pavdm_cli.models.wan.levels import wan_levels

        return wan_levels(steps, options.get("shift") or self.variant.shift, int(options.get("context_noise") or 0))

    def timestep_shift(self, size: tuple[int, int], latents: int) -> float:
        """See `VideoModel.timestep_shift`."""
        return self.variant.shift

    def format_prompt(self, text: str, seed: int, options: Options, source: str = "") -> Prompt:
        """Unchanged; it is cleaned when it is encoded. The negative prompt may be empty."""
        return Prompt(text, negative=options.get("negative_prompt", ""))

    @property
    def text_tokens(self) -> int:
        """Every prompt is padded to this number, and the padding is attended to."""
        return TEXT_LENGTH

    def truncation_notes(self, text: str) -> list[str]:
        """See `VideoModel.truncation_notes`; empty if the tokenizer is not downloaded."""
        from pavdm_cli.hub.weights_dir import weights_folder
        from pavdm_cli.models.wan.text_encoder import truncation_note

        return truncation_note(weights_folder(self.spec), text)

    def count_tokens(self, text: str) -> int:
        """The same for every prompt, since it is padded."""
        return TEXT_LENGTH

    def prompt_help(self) -> tuple[list[HelpTable], dict[str, Any]]:
        """Nothing: any words are possible."""
        return [], {"words": {}, "synonyms": {}}

    def load_text_encoder(self, placement: Placement, init: Init) -> TextEncoder:
        """See `VideoModel.load_text_encoder`."""
        from pavdm_cli.models.wan import load

        return load.load_text_encoder(self.variant, self.spec, placement, init)

    def load(self, placement: Placement, init: Init) -> LoadedModel:
        """See `VideoModel.load`."""
        from pavdm_cli.models.wan import load

        if init == "weights":
            return load.load(self.variant, self.spec, placement)
        return load.load_without_weights(self.variant, self.spec, placement, init)

    def digest(self) -> str:
        """See `VideoModel.digest`."""
        from pavdm_cli.hub.checkpoint import digest
        from pavdm_cli.hub.weights_dir import weights_folder

        return digest(weights_folder(self.spec))

    def part_digest(self, part: str) -> str:
        """See `VideoModel.part_digest`."""
        from pavdm_cli.models.wan import load

        return load.part_digest(self.spec, part)


MODELS = {name: WanModel(variant, variant.spec) for name, variant in VARIANTS.items()}
