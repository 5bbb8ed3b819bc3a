"""The bundled model without its weights: a small rendered world, on any CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pavdm_cli.models.adapter import HelpTable, Init, LoadedModel, Options, Placement, Prompt, TextEncoder
from pavdm_cli.models.layout import LatentLayout
from pavdm_cli.models.pocket.frame_format import CODED_FPS, CODED_SIZE, LATENT_CHANNELS, frame_format
from pavdm_cli.models.spec import Efficiency, IgnoredOption, ModelOption, ModelSpec
from pavdm_cli.models.stdit.options import FP32_TIMESTEPS
from pavdm_cli.sampling.right_context import JoinConfig

if TYPE_CHECKING:
    from pavdm_cli.sampling.noise import NoiseLevels

VAE_FILE, DENOISER_FILE = "vae.safetensors", "denoiser.safetensors"
SPEC = ModelSpec(
    name="pocket",
    description="the bundled model: a small rendered world, on any CPU, with no download",
    license="Apache-2.0",
    folder=Path(__file__).parent / "weights",
    size=(128, 192),
    sizes=((128, 192), CODED_SIZE),
    fps=16,
    frame_rates=(CODED_FPS, 16),
    fps_range=(CODED_FPS, 16),
    window=12,
    chunk=2,
    steps=12,
    trained_steps=24,
    compile=True,
    guidance=3.3,
    distilled_guidance=3.3,
    warmup=4,
    sink=1,
    join=JoinConfig(latents=20, guidance=2.0),
    scale=2,
    method="pa",
    world="its own rendered world",
    example_prompts=(
        "a red balloon drifting over green hills at sunset, the camera pans left",
        "a white boat bobbing on the sea at night",
        "a yellow kite circling above sand dunes by day",
        "a blue ball bouncing over mountains at dawn",
    ),
    files=(VAE_FILE, DENOISER_FILE),
    precisions={"": ("fp32", "bf16")},
    ignored=(
        IgnoredOption("--aspect", "its aspect ratio is always 3:2", "omit --aspect"),
        IgnoredOption("--aesthetic-score", "its training captions have no scores", "omit --aesthetic-score"),
        IgnoredOption("--motion-score", "its training captions have no scores", "say it in words: hovering, bouncing"),
        IgnoredOption("--camera-motion", "it reads that in the prompt", 'write it there: "..., the camera pans left"'),
        IgnoredOption("--text-device", "it encodes the prompt on its own device"),
    ),
    efficiency={
        "cpu fp32": Efficiency(denoise=0.28, decode=0.43, error_factor=1.6, measured=True),
        "cpu bf16": Efficiency(denoise=0.31, decode=0.56, error_factor=1.6, measured=True),
    },
)


@dataclass(frozen=True, slots=True)
class PocketModel:
    """As `VideoModel`."""

    spec: ModelSpec = SPEC
    options: tuple[ModelOption, ...] = (FP32_TIMESTEPS,)

    @property
    def published_spec(self) -> ModelSpec:
        """As `VideoModel.published_spec`."""
        return SPEC

    def with_weights(self, name: str, folder: Path) -> PocketModel:
        """As `VideoModel.with_weights`."""
        return replace(self, spec=replace(self.spec, name=name, folder=folder))

    def layout(self, size: tuple[int, int], fps: float) -> LatentLayout:
        """See `FrameFormat`."""
        frames = frame_format(size, fps)
        return LatentLayout(
            (LATENT_CHANNELS, CODED_SIZE[0] // 8, CODED_SIZE[1] // 8), first=frames.first, rest=frames.rest
        )

    def noise_levels(self, steps: int, size: tuple[int, int], latents: int, options: Options) -> NoiseLevels:
        """Evenly spaced (paper eq. 7)."""
        from pavdm_cli.sampling.noise import linear_sigmas, noise_levels

        return noise_levels(linear_sigmas(steps))

    def timestep_shift(self, size: tuple[int, int], latents: int) -> float:
        """As `VideoModel.timestep_shift`."""
        return 1.0

    def format_prompt(self, text: str, seed: int, options: Options, source: str = "") -> Prompt:
        """The complete caption: what the prompt leaves out is taken from the source, or drawn from the seed."""
        from pavdm_cli.pocket_world.prompt import format_prompt

        formatted = format_prompt(text, seed, source)
        return Prompt(formatted.text, tuple(formatted.notes), caption=formatted.text, later=formatted.later)

    @property
    def text_tokens(self) -> int:
        """As `VideoModel.text_tokens`."""
        return 12

    def truncation_notes(self, text: str) -> list[str]:
        """None: the notes of `format_prompt` name unknown words."""
        return []

    def count_tokens(self, text: str) -> int:
        """One for each word of its vocabulary."""
        from pavdm_cli.pocket_world import vocabulary

        return max(1, len(vocabulary.tokens(text)))

    def prompt_help(self) -> tuple[list[HelpTable], dict[str, Any]]:
        """What a prompt can say, examples, and the vocabulary."""
        from pavdm_cli.pocket_world.example_prompts import example_prompts
        from pavdm_cli.pocket_world.prompt import GRAMMAR, vocabulary
        from pavdm_cli.pocket_world.synonyms import SYNONYMS
        from pavdm_cli.pocket_world.vocabulary import PHRASES

        synonyms = {kind: {word: line.split(", ") for word, line in SYNONYMS[kind].items()} for kind in SYNONYMS}
        head = ("", "meaning", "phrases", "also understood, inflected too")
        prompts = [
            (kind if not i else "", text) for kind, group in example_prompts().items() for i, text in enumerate(group)
        ]
        tables: list[HelpTable] = [
            ("what a prompt can say", ("", ""), GRAMMAR),
            ("for example", ("", ""), prompts),
            ("words it knows", head, vocabulary()),
        ]
        return tables, {"words": PHRASES, "synonyms": synonyms, "examples": example_prompts()}

    def load_text_encoder(self, placement: Placement, init: Init) -> TextEncoder:
        """As `VideoModel.load_text_encoder`; it runs on the model's device."""
        from pavdm_cli.models.pocket import loaded

        return loaded.load_text_encoder(self.spec.folder / DENOISER_FILE, placement, init)

    def load(self, placement: Placement, init: Init) -> LoadedModel:
        """As `VideoModel.load`."""
        from pavdm_cli.models.pocket import loaded

        return loaded.load(self.spec.folder / VAE_FILE, self.spec.folder / DENOISER_FILE, placement, init)

    def digest(self) -> str:
        """As `VideoModel.digest`."""
        from pavdm_cli.models.pocket import checkpoint

        return checkpoint.digest(self.spec.folder / VAE_FILE, self.spec.folder / DENOISER_FILE)

    def part_digest(self, part: str) -> str:
        """As `VideoModel.part_digest`."""
        from pavdm_cli.models.pocket import checkpoint

        return checkpoint.digest(self.spec.folder / (VAE_FILE if part == "vae" else DENOISER_FILE))


MODEL = PocketModel()
