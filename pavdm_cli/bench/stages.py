"""Time of each stage of a video, run one after another; a real run overlaps writing with the model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from pavdm_cli.bench.steps import prepare_sampling
from pavdm_cli.bench.synchronize import synchronize
from pavdm_cli.generation.config import GenerationConfig
from pavdm_cli.generation.decode import Pixels
from pavdm_cli.generation.request import Output
from pavdm_cli.generation.write import encoder_options
from pavdm_cli.models.pixels import to_bytes
from pavdm_cli.models.runner import ModelRunner
from pavdm_cli.sampling.loop import new_chunks
from pavdm_cli.video import VideoWriter

STAGES = ("text", "denoise", "decode", "write")


class Watch:
    """Adds up the seconds of named stages."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage, including the device's."""
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start


def stages(config: GenerationConfig, model: ModelRunner) -> dict[str, float]:
    """Seconds of each stage of the video: text, denoise, decode, write."""
    watch = Watch(model.device)
    height, width = config.spec.size
    with tempfile.TemporaryDirectory() as folder:
        encoding = encoder_options(config, Output())
        file = VideoWriter(Path(folder) / "video.mp4", width, height, config.spec.fps, options=encoding)
        for frames in decode_timed(config, model, watch):
            with watch.stage("write"):
                file.write(frames)
                file.flush()
        with watch.stage("write"):
            file.finish()
    return watch.seconds


def decode_timed(config: GenerationConfig, model: ModelRunner, watch: Watch) -> Iterator[Pixels]:
    """The video's frames, each stage timed."""
    inputs, remaining, warmup_latents = prepare_sampling(config, model), config.frames, list[Tensor]()
    watch.seconds["text"] += inputs.bind_seconds
    states = inputs.denoise(config.schedule, config.total_chunks)
    chunks = (chunk.latents for chunk in new_chunks(config.schedule, states))
    with watch.stage("denoise"):
        warmup_latents += islice(chunks, config.warmup)
    stream = model.decode_stream(torch.cat(warmup_latents, dim=1) if warmup_latents else None)
    while remaining > 0:
        with watch.stage("denoise"):
            latents = next(chunks, None)
        with watch.stage("decode"), torch.no_grad():
            frames = stream.flush() if latents is None else stream.push(latents)
            pixels = to_bytes(frames[0])[:remaining]
        remaining -= len(pixels)
        yield pixels
