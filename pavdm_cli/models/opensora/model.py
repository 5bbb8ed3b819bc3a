"""Open-Sora v1.2 before its weights are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pavdm_cli.errors import UsageError
from pavdm_cli.models.adapter import HelpTable, Init, LoadedModel, Options, Placement, Prompt, TextEncoder
from pavdm_cli.models.execution import DEVICES
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.opensora.spec import SPEC
from pavdm_cli.models.spec import ModelOption, ModelSpec
from pavdm_cli.models.stdit.options import FP32_TIMESTEPS
from pavdm_cli.runtime.validation import check_name, check_text

if TYPE_CHECKING:
    from pavdm_cli.sampling.noise import NoiseLevels


def _score(name: str) -> Callable[[float | None], None]:
    def check(score: float | None) -> None:
        if score is not None and not 0 <= score <= 100:
            raise UsageError(f"--{name} must be 0 to 100, got {score:g}", "captions had about 4 to 7")

    return check


OPTIONS = (
    ModelOption(
        "aesthetic-score",
        float,
        6.5,
        "Aesthetic score appended to the prompt; 0 omits it.",
        check=_score("aesthetic-score"),
    ),
    ModelOption("motion-score", float | None, None, "Motion score for the prompt.", check=_score("motion-score")),
    ModelOption(
        "camera-motion",
        str,
        "",
        "Camera motion, such as pan left.",
        check=lambda text: check_text("--camera-motion", text),
    ),
    ModelOption(
        "text-device",
        str,
        "",
        "Device of the text encoder; cpu saves GPU memory. Default: same as --device.",
        choices=DEVICES,
        check=lambda name: check_name("--text-device", name or "auto", DEVICES),
    ),
    FP32_TIMESTEPS,
)


@dataclass(frozen=True, slots=True)
class OpenSoraModel:
    """Implements `VideoModel`."""

    spec: ModelSpec = SPEC
    options: tuple[ModelOption, ...] = OPTIONS
    sizes: tuple[tuple[str, int], ...] = ()  # of the transformer, if not the published ones
    depends_on_size: bool = True  # timesteps and position embeddings depend on the size in pixels and the window

    @property
    def published_spec(self) -> ModelSpec:
        """See `VideoModel.published_spec`."""
        return SPEC

    def with_weights(self, name: str, folder: Path) -> OpenSoraModel:
        """See `VideoModel.with_weights`."""
        return replace(self, spec=replace(self.spec, name=name, folder=folder))

    def layout(self, size: tuple[int, int], fps: float) -> LatentLayout:
        """Units of 17 frames in 5 latents, encoded independently: 1 frame, then 4 per latent."""
        return LatentLayout((4, size[0] // 8, size[1] // 8), first=1, rest=4, unit=5)

    def noise_levels(self, steps: int, size: tuple[int, int], latents: int, options: Options) -> NoiseLevels:
        """Shifted towards noise by size and length, as in training."""
        from pavdm_cli.sampling.noise import noise_levels, shifted_sigmas

        return noise_levels(shifted_sigmas(steps, self.timestep_shift(size, latents)))

    def timestep_shift(self, size: tuple[int, int], latents: int) -> float:
        """See `VideoModel.timestep_shift`."""
        from pavdm_cli.models.opensora.config import timestep_shift

        return (
            timestep_shift(*size, self.layout(size, self.spec.fps).num_frames(latents)) if self.depends_on_size else 1.0
        )

    def format_prompt(self, text: str, seed: int, options: Options, source: str = "") -> Prompt:
        """With the scores of the options appended, as in the captions of training."""
        from pavdm_cli.models.opensora.prompt import append_scores, check_prompt

        check_prompt(text)
        values = {option.key: options.get(option.key, option.default) for option in self.options}
        scores = (values["aesthetic_score"] or None, values["motion_score"], values["camera_motion"])
        return Prompt(append_scores(text, *scores))

    @property
    def text_tokens(self) -> int:
        """The length of the longest prompt."""
        return int(dict(self.sizes).get("text_length", 300))

    def truncation_notes(self, text: str) -> list[str]:
        """See `VideoModel.truncation_notes`; empty if the tokenizer is not downloaded."""
        from pavdm_cli.hub.weights_dir import weights_folder
        from pavdm_cli.models.opensora.text_encoder import truncation_note

        return truncation_note(weights_folder(self.spec) / "text_encoder", text)

    def count_tokens(self, text: str) -> int:
        """About four tokens for three words; T5's tokenizer is not loaded for this."""
        return min(300, 1 + len(text.split()) * 4 // 3)

    def prompt_help(self) -> tuple[list[HelpTable], dict[str, Any]]:
        """Nothing: any words are possible."""
        return [], {"words": {}, "synonyms": {}}

    def load_text_encoder(self, placement: Placement, init: Init) -> TextEncoder:
        """See `VideoModel.load_text_encoder`."""
        from pavdm_cli.models.opensora import loaded

        return loaded.load_text_encoder(self.spec, placement, init)

    def load(self, placement: Placement, init: Init) -> LoadedModel:
        """See `VideoModel.load`."""
        from pavdm_cli.models.opensora import loaded

        if init == "weights":
            return loaded.load(self.spec, placement)
        return loaded.load_without_weights(self.spec, placement, init, dict(self.sizes), self.depends_on_size)

    def digest(self) -> str:
        """See `VideoModel.digest`."""
        from pavdm_cli.hub.checkpoint import digest
        from pavdm_cli.hub.weights_dir import weights_folder

        return digest(weights_folder(self.spec))

    def part_digest(self, part: str) -> str:
        """See `VideoModel.part_digest`."""
        from pavdm_cli.hub.checkpoint import digest
        from pavdm_cli.hub.weights_dir import weights_folder
        from pavdm_cli.models.opensora.text_encoder import text_digest

        folder = weights_folder(self.spec)
        return digest(folder / "vae") if part == "vae" else text_digest(folder / "text_encoder")


MODEL = OpenSoraModel()
