"""The fake model before its weights are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pavdm_cli.models.adapter import HelpTable, Init, LoadedModel, Options, Placement, Prompt, TextEncoder
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.spec import ModelOption, ModelSpec, WeightPart

if TYPE_CHECKING:
    from pavdm_cli.sampling.noise import NoiseLevels

SPEC = ModelSpec(
    name="fake",
    description="a model of the tests",
    license="none",
    folder=Path("fake"),
    size=(64, 72),
    fps=8,
    window=6,
    chunk=2,
    first_chunk=1,
    steps=6,
    trained_steps=6,
    guidance=3.0,
    method="pa",
    size_multiple=8,
    max_side=128,
    fps_range=(4, 16),
    causal=False,
    parts=(WeightPart("net", "nobody/fake", "0" * 40),),
    architectures={"net": ("fakedit",)},
    precisions={"": ("fp32",)},
)
OPTIONS = (ModelOption("negative-prompt", str, "blurry", "What the video should not show."),)


@dataclass(frozen=True, slots=True)
class FakeModel:
    """Implements `VideoModel`."""

    spec: ModelSpec = SPEC
    options: tuple[ModelOption, ...] = OPTIONS
    text_tokens: int = 5

    @property
    def published_spec(self) -> ModelSpec:
        return SPEC

    def with_weights(self, name: str, folder: Path) -> FakeModel:
        return replace(self, spec=replace(self.spec, name=name, folder=folder))

    def layout(self, size: tuple[int, int], fps: float) -> LatentLayout:
        return LatentLayout((4, size[0] // 8, size[1] // 8), first=1, rest=4)

    def noise_levels(self, steps: int, size: tuple[int, int], latents: int, options: Options) -> NoiseLevels:
        from pavdm_cli.sampling.noise import noise_levels, shifted_sigmas

        return noise_levels(shifted_sigmas(steps, self.timestep_shift(size, latents)), context=0.02)

    def timestep_shift(self, size: tuple[int, int], latents: int) -> float:
        return 3.0

    def format_prompt(self, text: str, seed: int, options: Options, source: str = "") -> Prompt:
        return Prompt(text.lower(), negative=options.get("negative_prompt", "blurry"))

    def truncation_notes(self, text: str) -> list[str]:
        return []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def prompt_help(self) -> tuple[list[HelpTable], dict[str, Any]]:
        return [], {}

    def load_text_encoder(self, placement: Placement, init: Init) -> TextEncoder:
        from support.fake_model import loaded

        return loaded.load_text_encoder(self._folder(), placement, init)

    def load(self, placement: Placement, init: Init) -> LoadedModel:
        from support.fake_model import loaded

        return loaded.load(self._folder(), placement, init)

    def digest(self) -> str:
        from pavdm_cli.hub.checkpoint import digest

        return digest(self._folder())

    def part_digest(self, part: str) -> str:
        return self.digest()

    def _folder(self) -> Path:
        from pavdm_cli.hub.weights_dir import weights_folder

        return weights_folder(self.spec) / "net"


MODEL = FakeModel()
