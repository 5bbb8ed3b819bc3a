"""The arms of the study: their weights and sampling options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch

from pavdm_cli.generation import pipeline
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.pipeline import Pixels
from pavdm_cli.generation.request import Output, Request
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.execution import ExecutionConfig
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.pocket.frame_format import CODED_FPS, CODED_SIZE
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.loop import state_from_renoised_clip
from pavdm_cli.sampling.noise import seeded_noise

REAL = "real"  # the arm of rendered videos
FULL = Fraction(1)
POCKET_FORMAT: dict[str, Any] = {"size": CODED_SIZE, "fps": CODED_FPS}  # the frames that the probe reads
UNDISTILLED_GUIDANCE = 1.5  # of pocket in two passes; larger scales drift within a minute


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to generate the videos of the study."""

    name: str
    weights: str  # base, pa, rw or shipped
    description: str
    options: dict[str, Any] = field(default_factory=dict)  # of `Request`
    steps: Fraction = FULL  # of the model's own
    window: Fraction = FULL
    from_clip: bool = False  # continue a re-noised clip of one window, without a ramp-up


# Without an attention sink, as in the paper.
PA, RN, RW, FIFO = ({"method": method, "sink": 0} for method in ("pa", "rn", "rw", "fifo"))
ARMS: tuple[Arm, ...] = (
    Arm("pa-base", "base", "PA, training-free", PA),
    Arm("rn-base", "base", "RN, training-free", RN),
    Arm("fifo", "base", "FIFO-Diffusion: a queue of twice as many levels, in calls of one window", FIFO, Fraction(2)),
    Arm("chained", "base", "one-clip windows, conditioned on the last re-encoded frames", RN | {"reencode": True}),
    Arm("pa", "pa", "PA, fine-tuned", PA),
    Arm("rw", "rw", "RW, fine-tuned", RW),
    Arm("no-context", "pa", "ablation 1: no clean chunk before the window", PA | {"context": 0}),
    Arm("chunk-1", "pa", "ablation 2: chunks of one latent, no clean chunk", PA | {"context": 0, "chunk": 1}),
    Arm("fixed-length", "pa", "no variable length: continues a clip of one window", PA, from_clip=True),
    Arm("half-steps", "pa", "half the sampling steps", PA, Fraction(1, 2)),
    Arm("double-steps", "pa", "twice the sampling steps", PA, Fraction(2)),
    Arm("half-window", "pa", "half the window", PA, window=Fraction(1, 2)),
    Arm("shipped", "shipped", "PA, the weights bundled then (5700 steps), without the sink", PA),
)  # fmt: skip
BY_NAME = {arm.name: arm for arm in ARMS}


def pocket_options(arm: Arm) -> dict[str, Any]:
    """The options of `Request` for all videos of pocket in an arm."""
    return POCKET_FORMAT if arm.weights == "shipped" else POCKET_FORMAT | {"guidance": UNDISTILLED_GUIDANCE}


def request_of(
    arm: Arm, prompt: str, seconds: float, *, model: str, seed: int, threads: int, options: Mapping[str, Any]
) -> Request:
    """The request for one video of an arm; only the bundled weights have a warm-up. options: of `Request`."""
    warmup = None if arm.weights == "shipped" else 0
    arguments = {"model": model, "seed": seed, "warmup": warmup, "execution": ExecutionConfig(threads=threads)}
    request = Request(prompt, seconds, output=Output(scale=1), **arguments, **options)
    spec = request.spec
    sizes = {"steps": int(spec.steps * arm.steps), "window": int(spec.window * arm.window)}
    overrides = {name: value for name, value in sizes.items() if value != getattr(spec, name)}
    return replace(request, **arm.options, **overrides)


def config_of(request: Request, distilled_guidance: float | None = None) -> GenerationConfig:
    """See `resolve`; distilled_guidance: the scale distilled into the weights, if not the model's default."""
    config = resolve(request)
    if distilled_guidance is None:
        return config
    return replace(config, spec=replace(config.spec, distilled_guidance=distilled_guidance))


def frames_of(arm: Arm, request: Request, config: GenerationConfig, model: ModelRunner) -> Iterator[Pixels]:
    """The frames of an arm's video, (n, H, W, 3) at a time; config: of the request."""
    return frames_from_clip(request, config, model) if arm.from_clip else pipeline.generate_frames(config, model)


@torch.no_grad()
def frames_from_clip(request: Request, config: GenerationConfig, model: ModelRunner) -> Iterator[Pixels]:
    """A clip of one window at one noise level, then its continuation from the re-noised window (algorithm 1)."""
    window = config.schedule.window
    count = min(config.frames, config.layout.num_frames(window))
    one_clip = {"method": "rn", "chunk": None, "context": 0, "reencode": False, "warmup": 0}
    single = config_of(replace(request, seconds=None, frames=count, **one_clip), config.spec.distilled_guidance)
    clip = torch.cat(list(pipeline.sample_latents(single, model)), dim=1)[:, :window]
    yield to_bytes(model.decode(clip)[0])[:count]
    if count == config.frames:
        return
    continuation = replace(config, frames=config.frames - count, num_conditioning_frames=count)
    noise = seeded_noise(config.seed, model.noise_shape())
    sigmas = pipeline.make_levels(config).sigmas.to(model.device)
    yield from pipeline.generate_frames(
        continuation, model, state_from_renoised_clip(continuation.schedule, clip, noise, sigmas)
    )
